"""CLIP on crops with sides in metres, for frames with depth (docs/method.md, "Language features")."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch

from ovs3d_ros.config import ClipConfig
from ovs3d_ros.encoders.clip import ClipEncoder
from ovs3d_ros.encoders.crops import plan_metric_crops
from ovs3d_ros.types import CropTable, Frame, UserError

_REMEDY = "or leave clip.crop_metres empty for crops relative to the image"


class MetricCropEncoder:
    """A `FrameEncoder` that embeds crops with sides of `clip.crop_metres`.

    Args:
        clip: embeds crops and texts.
        config: sides, stride and image size.

    Raises:
        UserError: `clip` is in dense mode, which has no crops.
    """

    def __init__(self, clip: ClipEncoder, config: ClipConfig) -> None:
        if clip.mode != "pyramid":
            raise UserError(
                f"clip.crop_metres needs crops, but clip.mode={config.mode} selects one dense pass here; set "
                f"clip.mode=pyramid, {_REMEDY}"
            )
        self.name, self.dim, self.calibration = clip.name, clip.dim, clip.calibration
        self._clip, self._config = clip, config
        self._metres = config.crop_metres

    def encode_frame(self, frame: Frame) -> CropTable:
        """Crop table of a frame, one level per side in metres.

        Raises:
            UserError: no pixel has depth.
        """
        camera = frame.camera.fitted(self._config.image_size)
        depth = np.zeros((1, 1), np.float32) if frame.depth is None else frame.depth
        depth = cv2.resize(depth, (camera.width, camera.height), interpolation=cv2.INTER_NEAREST_EXACT)
        if not (depth > 0).any():
            raise _no_depth(frame.name or f"frame at {frame.stamp:.3f} s")
        focal = math.sqrt(camera.K[0, 0] * camera.K[1, 1])
        groups = plan_metric_crops(depth, focal, self._clip.crop_px, self._metres, self._config.crop_stride)
        return self._clip.encode_crops(frame.image, groups)

    def encode_image(self, image: np.ndarray) -> CropTable:
        """Raises UserError, since an image alone has no depth."""
        raise _no_depth("the image")

    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """See `ClipEncoder.encode_text`."""
        return self._clip.encode_text(prompts)


def _no_depth(name: str) -> UserError:
    return UserError(
        f"{name} has no depth, but clip.crop_metres needs depth to size its crops; provide depth "
        f"(on a robot: input.use_depth=true), {_REMEDY}"
    )
