"""Poses that contradict the image matches are noticed once; right poses, few matches and noise are not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers import synthetic
from helpers.mapping import make_keyframe

from ovs3d_ros.geometry import OPENGL_TO_OPENCV, project
from ovs3d_ros.mapping.pose_check import PoseCheck
from ovs3d_ros.types import Keyframe

POINTS = np.random.default_rng(0).uniform(-0.4, 0.4, (60, 3))


def views() -> list[Keyframe]:
    return [make_keyframe(frame, i) for i, frame in enumerate(synthetic.make_frames(6))]


def check(keyframes: list[Keyframe], poses: list[np.ndarray], points=POINTS, noise: float = 0.0) -> PoseCheck:
    """Matches of points that the keyframes see, checked with poses that may be others."""
    rng, checked = np.random.default_rng(1), PoseCheck()
    pixels = [project(points, k.camera, k.camtoworld)[0] for k in keyframes]
    pixels = [p + noise * rng.normal(size=p.shape) for p in pixels]
    moved = [dataclasses.replace(k, camtoworld=pose) for k, pose in zip(keyframes, poses, strict=True)]
    for i in range(1, len(keyframes)):
        checked.add(moved[i], pixels[i], moved[i - 1], pixels[i - 1])
    return checked


def test_right_poses_fit_noisy_matches(caplog):
    keyframes = views()
    checked = check(keyframes, [k.camtoworld for k in keyframes], noise=0.3)
    assert checked.matches > 250 and checked.fitting > 0.9 * checked.matches
    assert not caplog.text


@pytest.mark.parametrize("change", [lambda pose: pose @ OPENGL_TO_OPENCV, np.linalg.inv])
def test_poses_of_another_convention_are_noticed_once(caplog, change):
    keyframes = views()
    checked = check(keyframes, [change(k.camtoworld) for k in keyframes])
    assert checked.fitting < 0.7 * checked.matches
    assert caplog.text.count("of the image matches fit the poses: the map will be poor") == 1


def test_few_matches_do_not_judge_the_poses(caplog):
    keyframes = views()
    checked = check(keyframes, [np.linalg.inv(k.camtoworld) for k in keyframes], points=POINTS[:20])
    assert checked.matches == 0 and not caplog.text
