"""Bags with ambiguous or missing topics and damaged bags are refused with one line."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest

pytest.importorskip("rosbags")

from helpers import bag_writer as bags
from helpers.bag_scene import (
    SHIPPED,
    check_scene,
    odometry_messages,
    pose_messages,
    refusal,
    scene,
    settings,
    stamps,
    tf_messages,
)

from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.types import UserError


def test_ambiguous_topics_are_listed_and_can_be_named(tmp_path):
    topics = scene(pose=pose_messages())
    topics["/right/image_raw"] = topics["/camera/image_raw"]
    topics["/infra"] = [bags.image(bags.START, "infra", np.zeros((4, 4), np.uint8), "mono8")]
    topics["/goal"] = [bags.pose_stamped(bags.START, "map", np.eye(4))]
    path = bags.write(tmp_path / "b", topics)
    problem = refusal(path)
    assert "several colour topics: /camera/image_raw (bgr8), /right/image_raw (bgr8)" in problem
    assert "--set bag.image=/camera/image_raw" in problem
    problem = refusal(path, settings(bag__image="/camera/image_raw"))
    assert (
        "several sources of poses: /pose (pose), /goal (pose)" in problem
        and "--set bag.pose=/pose" in problem
    )
    check_scene(path, settings(bag__image="/camera/image_raw", bag__pose="/pose"))
    assert "has no messages on /nowhere; topics that fit: /pose, /goal" in refusal(
        path, settings(bag__image="/camera/image_raw", bag__pose="/nowhere")
    )
    assert "bag.image: /pose holds geometry_msgs/msg/PoseStamped" in refusal(
        path, settings(bag__image="/pose")
    )


def test_pose_source_decides_between_kinds_of_poses(tmp_path):
    moving, static = tf_messages()
    path = bags.write(tmp_path / "b", scene(odom=odometry_messages(), tf=moving, tf_static=static))
    assert "several sources of poses: /odom (odom), /tf (tf)" in refusal(path)
    check_scene(path, settings(pose_source="tf"), 2e-4)


@pytest.mark.parametrize(
    "missing, problem",
    [
        ("/camera/image_raw", "no colour images"),
        ("/camera/camera_info", "no camera_info, so /camera/image_raw cannot be used"),
        ("/pose", "no poses: no PoseStamped, Odometry"),
    ],
)
def test_error_names_the_missing_topic(tmp_path, missing, problem):
    topics = scene(pose=pose_messages())
    del topics[missing]
    assert problem in refusal(bags.write(tmp_path / "b", topics))


def test_images_without_a_pose_are_left_out_and_counted(tmp_path, caplog):
    topics = scene(pose=pose_messages()[:2])
    path = bags.write(tmp_path / "b", topics)
    assert len(open_dataset(path)) == 2
    assert "2 of 4 images are left out" in caplog.text
    late = [bags.pose_stamped(bags.START + 100 + t, "map", np.eye(4)) for t in stamps()]
    assert "none of the 4 images has depth and a pose" in refusal(
        bags.write(tmp_path / "late", scene(pose=late))
    )


@pytest.mark.parametrize("storage, suffix", [("sqlite3", "db3"), ("mcap", "mcap")])
def test_damaged_bags_give_a_one_line_error(tmp_path, storage, suffix):
    path = bags.write(tmp_path / "b", scene(pose=pose_messages()), storage)
    file = path / f"b.{suffix}"
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:10], b"", bytes(len(whole))):
        file.write_bytes(content)
        problem = refusal(path)
        assert str(path) in problem and (
            "truncated or damaged" in problem or "no colour images" in problem
        ), problem
    file.write_bytes(whole)
    (path / "metadata.yaml").write_text("rosbag2_bagfile_information: [1, 2")
    assert "truncated or damaged" in refusal(path)
    (path / "metadata.yaml").unlink()
    assert f"`ros2 bag reindex {path}`" in refusal(path)


def test_flipped_bytes_never_give_a_traceback(tmp_path):
    path = bags.write(tmp_path / "b", scene(pose=pose_messages()), "mcap")
    file = path / "b.mcap"
    whole = file.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(25):
        damaged = bytearray(whole)
        for position in random.integers(0, len(whole), 40):
            damaged[position] = int(random.integers(256))
        file.write_bytes(damaged)
        try:
            list(open_dataset(path))
        except UserError as error:
            assert "\n" not in str(error)


def test_folder_with_bag_and_dataset_is_refused(tmp_path):
    path = bags.write(tmp_path / "b", scene(pose=pose_messages()))
    shutil.copy(SHIPPED / "transforms.json", path)
    assert "holds nerfstudio and bag data" in refusal(path)
    assert open_dataset(path, format="bag").format == "bag"


def test_error_without_rosbags_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rosbags", None)
    assert "pip install 'rosbags" in refusal(SHIPPED / "bag")


def test_bag_without_storage_identifier_is_read(tmp_path):
    """As `ros2 bag reindex` of ROS 2 Humble writes it."""
    for storage in ("mcap", "sqlite3"):
        path = bags.write(tmp_path / storage, scene(pose=pose_messages()), storage)
        metadata = path / "metadata.yaml"
        text = metadata.read_text()
        assert f"storage_identifier: {storage}\n" in text
        metadata.write_text(text.replace(f"storage_identifier: {storage}", 'storage_identifier: ""'))
        check_scene(path, settings())
        shutil.copy(
            next(path.glob(f"{storage}.*")), path / f"second.{'mcap' if storage == 'mcap' else 'db3'}"
        )
        assert "storage_identifier is empty and there are 2 files" in refusal(path)


def test_bag_as_git_lfs_pointer_is_recognised(tmp_path):
    path = bags.write(tmp_path / "b", scene(pose=pose_messages()), "mcap")
    (path / "b.mcap").write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    assert "b.mcap: only a Git LFS pointer" in refusal(path)
    assert "b.mcap: only a Git LFS pointer" in refusal(path / "b.mcap")
