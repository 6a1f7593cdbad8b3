"""Recordings of other kinds: ROS 1, paths as poses, and video."""

from __future__ import annotations

import builtins
import logging
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("rosbags")

from helpers import bag_writer as bags
from helpers.bag_scene import (
    COUNT,
    OPTICAL,
    camtoworld,
    check_scene,
    pose_messages,
    refusal,
    scene,
    settings,
    stamps,
    tf_messages,
)
from helpers.ros_env import HEIGHT, WIDTH, render

from ovs3d_ros.datasets import open_dataset


@pytest.mark.parametrize("old_tf", [False, True])
def test_bag_of_ros1_is_read(tmp_path, old_tf: bool) -> None:
    moving, static = tf_messages()
    topics = scene(tf=moving, tf_static=static)
    path = bags.write_ros1(tmp_path / "walk.bag", topics, old_tf)
    check_scene(path, settings(), 2e-3)
    check_scene(tmp_path, settings(), 2e-3)  # the folder that holds it


def test_bag_of_ros1_with_poses_is_read(tmp_path) -> None:
    check_scene(bags.write_ros1(tmp_path / "walk.bag", scene(pose=pose_messages())), settings())


def test_folder_of_several_ros1_bags_is_refused(tmp_path) -> None:
    for name in ("a.bag", "b.bag"):
        bags.write_ros1(tmp_path / name, scene(pose=pose_messages()))
    assert "holds 2 bags of ROS 1; give one of them" in refusal(tmp_path)


def test_last_path_gives_the_poses(tmp_path) -> None:
    wrong = np.eye(4)
    first = bags.path("map", [bags.pose_stamped(bags.START + t, "map", wrong) for t in stamps()[:2]])
    last = bags.path("map", pose_messages())
    check_scene(bags.write(tmp_path / "bag", scene(path=[first, last])), settings())


def test_path_is_taken_only_if_nothing_else_is_there(tmp_path) -> None:
    plan = bags.path("map", [bags.pose_stamped(bags.START, "map", np.eye(4))] * 5)
    check_scene(bags.write(tmp_path / "both", scene(plan=[plan], pose=pose_messages())), settings())
    message = refusal(bags.write(tmp_path / "plan", scene(plan=[plan])))
    assert "no stamps of their own, so it is a plan" in message


def test_poses_with_covariance_are_read(tmp_path) -> None:
    poses = [bags.pose_with_covariance(bags.START + t, "map", camtoworld(t)) for t in stamps()]
    check_scene(bags.write(tmp_path / "bag", scene(amcl_pose=poses)), settings())


def encode(images: list[np.ndarray], codec: str) -> list[bytes]:
    """One packet per image; every fourth is a key frame, and the others refer to those before."""
    av = pytest.importorskip("av")
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.time_base, encoder.gop_size, encoder.max_b_frames = Fraction(1, 30), 4, 0
    encoder.options = {"crf": "12", "preset": "ultrafast", "tune": "zerolatency"}
    packets = []
    for index, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts = index
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return [bytes(packet) for packet in packets]


def video_scene(form: str, codec: str, skipped: int = 0) -> dict[str, list]:
    topics = scene(pose=pose_messages())
    del topics["/camera/image_raw"]
    images = [render(camtoworld(t))[0] for t in stamps()]
    packets = encode([images[0]] * skipped + images, codec)[skipped:]
    make = bags.video if form == "video" else bags.compressed
    name = "h264" if codec == "libx264" else "h265"
    return topics | {
        "/camera/image": [
            make(bags.START + t, OPTICAL, packet, name) for t, packet in zip(stamps(), packets, strict=True)
        ]
    }


@pytest.mark.parametrize(
    ("form", "codec"), [("video", "libx264"), ("image", "libx264"), ("video", "libx265")]
)
def test_video_is_decoded_in_any_order(tmp_path, form: str, codec: str) -> None:
    dataset = open_dataset(bags.write(tmp_path / "bag", video_scene(form, codec)))
    assert len(dataset) == COUNT
    for index in (0, 2, 1, 3, 0):
        expected = render(camtoworld(stamps()[index]))[0]
        error = np.abs(dataset[index].image.astype(int) - expected).mean()
        others = min(
            np.abs(render(camtoworld(t))[0].astype(int) - expected).mean()
            for i, t in enumerate(stamps())
            if i != index
        )
        assert error < 0.5 * others, "the image of another stamp"


def test_images_before_the_first_key_frame_are_left_out(tmp_path, caplog) -> None:
    path = bags.write(tmp_path / "bag", video_scene("video", "libx264", skipped=2))
    with caplog.at_level(logging.WARNING):
        dataset = open_dataset(path)
    assert len(dataset) == COUNT - 2 and "first key frame" in caplog.text
    np.testing.assert_allclose(dataset.camtoworlds[0], camtoworld(stamps()[2]), atol=1e-6)
    assert np.abs(dataset[0].image.astype(int) - render(camtoworld(stamps()[2]))[0]).mean() < 6


def test_video_without_pyav_names_the_remedy(tmp_path, monkeypatch) -> None:
    path = bags.write(tmp_path / "bag", video_scene("video", "libx264"))
    original = builtins.__import__

    def without_av(name, *arguments, **options):
        if name == "av":
            raise ImportError("No module named 'av'")
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_av)
    assert "needs PyAV; pip install av" in refusal(path)
