"""A scene of spheres as topics of a bag; a camera walks around them, its poses come in several forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers import bag_writer as bags
from helpers.ros_env import FOCAL, HEIGHT, WIDTH, look_at, render
from ovs3d_ros import geometry
from ovs3d_ros.config import Config, override
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.types import UserError

SHIPPED = Path(__file__).resolve().parents[2] / "ovs3d_ros" / "demo_scene"
OPTICAL, BASE = "camera_optical", "base_link"
K_ROS = np.array([[FOCAL, 0, WIDTH / 2 - 0.5], [0, FOCAL, HEIGHT / 2 - 0.5], [0, 0, 1]])
COUNT, PERIOD = 4, 0.25
MOUNT = geometry.invert_rigid(look_at(np.array([0.0, 0.0, 0.0]), np.array([-1.0, 0.1, -0.2])))
MOUNT[:3, 3] = 0.1, -0.2, 0.4  # the optical frame in the robot's


def settings(**values) -> Config:
    return override(Config(), {name.replace("__", "."): value for name, value in values.items()})


def camtoworld(time: float) -> np.ndarray:
    """The pose `time` seconds after the start; on a circle, so that interpolation matters."""
    eye = np.array([2.6 * np.cos(time), 2.6 * np.sin(time), 1.3])
    return look_at(eye, np.array([0.0, 0.1, 0.25]))


def stamps(period: float = PERIOD, count: int = COUNT, offset: float = 0.0) -> list[float]:
    return [offset + i * period for i in range(count)]


def scene(**poses: list) -> dict[str, list]:
    """Topics of a camera that circles the spheres: raw colour, 32FC1 depth, camera_info, poses as given."""
    topics: dict[str, list] = {"/camera/image_raw": [], "/camera/camera_info": [], "/camera/depth/image": []}
    for time in stamps():
        stamp = bags.START + time
        rgb, depth = render(camtoworld(time))
        topics["/camera/image_raw"].append(bags.image(stamp, OPTICAL, rgb[..., ::-1], "bgr8"))
        topics["/camera/depth/image"].append(bags.image(stamp + 0.004, OPTICAL, depth, "32FC1"))
        topics["/camera/camera_info"].append(bags.camera_info(stamp, OPTICAL, K_ROS, (WIDTH, HEIGHT)))
    return topics | {"/" + name: messages for name, messages in poses.items()}


def pose_messages() -> list:
    return [bags.pose_stamped(bags.START + t, "map", camtoworld(t)) for t in stamps()]


def odometry_messages() -> list:
    """Poses of the robot, at other stamps than those of the images."""
    times = stamps(0.02, 60, -0.11)
    to_base = geometry.invert_rigid(MOUNT)
    return [bags.odometry(bags.START + t, "odom", BASE, camtoworld(t) @ to_base) for t in times]


def tf_messages(frame: str = "map") -> tuple[list, list]:
    """/tf and /tf_static: map - odom (an offset) - base_link (moving), base_link - optical (mounted)."""
    offset = np.eye(4)
    offset[:3, 3] = 1.0, -2.0, 0.5
    moving = []
    for time in stamps(0.02, 60, -0.11):
        base = geometry.invert_rigid(offset) @ camtoworld(time) @ geometry.invert_rigid(MOUNT)
        stamp = bags.START + time
        moving.append(
            bags.tf(
                bags.transform(stamp, frame, "odom", offset), bags.transform(stamp, "odom", "/" + BASE, base)
            )
        )
    return moving, [bags.tf(bags.transform(bags.START - 1.0, BASE, OPTICAL, MOUNT))]


def refusal(path: Path, config: Config | None = None) -> str:
    with pytest.raises(UserError) as caught:
        dataset = open_dataset(path, config=config)
        list(dataset)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check_scene(path: Path, config: Config, tolerance: float = 1e-6) -> None:
    dataset = open_dataset(path, config=config)
    assert (dataset.format, len(dataset), dataset.has_depth, dataset.has_labels) == (
        "bag",
        COUNT,
        True,
        False,
    )
    np.testing.assert_allclose(dataset.stamps, [bags.START + t for t in stamps()], atol=1e-6)
    for frame, time in zip(dataset, stamps(), strict=True):
        rgb, depth = render(camtoworld(time))
        np.testing.assert_allclose(frame.camtoworld, camtoworld(time), atol=tolerance)
        np.testing.assert_allclose(frame.camera.K, [[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
        assert (frame.image == rgb).all()
        np.testing.assert_allclose(frame.depth, depth, rtol=2e-7)
