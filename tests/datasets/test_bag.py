"""Bags read without ROS: against the dataset one of them was made from, and against scenes written here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags")

from helpers import bag_writer as bags
from helpers.ros_env import FOCAL, HEIGHT, ROOM, WIDTH, look_at, render

from ovs3d_ros import geometry
from ovs3d_ros.config import Config, override
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.pipeline import Ovs3d
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
    """Where the camera is `time` seconds after the start: on a circle, so that interpolation has something to do."""
    eye = np.array([2.6 * np.cos(time), 2.6 * np.sin(time), 1.3])
    return look_at(eye, np.array([0.0, 0.1, 0.25]))


def stamps(period: float = PERIOD, count: int = COUNT, offset: float = 0.0) -> list[float]:
    return [offset + i * period for i in range(count)]


def scene(**poses: list) -> dict[str, list]:
    """Topics of a camera that walks around the spheres: raw colour, 32FC1 depth, camera_info; poses as given."""
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
    """The robot's own pose, at stamps that are not the images'."""
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
        np.testing.assert_array_equal(frame.depth, depth)


def test_the_shipped_bag_gives_what_the_dataset_it_was_made_from_gives():
    bag, files = open_dataset(SHIPPED / "bag"), open_dataset(SHIPPED)
    assert bag.format == "bag" and bag.name == "bag"
    assert len(bag) == len(files) == 60 and bag.has_depth
    np.testing.assert_allclose(
        bag.camtoworlds, files.camtoworlds, atol=1e-6
    )  # matrices there, quaternions here
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
def test_raw_images_and_poses(tmp_path, storage):
    check_scene(bags.write(tmp_path / "b", scene(pose=pose_messages()), storage), Config())


@pytest.mark.parametrize("suffix", ["mcap", "db3"])
def test_a_storage_file_alone_is_a_bag_too(tmp_path, suffix):
    bags.write(tmp_path / "b", scene(pose=pose_messages()), "mcap" if suffix == "mcap" else "sqlite3")
    check_scene(tmp_path / "b" / f"b.{suffix}", Config())


@pytest.mark.parametrize(
    "storage, compression",
    [("sqlite3", "file"), ("sqlite3", "message"), ("mcap", "file"), ("mcap", "message"), ("mcap", "storage")],
)
def test_compressed_bags(tmp_path, storage, compression):
    check_scene(bags.write(tmp_path / "b", scene(pose=pose_messages()), storage, compression), Config())


def test_a_bag_split_over_two_files(tmp_path):
    topics = scene(pose=pose_messages())
    parts = [
        bags.write(tmp_path / name, {topic: messages[part] for topic, messages in topics.items()})
        for name, part in (("b_0", slice(0, 2)), ("b_1", slice(2, None)))
    ]
    check_scene(bags.join(tmp_path / "b", *parts), Config())


def test_odometry_is_interpolated_and_goes_through_the_extrinsics(tmp_path):
    path = bags.write(tmp_path / "b", scene(odom=odometry_messages()))
    assert "poses in frame 'odom'" in refusal(path)
    w, x, y, z = geometry.matrix_to_quat(MOUNT[:3, :3])
    config = settings(input__world_frame="odom", input__extrinsics=[*MOUNT[:3, 3], x, y, z, w])
    check_scene(path, config, 2e-4)  # 20 ms between poses on a circle of 2.6 m


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


def test_transform_stamped_poses(tmp_path):
    messages = [bags.transform(bags.START + t, "map", OPTICAL, camtoworld(t)) for t in stamps()]
    check_scene(bags.write(tmp_path / "b", scene(transform=messages)), Config())


def test_compressed_images_and_millimetres(tmp_path):
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


def test_distorted_images_are_rectified_unless_the_topic_says_they_are(tmp_path):
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


def test_depth_is_optional_and_can_be_left_out(tmp_path):
    topics = scene(pose=pose_messages())
    path = bags.write(tmp_path / "b", topics)
    assert not open_dataset(path, config=settings(input__use_depth=False)).has_depth
    del topics["/camera/depth/image"]
    dataset = open_dataset(bags.write(tmp_path / "rgb", topics))
    assert not dataset.has_depth and dataset[0].depth is None


def test_where_topics_are_ambiguous_they_are_listed_and_can_be_named(tmp_path):
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
def test_what_is_missing_is_named(tmp_path, missing, problem):
    topics = scene(pose=pose_messages())
    del topics[missing]
    assert problem in refusal(bags.write(tmp_path / "b", topics))


def test_frames_without_a_pose_are_left_out_and_counted(tmp_path, caplog):
    topics = scene(pose=pose_messages()[:2])
    path = bags.write(tmp_path / "b", topics)
    assert len(open_dataset(path)) == 2
    assert "2 of 4 images are left out" in caplog.text
    late = [bags.pose_stamped(bags.START + 100 + t, "map", np.eye(4)) for t in stamps()]
    assert "none of the 4 images has depth and a pose" in refusal(
        bags.write(tmp_path / "late", scene(pose=late))
    )


@pytest.mark.parametrize("storage, suffix", [("sqlite3", "db3"), ("mcap", "mcap")])
def test_damaged_bags_are_refused_in_one_line(tmp_path, storage, suffix):
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


def test_flipped_bytes_never_end_in_a_traceback(tmp_path):
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


def test_a_bag_and_a_dataset_in_one_folder_are_ambiguous(tmp_path):
    path = bags.write(tmp_path / "b", scene(pose=pose_messages()))
    shutil.copy(SHIPPED / "transforms.json", path)
    assert "holds nerfstudio and bag data" in refusal(path)
    assert open_dataset(path, format="bag").format == "bag"


def test_without_rosbags_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rosbags.rosbag2", None)
    assert "pip install 'rosbags" in refusal(SHIPPED / "bag")


def test_a_map_from_a_bag_shows_the_scene_and_no_ros_is_loaded(tmp_path):
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
