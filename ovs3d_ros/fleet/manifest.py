"""What has become of each dataset: a small JSON file per map, `records/NAME.json` in the folder of the maps.

Together the records are the manifest of a fleet. Workers and driver write them atomically, and no two of them
share a file, so a fleet goes on where it was after any of them was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ovs3d_ros.config import Config
from ovs3d_ros.config.stored import stored_settings
from ovs3d_ros.fleet.parts import MAP_SUFFIX, identity
from ovs3d_ros.io.atomic import write_text
from ovs3d_ros.offline.mapping import Source
from ovs3d_ros.types import UserError

logger = logging.getLogger(__name__)

FOLDER = "records"
PENDING, DONE, FAILED, CRASHED = "pending", "done", "failed", "crashed"


@dataclass(frozen=True, slots=True)
class Record:
    """What has become of one dataset.

    Attributes:
        source: absolute path of the data.
        map: name of the map file in the folder.
        data: fingerprint of the data, see `fingerprint_data`.
        settings: fingerprint of the settings, see `fingerprint_settings`.
        state: "pending"; "done"; "failed": the data cannot be mapped or the map not written, see `error`;
            "crashed": a fault of the program or the machine.
        identity: size and time of change of the map, see `parts.identity`; empty unless it is done.
        attempts: how often it was tried in the last run.
        error: why there is no map, else "".
        seconds: time it took.
        report: figures of the map, see `offline.mapping.map_dataset`.
        warnings: what the log warned about.
    """

    source: str
    map: str
    data: str
    settings: str
    state: str = PENDING
    identity: list[int] = field(default_factory=list)
    attempts: int = 0
    error: str = ""
    seconds: float = 0.0
    report: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def fingerprint_data(path: Path, ignored: Path) -> str:
    """Hash of the names, sizes and times of change of all files of a dataset, as rsync compares files.

    Their content is not read: a hundred bags would take hours.

    Args:
        path: a folder; a bag; or a nerfstudio JSON file, whose folder counts.
        ignored: a folder that does not count, because maps are written there.

    Raises:
        UserError: it cannot be read.
    """
    root, entries = path.parent if path.suffix == ".json" else path, []
    try:
        files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
        for file in files:
            if ignored not in file.parents:
                status = file.stat()
                entries.append([os.fsdecode(file.relative_to(root)), status.st_size, status.st_mtime_ns])
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot read it ({error.strerror})") from None
    return _hash([path.name, entries])


def fingerprint_settings(source: Source, config: Config, encode: bool) -> str:
    """Hash of all that makes a map besides the data; other settings make another map."""
    images = None if source.images is None else str(source.images.resolve())
    choices = [source.format, images, source.skip_missing, source.holdout, encode]
    return _hash([stored_settings(config), choices])


def _hash(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()


def record_path(folder: Path, name: str) -> Path:
    """The record of a map file with this name."""
    return folder / FOLDER / f"{Path(name).stem}.json"


def write_record(folder: Path, record: Record) -> None:
    """Writes a record atomically; raises UserError if it cannot be written."""
    write_text(record_path(folder, record.map), json.dumps(asdict(record), indent=2) + "\n")


def read_records(folder: Path) -> dict[str, Record]:
    """The records in a folder, by source.

    Raises:
        UserError: one of them is no record.
    """
    records = {}
    for path in sorted((folder / FOLDER).glob("*.json")):
        record = read_record(path)
        if record is not None:
            records[record.source] = record
    return records


def read_record(path: Path) -> Record | None:
    """The record in a file; None if there is no file.

    Raises:
        UserError: it is no record.
    """
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: not a record of a fleet ({error}); delete it to map its data anew"
        ) from None


def is_done(folder: Path, record: Record, wanted: Record) -> bool:
    """Whether a record says that a map of the same data and settings is done, and the map is there."""
    if record.state != DONE or (record.data, record.settings) != (wanted.data, wanted.settings):
        return False
    try:
        return identity(folder / record.map) == record.identity
    except OSError:
        return False


def choose_names(sources: Iterable[Path], records: dict[str, Record], folder: Path) -> dict[Path, str]:
    """A map file for each source: that of its record, or a new one named after the data.

    A name is never that of another dataset or of a map that is there already.
    """
    taken = {record.map for record in records.values()} | {p.name for p in folder.glob(f"*{MAP_SUFFIX}")}
    names = {}
    for source in sources:
        record = records.get(str(source))
        title, number = _title(source), 2
        name = f"{title}{MAP_SUFFIX}"
        while record is None and name in taken:
            name, number = f"{title}-{number}{MAP_SUFFIX}", number + 1
        names[source] = name if record is None else record.map
        taken.add(names[source])
    return names


def _title(source: Path) -> str:
    """The name of a dataset: of its folder for a nerfstudio JSON file, else without the suffix of a file."""
    folder = source.parent if source.suffix == ".json" else source
    return folder.name if folder.is_dir() else folder.stem


@contextlib.contextmanager
def locked(path: Path, wait: bool) -> Iterator[bool]:
    """Holds a lock that ends with this process, whatever ends it.

    Args:
        path: the lock file, which stays.
        wait: whether to wait for the lock.

    Yields:
        Whether the lock is held: False if another process holds it. True on drives without locks.
    """
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            logger.warning(
                "%s: this drive has no locks (%s); do not run two commands on one folder", path, error
            )
        yield True
