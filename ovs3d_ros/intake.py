"""`Intake`: takes frames and points into a map, colours at once, features when the encoder has them."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from ovs3d_ros.config import ComputeConfig
from ovs3d_ros.encoders import ImageTextEncoder, encode_frame
from ovs3d_ros.encoders.own_thread import make_encoder_thread
from ovs3d_ros.geometry import check_coordinates, check_frame
from ovs3d_ros.map_frame import check_reach, choose_map_frame, frame_to_map, points_to_map
from ovs3d_ros.mapping.keyframes import compress_crop_table, hide_masked, make_keyframe
from ovs3d_ros.mapping.mapper import parking_cap
from ovs3d_ros.semantic_map import SemanticMap
from ovs3d_ros.semantics.lift import check_num_levels
from ovs3d_ros.types import CropTable, Frame, Keyframe, UserError


@dataclass(frozen=True, slots=True)
class Insertion:
    """A keyframe whose colours are in the map.

    Attributes:
        index: of the keyframe.
        features: its crop table, and the seconds that it took, which the encoder's thread computes; None: all
            that the map needs of it is there.
    """

    index: int
    features: Future[tuple[CropTable, float]] | None


class Intake:
    """Takes frames and points into a map; the thread that changes the map calls it.

    An image tower takes far longer than all else that a new keyframe costs. `add_frame` waits for it, so
    that results depend on the frames alone. `insert_frame` does not: the map shows the keyframe's colours,
    and `add_features` follows.

    Args:
        room: the map.
        clip: encodes keyframes; None: the map holds colours only.
        compute: threads of the encoder.
        device: of the map.
    """

    def __init__(
        self, room: SemanticMap, clip: ImageTextEncoder | None, compute: ComputeConfig, device: str
    ) -> None:
        self._room, self._clip, self._device = room, clip, device
        self._encoder = make_encoder_thread(compute, device)

    def add_frame(self, frame: Frame) -> bool:
        """Maps a posed frame if it shows something new, see `Ovs3d.add_frame`."""
        taken = self._take(frame)
        if taken is None:
            return False
        frame, keyframe = taken
        if self._clip is not None:
            keyframe.crops = self._checked(self._encoder.run(encode_frame, self._clip, frame))
        self._insert(keyframe)
        if self._clip is not None and len(self._room.mapper.gaussians):
            self._room.lift(keyframe)
        return True

    def insert_frame(self, frame: Frame) -> Insertion | None:
        """Maps the colours of a posed frame; None if it shows nothing new.

        The first keyframe with features is mapped with them, as a map needs a codec to be asked.

        Raises:
            UserError: a bad frame.
        """
        keyframes = self._room.mapper.keyframes
        if self._clip is None or self._room.lifter.codec is None:
            return Insertion(len(keyframes) - 1, None) if self.add_frame(frame) else None
        taken = self._take(frame)
        if taken is None:
            return None
        frame, keyframe = taken
        features = self._encoder.start(_timed_encoding, self._clip, frame)
        self._insert(keyframe)
        return Insertion(len(keyframes) - 1, features)

    def add_features(self, insertion: Insertion) -> float:
        """Lifts the features of a keyframe, as soon as they are there.

        Returns:
            Seconds that the encoder took.

        Raises:
            UserError: the encoder cannot encode it; the map keeps its colours.
        """
        assert insertion.features is not None, "its features are in the map"
        index, mapper = insertion.index, self._room.mapper
        try:
            crops, seconds = insertion.features.result()
            crops = self._checked(crops)
        except UserError as error:
            raise UserError(f"{mapper.keyframes.names[index]}: {error}") from None
        mapper.keyframes.set_crops(index, crops)
        if len(mapper.gaussians):
            mapper.blocks.codec = self._room.lifter.codec
            mapper.blocks.visit(index, parking_cap(mapper.config))
            self._room.lift(mapper.keyframes[index])
        return seconds

    def add_points(self, xyz: np.ndarray, rgb: np.ndarray, centers: np.ndarray | None) -> None:
        """Seeds the map from a point cloud, see `Ovs3d.add_points`."""
        xyz = check_coordinates(xyz, "the point cloud")
        places = xyz if centers is None or not len(centers) else centers
        if len(places):
            self._place_map(places[0])
        place = self._room.frame
        centers = None if centers is None else points_to_map(centers, place)
        self._room.mapper.insert_points(points_to_map(xyz, place), rgb, centers)

    def _take(self, frame: Frame) -> tuple[Frame, Keyframe] | None:
        """The frame in the map frame, and as a keyframe without features; None if it shows nothing new."""
        check_frame(frame)
        room, config = self._room, self._room.mapper.config
        room.frames += 1
        self._place_map(frame.camtoworld[:3, 3])
        frame = hide_masked(frame_to_map(frame, room.frame))
        if frame.mask is not None and not frame.mask.any():
            return None
        room.mapper.depth_check.update(frame, config)
        if not room.mapper.needs_keyframe(frame):
            return None
        number, size, depth = len(room.mapper.keyframes), config.map.image_size, config.seed.max_depth
        return frame, make_keyframe(frame, number, size, depth, self._device)

    def _checked(self, crops: CropTable) -> CropTable:
        """Features as a keyframe keeps them. Raises UserError if they do not fit those of the map."""
        check_num_levels(crops, self._room.mapper.gaussians)
        return compress_crop_table(crops)

    def _insert(self, keyframe: Keyframe) -> None:
        mapper = self._room.mapper
        check_reach(keyframe, mapper.keyframes.views)
        mapper.blocks.codec = self._room.lifter.codec
        mapper.insert(keyframe)

    def _place_map(self, position: np.ndarray) -> None:
        """Chooses the map frame by the first position of an empty map."""
        if self._room.is_empty:
            self._room.frame = choose_map_frame(position, self._room.mapper.config.map.unit or 1.0)


def _timed_encoding(clip: ImageTextEncoder, frame: Frame) -> tuple[CropTable, float]:
    """The crop table of a frame, and the seconds that it took."""
    started = time.monotonic()
    return encode_frame(clip, frame), time.monotonic() - started
