"""The node and the player as real processes, observed over DDS by a client in this process.

One node maps a small ray-cast scene for the module. Its encoder knows only colours
(helpers/color_encoder.py), so the tests compare answers with the true positions of the spheres.
"""

from __future__ import annotations

import json
import signal
import threading
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")
pytestmark = [pytest.mark.ros, pytest.mark.slow]

from geometry_msgs.msg import Point  # noqa: E402
from helpers.ros_env import HEIGHT, SPHERES, WIDTH, render, wait_until  # noqa: E402
from helpers.ros_session import FRAMES, session  # noqa: E402, F401

from ovs3d_interfaces.srv import QueryText  # noqa: E402
from ovs3d_ros.datasets import open_dataset  # noqa: E402
from ovs3d_ros.pipeline import Ovs3d  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.outputs.publishers import LATCHED  # noqa: E402

COLOR_OF_LABEL = {"red ball": 0, "blue ball": 1}


def test_query_before_first_frame_explains_missing_map(session):
    assert session.early_answer.error_code == QueryText.Response.NO_MAP
    assert "no map yet" in session.early_answer.error_msg
    assert "no publisher on /image, /camera_info, /depth, /pose (0 Hz, reliable)" in session.silence
    assert "no usable frame: no publisher on /image" in session.node.output()


def test_every_frame_arrives(session):
    assert session.sent == FRAMES
    _message, values = session.client.diagnostic(": input")
    assert int(values["frames"]) == FRAMES
    assert int(values["rejected"]) == 0
    _, mapping = session.client.diagnostic(": mapping")
    assert (int(mapping["frames_received"]), int(mapping["frames_dropped"])) == (FRAMES, 0)
    assert int(mapping["keyframes"]) >= 4
    assert float(mapping["psnr"]) > 15


def test_query_locates_objects_and_reports_absent_ones(session):
    answer = session.client.query("red ball", "blue ball", "purple elephant")
    assert (answer.error_code, answer.error_msg) == (QueryText.Response.OK, "")
    assert list(answer.found) == [True, True, False]
    assert answer.presence[0] > 0.5 > answer.presence[2]
    assert list(answer.verdict) == [answer.YES, answer.YES, answer.NO] and 0 < answer.observed < 1
    assert answer.header.frame_id == "map"
    assert answer.map_version > 0
    assert 0 < answer.latency_ms < 5000
    assert {item.label for item in answer.objects} == {"red ball", "blue ball"}
    for item in answer.objects:
        center, radius, _ = SPHERES[COLOR_OF_LABEL[item.label]]
        found = np.array([item.pose.position.x, item.pose.position.y, item.pose.position.z])
        assert np.linalg.norm(found - center) < radius, item.label
        assert item.num_gaussians > 0
        assert item.observed_views > 0


def test_query_cloud_lies_on_the_objects(session):
    table = conversions.from_cloud(session.client.query("red ball", "blue ball").cloud)
    assert table.dtype.names == ("x", "y", "z", "rgb", "label", "instance", "score")
    for label, (center, radius, _) in enumerate(SPHERES[:2], start=1):
        points = table[table["label"] == label]
        distances = np.linalg.norm(np.stack([points["x"], points["y"], points["z"]], -1) - center, axis=-1)
        assert len(points) > 20
        assert np.median(distances) == pytest.approx(radius, rel=0.3)
        assert points["score"].min() > 0.5


def test_masks_show_the_newest_or_the_requested_views(session):
    frames = open_dataset(session.data)
    answer = session.client.query("red ball")
    assert len(answer.masks) == 1
    mask = np.frombuffer(answer.masks[0].data, np.uint8).reshape(HEIGHT, WIDTH)
    assert iou(mask == 1, red(frames[FRAMES - 1].camtoworld)) > 0.5
    again = session.client.query(
        "red ball", mask_stamps=[answer.keyframe_stamp, answer.masks[0].header.stamp]
    )
    assert again.error_code == QueryText.Response.OK, again.error_msg
    assert [m.header.stamp for m in again.masks] == [
        answer.keyframe_stamp,
        answer.masks[0].header.stamp,
    ]


def test_answer_holds_now_and_names_the_newest_keyframe(session):
    before, answer, after = time.time(), session.client.query("red ball"), time.time()
    for header in (answer.header, answer.cloud.header, answer.objects[0].header):
        assert before <= conversions.to_seconds(header.stamp) <= after
    path = session.client.receive("/ovs3d/keyframes", conversions.Path, LATCHED)
    assert answer.keyframe_stamp == path.poses[-1].header.stamp
    assert conversions.to_seconds(answer.keyframe_stamp) < before


def red(camtoworld: np.ndarray) -> np.ndarray:
    """Mask [H, W] of the red sphere."""
    rgb = render(camtoworld)[0].astype(int)
    return rgb[..., 0] - rgb[..., 1:].max(-1) > 60


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_argmax_labels_every_point_and_roi_limits_labels(session):
    answer = session.client.query(
        "red ball", "blue ball", "green ball", "grey floor", mode=QueryText.Request.ARGMAX
    )
    assert answer.error_code == QueryText.Response.OK
    assert set(np.unique(conversions.from_cloud(answer.cloud)["label"])) == {1, 2, 3, 4}
    answer = session.client.query(
        "grey floor", roi_min=Point(x=0.0, y=-9.0, z=-9.0), roi_max=Point(x=9.0, y=9.0, z=9.0)
    )
    assert conversions.from_cloud(answer.cloud)["x"].min() >= 0


def test_query_time_refinement_is_not_kept(session):
    plain = session.client.query("red ball", "blue ball", "purple elephant")
    refined = session.client.query("red ball", "blue ball", "purple elephant", refine=True)
    assert refined.error_code == QueryText.Response.OK, refined.error_msg
    assert list(refined.found) == list(plain.found)
    assert {item.label for item in refined.objects} == {"red ball", "blue ball"}
    frames = open_dataset(session.data)
    mask = np.frombuffer(refined.masks[0].data, np.uint8).reshape(HEIGHT, WIDTH)
    assert iou(mask == 1, red(frames[FRAMES - 1].camtoworld)) > 0.5
    again = session.client.query("red ball", "blue ball", "purple elephant")
    assert again.cloud.data == plain.cloud.data, "the refinement was kept"


@pytest.mark.parametrize(
    "prompts, fields, problem",
    [
        ([], {}, "no prompt"),
        ([""], {}, "empty"),
        (["  "], {}, "empty"),
        (["red ball", ""], {}, "prompt 2 is empty"),
        (["x" * 257], {}, "257 characters"),
        (["x" * 10_000], {}, "10000 characters"),
        (["a"] * 129, {}, "129 prompts"),
        (["a"], {"negatives": ["b"] * 129}, "129 negatives"),
        (["a"], {"negatives": ["x" * 10_000]}, "10000 characters"),
        (["a"], {"negatives": [""]}, "empty"),
        (["a"], {"mode": 9}, "mode 9"),
        (["a"], {"threshold": float("nan")}, "threshold"),
        (["a"], {"threshold": 1.5}, "1.5"),
        (["a"], {"roi_min": Point(x=1.0)}, "roi_min"),
        (["a"], {"roi_max": Point(x=float("inf"))}, "finite"),
        (["a"], {"roi_min": Point(z=float("nan"))}, "finite"),
        (["a"], {"mask_stamps": [conversions.to_time(12.0)]}, "no keyframe at 12.000 s"),
        (["a"], {"mask_stamps": [conversions.to_time(-12.0)]}, "no keyframe at -12.000 s"),
        (["a"], {"mask_stamps": [conversions.to_time(12.0)] * 65}, "65 mask_stamps"),
    ],
)
def test_query_refuses_bad_requests_with_a_reason(session, prompts, fields, problem):
    answer = session.client.query(*prompts, **fields)
    assert answer.error_code == QueryText.Response.BAD_REQUEST
    assert problem in answer.error_msg
    assert "\n" not in answer.error_msg and len(answer.error_msg) < 500
    assert not answer.objects and not answer.masks and not answer.cloud.data


def test_late_subscribers_get_clouds_and_label_map(session):
    answer = session.client.query("red ball", "purple elephant")
    cloud = session.client.receive("/ovs3d/map_cloud", conversions.PointCloud2, LATCHED)
    assert [f.name for f in cloud.fields] == ["x", "y", "z", "rgb"]
    assert cloud.header.frame_id == "map"
    points = conversions.from_cloud(cloud)
    assert len(points) > 500
    assert np.isfinite(points["x"]).all()
    table = conversions.from_cloud(
        session.client.receive("/ovs3d/query_cloud", conversions.PointCloud2, LATCHED)
    )
    assert table.dtype.names == ("x", "y", "z", "rgb", "label", "instance", "score")
    assert set(np.unique(table["label"])) == {1}, "labelled points alone"
    labels = json.loads(session.client.receive("/ovs3d/label_map", conversions.String, LATCHED).data)
    assert [entry["prompt"] for entry in labels["labels"]] == ["red ball", "purple elephant"]
    assert labels["map_version"] == answer.map_version


def test_segmentation_topics_match_their_image(session):
    session.client.query("red ball")
    kinds = {
        "label": conversions.Image,
        "score": conversions.Image,
        "overlay": conversions.Image,
        "camera_info": conversions.CameraInfo,
    }
    for name, kind in kinds.items():
        session.client.listen(f"/ovs3d/segmentation/{name}", kind, 1)
    time.sleep(1.0)  # let discovery finish, so that the node renders for all four topics
    session.client.query("red ball")
    wait_until(
        lambda: (
            len(
                {
                    session.client.newest[t].header.stamp.nanosec
                    for t in session.client.newest
                    if "segmentation" in t
                }
            )
            == 1
            and sum("segmentation" in t for t in session.client.newest) == 4
        ),
        20,
        lambda: str(list(session.client.newest)),
    )
    label, score, overlay, info = (session.client.newest[f"/ovs3d/segmentation/{name}"] for name in kinds)
    assert (label.encoding, score.encoding, overlay.encoding) == ("mono8", "32FC1", "rgb8")
    assert {(m.width, m.height) for m in (label, score, overlay, info)} == {(WIDTH, HEIGHT)}
    mask = np.frombuffer(label.data, np.uint8).reshape(HEIGHT, WIDTH) == 1
    assert iou(mask, red(open_dataset(session.data)[FRAMES - 1].camtoworld)) > 0.5
    assert np.frombuffer(score.data, np.float32).reshape(HEIGHT, WIDTH)[mask].min() > 0.5


def test_queries_are_answered_while_mapping(session):
    received = session.client.value(": mapping", "frames_received")
    player = threading.Thread(target=session.play, args=("--rate", "4"))
    player.start()
    versions, latencies = [], []
    while player.is_alive():
        answer = session.client.query("red ball")
        assert answer.error_code == QueryText.Response.OK
        versions.append(answer.map_version)
        latencies.append(answer.latency_ms)
    player.join()
    assert versions == sorted(versions)
    assert versions[-1] > versions[0]
    assert len(versions) >= 5
    wait_until(lambda: session.client.value(": mapping", "frames_received") == received + FRAMES, 20)


def test_bad_messages_are_counted_and_the_map_survives(session):
    node = session.client.node
    publishers = {
        "image": node.create_publisher(conversions.Image, "/image", 10),
        "camera_info": node.create_publisher(conversions.CameraInfo, "/camera_info", 10),
        "pose": node.create_publisher(conversions.PoseStamped, "/pose", 10),
    }
    wait_until(lambda: all(p.get_subscription_count() for p in publishers.values()), 20)
    before = session.client.value(": input", "rejected")
    header = conversions.to_header(time.time(), "map")
    pose = conversions.to_pose(np.eye(4))
    pose.orientation.w = float("nan")
    publishers["pose"].publish(conversions.PoseStamped(header=header, pose=pose))
    publishers["image"].publish(conversions.Image(encoding="rgb8", height=7, width=7, step=1))
    publishers["camera_info"].publish(conversions.CameraInfo(header=header, width=5, height=5))
    wait_until(
        lambda: session.client.value(": input", "rejected") >= before + 3,
        20,
        lambda: str(session.client.diagnostic(": input")),
    )
    assert session.client.diagnostic(": input")[0].startswith(("rejected: /", "no usable frame"))
    assert session.client.query("red ball").found == [True]
    session.play("--rate", "4")
    assert session.node.child.poll() is None


def test_sigint_ends_the_node_and_saves_the_map(session):
    found = session.client.query("red ball").found
    assert session.node.stop(signal.SIGINT) == 0, session.node.output()
    assert "Traceback" not in session.node.output()
    restored = Ovs3d.load(session.saved)
    assert list(restored.query(["red ball"]).found) == list(found)
