"""Mappers and keyframes of the synthetic scene."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from helpers import synthetic
from ovs3d_ros.mapping.mapper import Mapper
from ovs3d_ros.mapping.rendering import render_view
from ovs3d_ros.rasterize import make_rasterizer
from ovs3d_ros.types import Frame, Keyframe

RASTERIZER = make_rasterizer("cpu", 1)


def make_keyframe(frame: Frame, index: int = 0) -> Keyframe:
    """The frame as a keyframe at full resolution."""
    depth = None if frame.depth is None else torch.from_numpy(frame.depth)
    return Keyframe(
        index,
        frame.stamp,
        frame.name,
        torch.from_numpy(frame.image),
        frame.camera,
        frame.camtoworld,
        depth,
        mask=None if frame.mask is None else torch.from_numpy(frame.mask),
    )


def make_mapper(frames: list[Frame], **settings) -> Mapper:
    """A mapper with all frames inserted as keyframes, before any optimisation step."""
    torch.manual_seed(0)
    mapper = Mapper(synthetic.make_config(**settings), RASTERIZER, "cpu")
    for index, frame in enumerate(frames):
        mapper.insert(make_keyframe(frame, index))
    return mapper


def view_psnr(mapper: Mapper, frame: Frame) -> float:
    """PSNR of the rendered view of a frame, dB."""
    view = render_view(mapper.gaussians.activated(), frame.camera, frame.camtoworld, mapper.rasterizer)
    return float(-10 * torch.log10((view.rgb - torch.from_numpy(frame.image) / 255).square().mean()))


def move_frame(frame: Frame, shift: float = 0.0, degrees: float = 0.0, seconds: float = 0.0) -> Frame:
    """The frame with its camera moved along world x by metres, turned about its y axis, and taken later."""
    pose = frame.camtoworld.copy()
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    pose[:3, :3] = pose[:3, :3] @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    pose[0, 3] += shift
    return dataclasses.replace(frame, camtoworld=pose, stamp=frame.stamp + seconds)
