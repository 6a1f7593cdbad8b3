"""Keyframes from frames."""

from __future__ import annotations

import cv2
import torch

from ovs3d_ros.types import Frame, Keyframe


def make_keyframe(frame: Frame, index: int, image_size: int, device: str) -> Keyframe:
    """A frame as the map is trained on it, its longer side at most `image_size` pixels (0: as it comes)."""
    camera = frame.camera.fitted(image_size)
    size = (camera.width, camera.height)
    image = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
    depth = frame.depth
    if depth is not None:
        depth = torch.from_numpy(cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)).to(device)
    return Keyframe(index=index, stamp=frame.stamp, name=frame.name, sensor=frame.sensor, camera=camera,
                    camtoworld=frame.camtoworld, image=torch.from_numpy(image).to(device).float() / 255.0, depth=depth)


def to_frame(keyframe: Keyframe) -> Frame:
    """A keyframe as a frame again, at its own size."""
    image = (keyframe.image * 255.0).round().to(torch.uint8).cpu().numpy()
    depth = None if keyframe.depth is None else keyframe.depth.cpu().numpy()
    return Frame(keyframe.stamp, image, keyframe.camera, keyframe.camtoworld, depth, name=keyframe.name,
                 sensor=keyframe.sensor)
