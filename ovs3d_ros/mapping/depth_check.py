"""Notices depth in another unit than metres, or without readings: nothing is mapped from it."""

from __future__ import annotations

import logging

import numpy as np

from ovs3d_ros.config import Config
from ovs3d_ros.types import Frame

logger = logging.getLogger(__name__)

_PATIENCE = 3  # images in a row; a hand before the lens is no wrong unit
_LOOKED_AT = 32  # rows at least; more readings would cost time on every frame and not move the median
_NEAREST = 0.05  # metres; no depth camera sees nearer, and metres read as millimetres are nearer
_LIKELY = (
    0.2  # metres; a nearer median is rather a large place seen in metres than a near wall in millimetres
)
_SHARE_BEYOND = 0.95  # of the readings beyond the trusted range; a street has more within it
_REMEDY = "set input.depth_scale to {:g} for topics and bags, or depth_unit_m in transforms.json"


class DepthCheck:
    """Watches the depth of the frames.

    Attributes:
        doubt: what is odd about the newest images, and the remedy; empty if nothing is.
    """

    def __init__(self) -> None:
        self.doubt = ""
        self._odd = 0  # images in a row

    def update(self, frame: Frame, config: Config) -> None:
        """Takes the depth of a frame, if it has any, and logs a doubt when it arises."""
        if frame.depth is None:
            return
        stride = max(1, min(frame.depth.shape) // _LOOKED_AT)
        depth = frame.depth[::stride, ::stride]
        found = _describe(depth, config.seed.max_depth, config.input.depth_scale)
        self._odd = self._odd + 1 if found else 0
        if self._odd and self._odd < _PATIENCE:
            return
        if found and not self.doubt:
            logger.warning(found)
        self.doubt = found


def _describe(depth: np.ndarray, max_depth: float, scale: float) -> str:
    """What is odd about a depth image; empty if nothing is.

    Args:
        depth: [H, W] metres, 0 = none.
        max_depth: `seed.max_depth`, metres.
        scale: `input.depth_scale`, which the remedy corrects.
    """
    readings = depth[depth > 0]
    if not len(readings):
        return "depth images arrive, but hold no reading (all 0 or NaN): check the depth camera and its range"
    median = float(np.median(readings))
    if median < _NEAREST:
        return (
            f"depth is {median:.3g} m in the median, nearer than any depth camera sees: metres are read as "
            f"millimetres; {_REMEDY.format(scale * 1000)}"
        )
    if (readings > max_depth).mean() < _SHARE_BEYOND:
        return ""
    beyond = (
        f"depth is {median:.4g} m in the median, and depth beyond seed.max_depth = {max_depth:g} m is ignored"
    )
    if _LIKELY < median / 1000 < max_depth:
        return f"{beyond}: millimetres are read as metres; {_REMEDY.format(scale / 1000)}"
    return f"{beyond}; raise seed.max_depth"
