"""Bags are read without ROS, and equal the dataset or the scene they were made from."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags")

from helpers import bag_writer as bags
from helpers.bag_scene import (
    BASE,
    K_ROS,
    MOUNT,
    OPTICAL,
    PERIOD,
    SHIPPED,
    camtoworld,
    check_scene,
    odometry_messages,
    pose_messages,
    refusal,
    scene,
    settings,
    stamps,
    tf_messages,
)
from helpers.ros_env import HEIGHT, ROOM, WIDTH, render

from ovs3d_ros import geometry
from ovs3d_ros.config import Config
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.pipeline import Ovs3d


def test_shipped_bag_equals_the_dataset_it_was_made_from():
    bag, files = open_dataset(SHIPPED / "bag"), open_dataset(SHIPPED)
    assert bag.format == "bag" and bag.name == "bag"
    assert len(bag) == len(files) == 60 and bag.has_depth
    # The dataset stores matrices, the bag quaternions.
    np.testing.assert_allclose(bag.camtoworlds, files.camtoworlds, atol=1e-6)
    np.testing.assert_allclose(np.diff(bag.stamps), 0.5, atol=1e-6)
    assert len(set(bag.names)) == 60
    for i in (0, 17, -1):
        recorded, read = bag[i], files[i]
        np.testing.assert_allclose(recorded.camera.K, read.camera.K, atol=1e-9)
        assert (recorded.camera.width, recorded.camera.height) == (read.camera.width, read.camera.height)
        assert np.abs(recorded.image.astype(int) - read.image).mean() < 0.5  # two JPEG decoders
        np.testing.assert_allclose(recorded.depth, read.depth, atol=1e-6)
    small = open_dataset(SHIPPED / "bag", 80)[3]
    expected = open_dataset(SHIPPED, 80)[3]
    assert small.image.shape == expected.image.shape
    np.testing.assert_allclose(small.camera.K, expected.camera.K)
    np.testing.assert_allclose(small.depth, expected.depth, atol=1e-6)


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_raw_images_and_poses_are_read(tmp_path, storage):
    check_scene(bags.write(tmp_path / "b", scene(pose=pose_messages()), storage), Config())


@pytest.mark.parametrize("suffix", ["mcap", "db3"])
def test_storage_file_without_folder_is_a_bag(tmp_path, suffix):
    bags.write(tmp_path / "b", scene(pose=pose_messages()), "mcap" if suffix == "mcap" else "sqlite3")
    check_scene(tmp_path / "b" / f"b.{suffix}", Config())


@pytest.mark.parametrize(
    "storage, compression",
    [("sqlite3", "file"), ("sqlite3", "message"), ("mcap", "file"), ("mcap", "message"), ("mcap", "storage")],
)
def test_compressed_bags_are_read(tmp_path, storage, compression):
    check_scene(bags.write(tmp_path / "b", scene(pose=pose_messages()), storage, compression), Config())


def test_bag_split_over_two_files_is_read(tmp_path):
    topics = scene(pose=pose_messages())
    parts = [
        bags.write(tmp_path / name, {topic: messages[part] for topic, messages in topics.items()})
        for name, part in (("b_0", slice(0, 2)), ("b_1", slice(2, None)))
    ]
    check_scene(bags.join(tmp_path / "b", *parts), Config())


def test_odometry_is_interpolated_and_uses_the_extrinsics(tmp_path):
    path = bags.write(tmp_path / "b", scene(odom=odometry_messages()))
    assert "poses in frame 'odom'" in refusal(path)
    problem = refusal(path, settings(input__world_frame="odom"))
    assert "has poses of 'base_link', images are in 'camera_optical', and the bag does not connect" in problem
    assert "--set input.extrinsics=" in problem
    w, x, y, z = geometry.matrix_to_quat(MOUNT[:3, :3])
    config = settings(input__world_frame="odom", input__extrinsics=[*MOUNT[:3, 3], x, y, z, w])
    check_scene(path, config, 2e-4)  # 20 ms between poses on a circle of 2.6 m


@pytest.mark.parametrize("source", ["odom", "transform"])
def test_poses_of_the_robot_find_the_camera_in_the_transforms(tmp_path, source):
    _, static = tf_messages("odom")
    messages = odometry_messages()
    if source == "transform":
        to_base = geometry.invert_rigid(MOUNT)
        messages = [
            bags.transform(bags.START + t, "odom", "/" + BASE, camtoworld(t) @ to_base)
            for t in stamps(0.02, 60, -0.11)
        ]
    path = bags.write(tmp_path / "b", scene(**{source: messages}, tf_static=static))
    config = settings(input__world_frame="odom", pose_source=source)
    check_scene(path, config, 2e-4)


def test_mount_that_moves_is_followed(tmp_path):
    """Odometry of a frame that stands still; /tf moves the camera in it."""
    moving, static = tf_messages("rail")
    times = stamps(0.02, 60, -0.11)
    odometry = [bags.odometry(bags.START + t, "odom", "rail", np.eye(4)) for t in times]
    path = bags.write(tmp_path / "b", scene(odom=odometry, tf=moving, tf_static=static))
    check_scene(path, settings(input__world_frame="odom", pose_source="odom"), 2e-4)


def test_same_frame_under_another_name_is_given_by_the_extrinsics(tmp_path):
    odometry = [bags.odometry(bags.START + t, "map", "cam0", camtoworld(t)) for t in stamps()]
    path = bags.write(tmp_path / "b", scene(odom=odometry))
    assert "(0,0,0,0,0,0,-1 if both names mean the same frame)" in refusal(path)
    check_scene(path, settings(input__extrinsics=[0, 0, 0, 0, 0, 0, -1.0]))


def test_odometry_without_child_frame_is_said_to_be_the_camera(tmp_path, caplog):
    odometry = [bags.odometry(bags.START + t, "map", "", camtoworld(t)) for t in stamps()]
    check_scene(bags.write(tmp_path / "b", scene(odom=odometry)), Config())
    assert caplog.text.count("does not say whose poses it holds") == 1


def test_poses_of_several_frames_are_refused(tmp_path):
    odometry = [bags.odometry(bags.START + t, "map", f"robot{t > 0}", camtoworld(t)) for t in stamps()]
    assert "has poses of several frames, 'robotFalse' and 'robotTrue'" in refusal(
        bags.write(tmp_path / "b", scene(odom=odometry))
    )


def test_transforms_are_chained_and_interpolated(tmp_path):
    moving, static = tf_messages()
    path = bags.write(tmp_path / "b", scene(tf=moving, tf_static=static))
    check_scene(path, Config(), 2e-4)
    assert "no frame 'world' (there are: base_link, camera_optical, map, odom)" in refusal(
        path, settings(input__world_frame="world")
    )
    path = bags.write(tmp_path / "unmounted", scene(tf=moving))
    assert "no frame 'camera_optical'" in refusal(path)
    apart = [bags.tf(bags.transform(bags.START, "elsewhere", OPTICAL, MOUNT))]
    path = bags.write(tmp_path / "apart", scene(tf=moving, tf_static=apart))
    assert "'camera_optical' and 'map' are in separate trees" in refusal(path)


def test_transform_stamped_poses_are_read(tmp_path):
    messages = [bags.transform(bags.START + t, "map", OPTICAL, camtoworld(t)) for t in stamps()]
    check_scene(bags.write(tmp_path / "b", scene(transform=messages)), Config())


def test_poses_with_covariance_are_those_of_the_robot(tmp_path):
    messages = [
        bags.pose_with_covariance(bags.START + t, "map", camtoworld(t) @ np.linalg.inv(MOUNT))
        for t in stamps()
    ]
    path = bags.write(tmp_path / "b", scene(amcl_pose=messages))
    w, x, y, z = geometry.matrix_to_quat(MOUNT[:3, :3])
    check_scene(path, settings(input__extrinsics=[*MOUNT[:3, 3], x, y, z, w]), 1e-6)


def test_compressed_images_and_depth_in_millimetres_are_read(tmp_path):
    topics = scene(pose=pose_messages())
    topics["/camera/image_raw/compressed"], topics["/camera/depth/image"] = [], []
    del topics["/camera/image_raw"]
    for time in stamps():
        rgb, depth = render(camtoworld(time))
        data = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
        topics["/camera/image_raw/compressed"].append(
            bags.compressed(bags.START + time, OPTICAL, data, "bgr8; png compressed bgr8")
        )
        topics["/camera/depth/image"].append(
            bags.image(bags.START + time, OPTICAL, np.round(depth * 1000).astype(np.uint16), "16UC1")
        )
    frame = open_dataset(bags.write(tmp_path / "b", topics))[1]
    rgb, depth = render(camtoworld(PERIOD))
    assert (frame.image == rgb).all()
    np.testing.assert_allclose(frame.depth, depth, atol=6e-4)


def test_depth_in_another_unit_and_frame_are_set_by_parameters(tmp_path):
    moving, static = tf_messages()
    topics = scene(tf=moving, tf_static=static)
    for message in topics["/camera/image_raw"]:
        message.header.frame_id = "camera_link"  # not the optical frame, and not in the tree
    topics["/camera/depth/image"] = [
        bags.image(bags.START + t, "camera_link", render(camtoworld(t))[1] * 1000, "32FC1") for t in stamps()
    ]
    path = bags.write(tmp_path / "b", topics)
    check_scene(path, settings(input__camera_frame=OPTICAL, input__depth_scale=0.001), 2e-4)


@pytest.mark.parametrize("format", ["16UC1; png compressed ", "png"])
def test_depth_as_plain_png_is_no_colour(tmp_path, format):
    topics = scene(pose=pose_messages())
    topics["/camera/depth/image/compressed"] = [
        bags.compressed(
            bags.START + t,
            OPTICAL,
            cv2.imencode(".png", np.round(render(camtoworld(t))[1] * 1000).astype(np.uint16))[1].tobytes(),
            format,
        )
        for t in stamps()
    ]
    del topics["/camera/depth/image"]
    path = bags.write(tmp_path / "b", topics)
    np.testing.assert_allclose(open_dataset(path)[1].depth, render(camtoworld(PERIOD))[1], atol=6e-4)


def test_compressed_infrared_is_no_second_colour_camera(tmp_path):
    topics = scene(pose=pose_messages())
    jpeg = cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1].tobytes()
    topics["/infra/compressed"] = [
        bags.compressed(bags.START, "infra", jpeg, "mono8; jpeg compressed ") for _ in stamps()
    ]
    check_scene(bags.write(tmp_path / "b", topics), Config())


def test_images_are_rectified_unless_the_topic_is_rectified(tmp_path):
    topics = scene(pose=pose_messages())
    D = (-0.2, 0.05, 0.0, 0.0, 0.0)
    topics["/camera/camera_info"] = [
        bags.camera_info(bags.START + t, OPTICAL, K_ROS, (WIDTH, HEIGHT), D) for t in stamps()
    ]
    frame = open_dataset(bags.write(tmp_path / "raw", topics))[0]
    target, _ = cv2.getOptimalNewCameraMatrix(K_ROS, np.array(D), (WIDTH, HEIGHT), 0, (WIDTH, HEIGHT))
    expected = cv2.undistort(render(camtoworld(0.0))[0], K_ROS, np.array(D), None, target)
    assert np.abs(frame.image.astype(int) - expected).mean() < 1.0
    np.testing.assert_allclose(frame.camera.K[0], [target[0, 0], 0, target[0, 2] + 0.5])
    topics["/camera/image_rect"] = topics.pop("/camera/image_raw")
    frame = open_dataset(bags.write(tmp_path / "rect", topics))[0]
    assert (frame.image == render(camtoworld(0.0))[0]).all()


def test_depth_is_optional(tmp_path):
    topics = scene(pose=pose_messages())
    path = bags.write(tmp_path / "b", topics)
    assert not open_dataset(path, config=settings(input__use_depth=False)).has_depth
    del topics["/camera/depth/image"]
    dataset = open_dataset(bags.write(tmp_path / "rgb", topics))
    assert not dataset.has_depth and dataset[0].depth is None


def test_map_from_a_bag_shows_the_scene_without_ros(tmp_path):
    path = bags.write(tmp_path / "b", scene(pose=pose_messages()))
    arguments = [
        "map",
        str(path),
        "-o",
        str(tmp_path / "m.ovs3d"),
        "--no-clip",
        "--quiet",
        "--set",
        "train.final_steps=30",
        "--set",
        "map.image_size=0",
    ]
    code = (
        "import sys; from ovs3d_ros.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or 'rclpy' in sys.modules or 'sensor_msgs' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    means = Ovs3d.load(tmp_path / "m.ovs3d").snapshot().gaussians["means"].numpy()
    inside = ((means > ROOM[0] - 0.2) & (means < ROOM[1] + 0.2)).all(1)
    assert len(means) > 500 and inside.mean() > 0.98
