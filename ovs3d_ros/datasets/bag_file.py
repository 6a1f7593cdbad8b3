"""Reads topics and messages of rosbag2 and ROS 1 recordings with the rosbags library, without ROS."""

from __future__ import annotations

import contextlib
import re
import struct
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ovs3d_ros.io.git_lfs import check_no_lfs_pointer
from ovs3d_ros.types import UserError

METADATA = "metadata.yaml"
_ROS1 = ".bag"
SUFFIXES = (".mcap", ".db3", _ROS1)  # of storage files; a suffix of a compression may follow
_OLD_TYPES = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}  # names of ROS 1 for the same content
VIDEO = "foxglove_msgs/msg/CompressedVideo"
_VIDEO_FIELDS = "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
_NO_STORAGE = re.compile(r"""^\s*storage_identifier:\s*(""|''|null|~)?\s*$""", re.MULTILINE)
_REMEDY = "repair it with `ros2 bag reindex` (mcap: `mcap recover`), or record it again"


class Sample(NamedTuple):
    """The place of a message with a header in the bag.

    Attributes:
        stamp: stamp of the header, seconds.
        frame_id: frame of the header.
        topic: name of the topic.
        time_ns: time of the recording, nanoseconds.
        ordinal: number of earlier messages of this topic in the same nanosecond.
    """

    stamp: float
    frame_id: str
    topic: str
    time_ns: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class Topic:
    """A recorded topic: name, message type such as `sensor_msgs/msg/Image`, and number of messages."""

    name: str
    type: str
    count: int


def is_bag(path: Path) -> bool:
    """Whether the path is the folder of a bag, even an incomplete one, or a storage file."""
    if path.is_file():
        return path.suffix in SUFFIXES
    if any(set(entry.suffixes) & set(SUFFIXES) for entry in path.glob("[!.]*") if entry.is_file()):
        return True
    try:
        return "rosbag2_bagfile_information" in (path / METADATA).read_text(
            encoding="utf-8", errors="replace"
        )
    except OSError:
        return False


def _storage(path: Path) -> Path:
    """The path to open: the given one, or the only storage file if the metadata do not name the storage.

    `ros2 bag reindex` of Humble leaves `storage_identifier` empty (github.com/ros2/rosbag2, issue 2175).

    Raises:
        UserError: the storage is not named and there are several files.
    """
    if path.is_file():
        return path
    if not (path / METADATA).is_file():
        return _only_ros1_file(path)
    metadata = (path / METADATA).read_text(encoding="utf-8", errors="replace")
    if _NO_STORAGE.search(metadata) is None:
        return path
    files = [file for file in sorted(path.glob("[!.]*")) if file.suffix in SUFFIXES]
    if len(files) != 1:
        raise UserError(
            f"{path / METADATA}: storage_identifier is empty and there are {len(files)} files; write mcap or "
            "sqlite3 there, whichever the files are"
        )
    return files[0]


def _only_ros1_file(path: Path) -> Path:
    """The only .bag file in a folder that is not a rosbag2 folder."""
    files = sorted(path.glob(f"[!.]*{_ROS1}"))
    if not files:
        raise UserError(
            f"{path}: a bag without {METADATA}, so it was not closed; run `ros2 bag reindex {path}`, "
            "or give the storage file itself"
        )
    if len(files) > 1:
        raise UserError(f"{path}: holds {len(files)} bags of ROS 1; give one of them, e.g. {files[0]}")
    return files[0]


class BagFile:
    """An open bag.

    Attributes:
        path: the folder or the storage file.
        topics: by name.
    """

    def __init__(self, path: Path):
        """Opens the bag.

        Raises:
            UserError: rosbags is missing, or the bag is damaged, unfinished or of an unknown compression.
        """
        try:
            from rosbags import rosbag1, rosbag2
            from rosbags.typesys import Stores, get_types_from_msg, get_typestore
        except ImportError as error:
            raise UserError(
                f"{path}: reading bags needs rosbags ({error}); pip install 'rosbags>=0.11'"
            ) from None
        for file in [path] if path.is_file() else path.iterdir():
            check_no_lfs_pointer(file)
        storage = _storage(path)
        self.path = path
        # All distributions have the same definitions of the types that are read here.
        self._types = get_typestore(Stores.ROS2_HUMBLE)
        self._types.register(get_types_from_msg(_VIDEO_FIELDS, VIDEO))
        self._is_ros1 = storage.suffix == _ROS1
        with self._reading():
            self._reader = (rosbag1 if self._is_ros1 else rosbag2).Reader(storage)
            self._reader.open()
            weakref.finalize(self, self._reader.close)
            self._connections: dict[str, list[Any]] = {}
            for connection in self._reader.connections:
                self._connections.setdefault(connection.topic, []).append(connection)
        self.topics = {
            name: Topic(name, _OLD_TYPES.get(of[0].msgtype, of[0].msgtype), sum(c.msgcount for c in of))
            for name, of in self._connections.items()
        }

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Turns every error of the library on damaged data into a UserError."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # the parsers of two formats and two compressions raise many kinds
            about = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{self.path}: the bag cannot be read, it is truncated or damaged ({about}); {_REMEDY}"
            ) from error

    def read_raw(
        self,
        topics: list[str],
        start: int | None = None,
        stop: int | None = None,
    ) -> Iterator[tuple[str, int, bytes]]:
        """Yields topic, time in nanoseconds and message serialized as CDR, in order of time.

        Raises:
            UserError: the data is damaged.
        """
        connections = [c for topic in topics for c in self._connections[topic]]
        if not connections:
            return
        with self._reading():
            for connection, time_ns, data in self._reader.messages(connections, start, stop):
                kind = self.topics[connection.topic].type
                if self._is_ros1 and kind in self._types.types:
                    data = bytes(self._types.ros1_to_cdr(data, kind))
                yield connection.topic, time_ns, data

    def decode(self, topic: str, data: bytes) -> Any:
        """Decodes a message; its fields are attributes.

        Raises:
            UserError: the bytes are not a message of the type of the topic.
        """
        kind = self.topics[topic].type
        if kind not in self._types.types:
            raise UserError(f"{self.path}: {topic} has the message type {kind}, which is not supported")
        try:
            return self._types.deserialize_cdr(data, kind)
        except Exception as error:  # the library raises many kinds for damaged bytes
            raise UserError(
                f"{self.path}: a message on {topic} is not a {kind} ({type(error).__name__}); {_REMEDY}"
            ) from error

    def messages(self, topics: list[str]) -> Iterator[tuple[str, Any]]:
        """Yields topic and decoded message, in order of time."""
        for topic, _, data in self.read_raw(topics):
            yield topic, self.decode(topic, data)

    def first_message(self, topic: str) -> Any | None:
        """The first message of a topic, or None."""
        with contextlib.closing(self.read_raw([topic])) as messages:
            for _, _, data in messages:
                return self.decode(topic, data)
        return None

    def samples(self, topics: list[str]) -> Iterator[Sample]:
        """Yields the places of the messages of topics with headers; decodes only the headers."""
        latest: dict[str, tuple[int, int]] = {}
        for topic, time_ns, data in self.read_raw(topics):
            before, ordinal = latest.get(topic, (-1, -1))
            latest[topic] = (time_ns, ordinal + 1 if time_ns == before else 0)
            yield Sample(*self._header(topic, data), topic, *latest[topic])

    def _header(self, topic: str, data: bytes) -> tuple[float, str]:
        """Stamp and frame of the std_msgs/Header that starts a CDR message after 4 bytes of byte order.

        CompressedVideo starts with the same fields, though without a header.
        """
        try:
            order = "<" if data[1] & 1 else ">"
            seconds, nanoseconds, length = struct.unpack_from(order + "iII", data, 4)
            frame = bytes(data[16 : 16 + length]).rstrip(b"\0").decode("utf-8")
        except (struct.error, IndexError, UnicodeDecodeError):
            raise UserError(f"{self.path}: a message on {topic} has no readable header; {_REMEDY}") from None
        return seconds + nanoseconds * 1e-9, frame

    def read(self, sample: Sample) -> Any:
        """Reads and decodes the message of a sample.

        Raises:
            UserError: the data is damaged, or the bag changed since it was opened.
        """
        found = self.read_raw([sample.topic], sample.time_ns, sample.time_ns + 1)
        with contextlib.closing(found) as messages:
            for ordinal, (_, _, data) in enumerate(messages):
                if ordinal == sample.ordinal:
                    return self.decode(sample.topic, data)
        raise UserError(
            f"{self.path}: the message at {sample.stamp:.6f} s on {sample.topic} is gone; the bag changed "
            "since it was opened"
        )
