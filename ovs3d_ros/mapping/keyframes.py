"""Keyframes: which frames become one, and how the map keeps them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.config import KeyframeConfig
from ovs3d_ros.geometry import rotation_angle
from ovs3d_ros.types import Camera, CropTable, Frame, Keyframe

# Pose noise of a robot that stands still: motion below both limits is none.
_STILL_TRANSLATION = 0.01  # median depths
_STILL_ROTATION = 1.0  # degrees
_MIN_COARSE_SIDE = 64  # px: smaller images have no coarse level


def is_new_view(config: KeyframeConfig, frame: Frame, last: Keyframe, median_depth: float) -> bool:
    """Whether the camera moved or turned enough since the last keyframe, or moved and waited long enough.

    Args:
        config: thresholds.
        frame: the candidate.
        last: the last keyframe of the same camera.
        median_depth: of the scene, metres; translations are relative to it.
    """
    translation = np.linalg.norm(frame.camtoworld[:3, 3] - last.camtoworld[:3, 3])
    rotation = np.degrees(rotation_angle(frame.camtoworld[:3, :3], last.camtoworld[:3, :3]))
    has_moved = translation > _STILL_TRANSLATION * median_depth or rotation > _STILL_ROTATION
    is_due = frame.stamp - last.stamp > config.max_interval and has_moved
    return bool(translation > config.translation * median_depth or rotation > config.rotation or is_due)


def make_keyframe(frame: Frame, index: int, image_size: int, max_depth: float, device: str) -> Keyframe:
    """Resizes a frame to the mapping resolution and moves it to the device.

    Args:
        frame: as received.
        index: of the keyframe.
        image_size: longer image side at most, pixels; 0 keeps the size.
        max_depth: metres; measured depth from here on counts as missing, because some sensors report large
            values where they measured nothing.
        device: torch device name.
    """
    camera = frame.camera.fitted(image_size)
    size = (camera.width, camera.height)
    image = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
    depth = frame.depth
    if depth is not None:
        # INTER_NEAREST_EXACT samples at pixel centres, where the colours are.
        depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST_EXACT)
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
    """The table with unit embeddings in half precision, as keyframes keep it; cosines stay exact to 0.001."""
    return replace(table, embeddings=F.normalize(table.embeddings.float(), dim=-1).half())


def to_frame(keyframe: Keyframe) -> Frame:
    """The keyframe as a frame, at the mapping resolution."""
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


def training_view(keyframe: Keyframe, coarse: bool) -> tuple[Camera, torch.Tensor, torch.Tensor | None]:
    """Camera, RGB [H, W, 3] in 0..1 and depth [H, W] to train on: at half resolution if `coarse`."""
    if not coarse or min(keyframe.camera.width, keyframe.camera.height) < _MIN_COARSE_SIDE:
        return keyframe.camera, keyframe.rgb, keyframe.depth
    camera = keyframe.camera.scaled(keyframe.camera.width // 2, keyframe.camera.height // 2)
    size = (camera.height, camera.width)
    image = F.interpolate(keyframe.rgb.permute(2, 0, 1)[None], size=size, mode="area")[0].permute(1, 2, 0)
    depth = keyframe.depth
    if depth is not None:
        depth = F.interpolate(depth[None, None], size=size, mode="nearest")[0, 0]
    return camera, image, depth
