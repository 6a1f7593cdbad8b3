"""What the viewer shows: a map that grows, or one from a file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ovs3d_ros.map_frame import poses_to_map
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import MapFrame, MapSnapshot

Photo = Callable[[MapSnapshot, int], "np.ndarray | None"]


def keyframe_photo(pipeline: Ovs3d) -> Photo:
    """Finds the photograph of a keyframe among those of this run or of the map file."""

    def find(snapshot: MapSnapshot, index: int) -> np.ndarray | None:
        key = snapshot.names[index], snapshot.stamps[index]
        keyframes = pipeline.keyframes
        for number, view in enumerate(keyframes.views):
            if (view.name, view.stamp) == key:
                return keyframes[number].image.cpu().numpy()
        return None

    return find


@dataclass(frozen=True, slots=True)
class MapSource:
    """A map that the viewer shows.

    Attributes:
        pipeline: answers queries and renders.
        newest: the newest snapshot; None while the map is empty.
        photo: the photograph [H, W, 3] uint8 of a keyframe of a snapshot, or None.
        claim: holds priority over mapping while a visitor waits for an answer.
        live: the map grows.
        ready: False as long as the models that read names are being loaded; then `pipeline` has none.
    """

    pipeline: Ovs3d
    newest: Callable[[], MapSnapshot | None]
    photo: Photo
    claim: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    live: bool = False
    ready: bool = True

    @property
    def searchable(self) -> bool:
        """Whether names can be looked up, now or soon."""
        return self.pipeline.clip is not None or not self.ready


def in_map_frame(snapshot: MapSnapshot) -> MapSnapshot:
    """The snapshot as if its map frame were the world; see `map_frame`."""
    poses = poses_to_map(snapshot.camtoworlds, snapshot.frame)
    if poses is snapshot.camtoworlds:  # it is the world
        return snapshot
    return replace(snapshot, camtoworlds=poses, frame=MapFrame())
