"""Where a camera sits on the robot whose poses arrive: one rule for the node and for bags."""

from __future__ import annotations

import numpy as np

DEFAULT_EXTRINSICS = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)  # x y z qx qy qz qw; means "not set"
SAME_FRAME = (0, 0, 0, 0, 0, 0, -1)  # the same rotation, but set: two names mean one frame


def are_set(extrinsics: tuple[float, ...]) -> bool:
    """Whether seven numbers of `input.extrinsics` were set by the user."""
    return tuple(extrinsics) != DEFAULT_EXTRINSICS


def settled_mount(
    extrinsics: np.ndarray | None, is_odometry: bool, child: str, optical: str
) -> np.ndarray | None:
    """The pose [4, 4] of the optical frame in the child frame, as far as settings and names decide it.

    Poses with a `child_frame_id` other than the optical frame are those of the robot. `input.extrinsics` then
    leads to the camera; if that is not set, only transforms can.

    Args:
        extrinsics: [4, 4]; None: not set.
        is_odometry: odometry is led by extrinsics that are set, whatever the frames are called.
        child: frame whose poses arrive; "" if the messages do not say it.
        optical: frame of the images; "" if they do not say it.

    Returns:
        The mount, or None if a transform from `optical` to `child` is needed.
    """
    differs = bool(child and optical and child != optical)
    if extrinsics is not None:
        return extrinsics if differs or is_odometry else np.eye(4)
    return None if differs else np.eye(4)
