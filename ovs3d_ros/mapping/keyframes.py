"""Keyframes from frames."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.types import CropTable, Frame, Keyframe


def make_keyframe(frame: Frame, index: int, image_size: int, max_depth: float, device: str) -> Keyframe:
    """A frame as the map is trained on it.

    Args:
        frame: as it came.
        index: of the keyframe.
        image_size: longer side at most, pixels; 0: as it comes.
        max_depth: metres from which on measured depth counts as none; sensors tell "nothing" by large values, too.
        device: of the tensors.
    """
    camera = frame.camera.fitted(image_size)
    size = (camera.width, camera.height)
    image = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
    depth = frame.depth
    if depth is not None:
        depth = cv2.resize(
            depth, size, interpolation=cv2.INTER_NEAREST_EXACT
        )  # at the centres, as the colours
        depth = torch.from_numpy(np.where(depth < max_depth, depth, np.float32(0))).to(device)
    return Keyframe(
        index=index,
        stamp=frame.stamp,
        name=frame.name,
        sensor=frame.sensor,
        camera=camera,
        camtoworld=frame.camtoworld,
        image=torch.from_numpy(image).to(device),
        depth=depth,
    )


def compress_crop_table(table: CropTable) -> CropTable:
    """The table as it is kept for good: unit embeddings at half precision, whose cosines are exact to 0.001."""
    return replace(table, embeddings=F.normalize(table.embeddings.float(), dim=-1).half())


def to_frame(keyframe: Keyframe) -> Frame:
    """A keyframe as a frame again, at its own size."""
    depth = None if keyframe.depth is None else keyframe.depth.cpu().numpy()
    return Frame(
        keyframe.stamp,
        keyframe.image.cpu().numpy(),
        keyframe.camera,
        keyframe.camtoworld,
        depth,
        name=keyframe.name,
        sensor=keyframe.sensor,
    )
