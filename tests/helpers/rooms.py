"""Drives through copies of a small room, of which a map parks what was left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from helpers import synthetic
from ovs3d_ros.encoders import ImageTextEncoder
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Frame

CAMERA = synthetic.make_camera(160, 120)
POSES = synthetic.orbit(4, arc=1.2)
FRAMES = [synthetic.make_frame(pose, float(index), camera=CAMERA) for index, pose in enumerate(POSES)]
STEP, CAP = 12.0, 20_000  # metres between rooms, active Gaussians; a room has about 6,000
BOXES = ["red box", "green box", "blue box"]


def in_room(frame: Frame, room: int) -> Frame:
    """The frame as seen in a copy of the room."""
    pose = frame.camtoworld.copy()
    pose[0, 3] += STEP * room
    return replace(frame, camtoworld=pose, stamp=frame.stamp + 100 * room, name=f"room {room} {frame.name}")


def drive(rooms: Iterable[int], steps: int = 3, clip: ImageTextEncoder | None = None, **settings) -> Ovs3d:
    """A map of rooms, one after the other; `clip` is an encoder of one's own."""
    settings = dict(map__max_gaussians=CAP, train__densify_every=0, seed__spacing=2.0) | settings
    pipeline = Ovs3d(synthetic.make_config(**settings), clip=clip)
    drive_on(pipeline, rooms, steps)
    return pipeline


def drive_on(pipeline: Ovs3d, rooms: Iterable[int], steps: int) -> None:
    """Maps more rooms."""
    for room in rooms:
        for frame in FRAMES:
            assert pipeline.add_frame(in_room(frame, room))
            pipeline.optimize(steps)
