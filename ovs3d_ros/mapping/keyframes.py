"""Keyframes: which frames become one, and how the map keeps them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.config import KeyframeConfig
from ovs3d_ros.geometry import rotation_angle
from ovs3d_ros.types import Camera, CropTable, Frame, Keyframe, KeyframeView

# Pose noise of a robot that stands still: motion below both limits is none.
_STILL_TRANSLATION = 0.01  # median depths
_STILL_ROTATION = 1.0  # degrees
_MIN_COARSE_SIDE = 64  # px: smaller images have no coarse level
_WHOLE = 0.999  # share of a pixel, but for rounding


def is_new_view(config: KeyframeConfig, frame: Frame, last: KeyframeView, median_depth: float) -> bool:
    """Whether the camera moved or turned enough since the last keyframe, or moved and waited long enough.

    Args:
        config: thresholds.
        frame: the candidate.
        last: where the last keyframe was taken of the same camera.
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
        mask=None if frame.mask is None else resize_mask(torch.from_numpy(frame.mask).to(device), camera),
    )


def hide_masked(frame: Frame) -> Frame:
    """The frame with its masked pixels in the mean colour of the others, and without depth.

    So an encoder, whose crops reach across the mask's edge, does not see what is masked.
    """
    if frame.mask is None or frame.mask.all():
        return frame
    image, depth = frame.image.copy(), frame.depth
    image[~frame.mask] = frame.image[frame.mask].mean(axis=0).round() if frame.mask.any() else 0
    if depth is not None:
        depth = np.where(frame.mask, depth, np.float32(0))
    return replace(frame, image=image, depth=depth)


def resize_mask(mask: torch.Tensor, camera: Camera) -> torch.Tensor:
    """The mask at the size of a camera; a pixel that mixes masked ones is masked."""
    shares = F.interpolate(mask[None, None].float(), size=(camera.height, camera.width), mode="area")
    return shares[0, 0] > _WHOLE


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
        mask=None if keyframe.mask is None else keyframe.mask.cpu().numpy(),
    )


def to_device(keyframe: Keyframe, device: str) -> Keyframe:
    """The keyframe with its pixels on a device."""
    depth, mask = (None if t is None else t.to(device) for t in (keyframe.depth, keyframe.mask))
    return replace(keyframe, image=keyframe.image.to(device), depth=depth, mask=mask)


def training_view(
    keyframe: Keyframe, coarse: bool
) -> tuple[Camera, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Camera, RGB [H, W, 3] in 0..1, depth and mask [H, W] to train on: at half resolution if `coarse`."""
    if not coarse or min(keyframe.camera.width, keyframe.camera.height) < _MIN_COARSE_SIDE:
        return keyframe.camera, keyframe.rgb, keyframe.depth, keyframe.mask
    camera = keyframe.camera.scaled(keyframe.camera.width // 2, keyframe.camera.height // 2)
    size = (camera.height, camera.width)
    image = F.interpolate(keyframe.rgb.permute(2, 0, 1)[None], size=size, mode="area")[0].permute(1, 2, 0)
    depth = keyframe.depth
    if depth is not None:
        depth = F.interpolate(depth[None, None], size=size, mode="nearest")[0, 0]
    return camera, image, depth, None if keyframe.mask is None else resize_mask(keyframe.mask, camera)
