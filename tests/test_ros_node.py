"""The node and the player as real processes, seen over DDS by a client in this one.

One node maps a small ray-cast scene for the whole module. Its encoder knows colours only (`color_encoder`), so that
answers can be checked against the spheres' true positions.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")
pytestmark = [pytest.mark.ros, pytest.mark.slow]

import rclpy  # noqa: E402
from geometry_msgs.msg import Point  # noqa: E402
from ovs3d_interfaces.srv import QueryText  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from ros_env import HEIGHT, SPHERES, WIDTH, Process, render, wait_until, write_dataset  # noqa: E402

from ovs3d_ros.datasets import open_dataset  # noqa: E402
from ovs3d_ros.pipeline import Ovs3d  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.environment import child_environment, free_domain_id  # noqa: E402

FRAMES = 8
SETTINGS = {"clip.model": "color_encoder:ColorEncoder", "map.codec_dim": 8, "map.image_size": 0, "qos.input": "reliable",
            "input.silence": 1.0, "output.rate": 5.0, "train.steps_per_keyframe": 15, "compute.threads": 2}
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
COLOR_OF_LABEL = {"red ball": 0, "blue ball": 1}


def start_node(settings: dict, domain_id: int, log: Path) -> Process:
    arguments = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
    return Process("ovs3d_ros.ros.node", ["--ros-args", *arguments], domain_id, log)


class Client:
    """A ROS client in this process that keeps the newest message of every topic it listens to."""

    def __init__(self, domain_id: int):
        self.context = Context()
        rclpy.init(context=self.context, args=[], domain_id=domain_id)
        self.node = Node("client", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.newest: dict[str, object] = {}
        self.queries = self.node.create_client(QueryText, "/ovs3d/query")
        self.listen("/diagnostics", conversions.DiagnosticArray, 10)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()

    def listen(self, topic: str, message_type: type, profile) -> None:
        self.node.create_subscription(message_type, topic, lambda m: self.newest.__setitem__(topic, m), profile)
        self.executor.wake()

    def receive(self, topic: str, message_type: type, profile, seconds: float = 20.0):
        """Subscribes now and returns the first message that comes."""
        self.listen(topic, message_type, profile)
        wait_until(lambda: topic in self.newest, seconds, lambda: f"nothing on {topic}")
        return self.newest[topic]

    def query(self, *prompts: str, seconds: float = 30.0, **fields) -> QueryText.Response:
        assert self.queries.wait_for_service(seconds), "no query service"
        future = self.queries.call_async(QueryText.Request(prompts=list(prompts), **{"threshold": -1.0, **fields}))
        wait_until(future.done, seconds, lambda: f"no answer to {prompts}")
        return future.result()

    def diagnostic(self, name: str) -> tuple[str, dict[str, str]]:
        """Message and values of the newest status whose name ends in `name`."""
        message = self.newest.get("/diagnostics", conversions.DiagnosticArray())
        for status in message.status:
            if status.name.endswith(name):
                return status.message, {pair.key: pair.value for pair in status.values}
        return "", {}

    def value(self, name: str, key: str) -> float:
        return float(self.diagnostic(name)[1].get(key) or "nan")

    def close(self) -> None:
        self.executor.shutdown()
        self.thread.join(10)
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


class Session:
    """A node that has mapped the scene, what it said before, and a client."""

    def __init__(self, folder: Path):
        self.domain_id = free_domain_id()
        self.folder = folder
        self.saved = folder / "room.ovs3d"
        self.data = write_dataset(folder / "tiny", FRAMES)
        self.node = start_node({**SETTINGS, "output.save_on_exit": self.saved}, self.domain_id, folder / "node.log")
        self.client = Client(self.domain_id)
        self.node.wait_for("ready", 90)
        self.early_answer = self.client.query("red ball")
        wait_until(lambda: "no publisher" in self.client.diagnostic(": input")[0], 20,
                   lambda: f"no word about missing inputs: {self.client.diagnostic(': input')}")
        self.silence = self.client.diagnostic(": input")[0]
        self.sent = self.play("--rate", "4")
        wait_until(lambda: self.client.value(": mapping", "steps") >= 15 * self.client.value(": mapping", "keyframes")
                   and self.client.value(": mapping", "frames_received") == FRAMES, 90,
                   lambda: f"not mapped: {self.client.diagnostic(': mapping')}\n{self.node.output()}")

    def play(self, *arguments: str) -> int:
        """Runs the player to its end and returns the number of frames it sent."""
        report = self.folder / "played.json"
        player = Process("ovs3d_ros.ros.play", [str(self.data), "--json", str(report), *arguments], self.domain_id,
                         self.folder / "play.log")
        assert player.wait(60) == 0, player.output()
        return json.loads(report.read_text(encoding="utf-8"))["frames_sent"]


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        environment = child_environment(0)
        for name in ("ROS_AUTOMATIC_DISCOVERY_RANGE", "FASTDDS_DEFAULT_PROFILES_FILE"):
            if name in environment:
                patch.setenv(name, environment[name])
        session = Session(tmp_path_factory.mktemp("node"))
        yield session
        session.client.close()
        session.node.stop(signal.SIGKILL)


def test_before_the_first_frame_there_is_no_map_and_the_reason_is_told(session):
    assert session.early_answer.error_code == QueryText.Response.NO_MAP
    assert "no map yet" in session.early_answer.error_msg
    assert "image on /image (0 Hz, reliable) has no publisher" in session.silence
    assert "no usable frame: image on /image" in session.node.output()


def test_every_frame_arrives(session):
    assert session.sent == FRAMES
    message, values = session.client.diagnostic(": input")
    assert int(values["frames"]) == FRAMES
    assert int(values["rejected"]) == 0
    _, mapping = session.client.diagnostic(": mapping")
    assert (int(mapping["frames_received"]), int(mapping["frames_dropped"])) == (FRAMES, 0)
    assert int(mapping["keyframes"]) >= 4
    assert float(mapping["psnr"]) > 15


def test_answers_say_what_is_there_where_it_is_and_what_is_not(session):
    answer = session.client.query("red ball", "blue ball", "purple elephant")
    assert (answer.error_code, answer.error_msg) == (QueryText.Response.OK, "")
    assert list(answer.found) == [True, True, False]
    assert answer.presence[0] > 0.5 > answer.presence[2]
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


def test_the_cloud_of_an_answer_lies_on_the_things_asked_for(session):
    table = conversions.from_cloud(session.client.query("red ball", "blue ball").cloud)
    assert table.dtype.names == ("x", "y", "z", "rgb", "label", "instance", "score")
    for label, (center, radius, _) in enumerate(SPHERES[:2], start=1):
        points = table[table["label"] == label]
        distances = np.linalg.norm(np.stack([points["x"], points["y"], points["z"]], -1) - center, axis=-1)
        assert len(points) > 20
        assert np.median(distances) == pytest.approx(radius, rel=0.3)
        assert points["score"].min() > 0.5


def test_the_mask_is_that_of_the_newest_view_and_others_can_be_asked_for(session):
    frames = open_dataset(session.data)
    answer = session.client.query("red ball")
    assert len(answer.masks) == 1
    mask = np.frombuffer(answer.masks[0].data, np.uint8).reshape(HEIGHT, WIDTH)
    assert iou(mask == 1, red(frames[FRAMES - 1].camtoworld)) > 0.5
    again = session.client.query("red ball", mask_stamps=[answer.objects[0].header.stamp, answer.masks[0].header.stamp])
    assert again.error_code == QueryText.Response.OK, again.error_msg
    assert [m.header.stamp for m in again.masks] == [answer.objects[0].header.stamp, answer.masks[0].header.stamp]


def red(camtoworld: np.ndarray) -> np.ndarray:
    """Where the red sphere is seen, [H, W] bool."""
    rgb = render(camtoworld)[0].astype(int)
    return rgb[..., 0] - rgb[..., 1:].max(-1) > 60


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_argmax_gives_every_point_a_label_and_a_region_limits_it(session):
    answer = session.client.query("red ball", "blue ball", "green ball", "grey floor", mode=QueryText.Request.ARGMAX)
    assert answer.error_code == QueryText.Response.OK
    assert set(np.unique(conversions.from_cloud(answer.cloud)["label"])) == {1, 2, 3, 4}
    answer = session.client.query("grey floor", roi_min=Point(x=0.0, y=-9.0, z=-9.0), roi_max=Point(x=9.0, y=9.0, z=9.0))
    assert conversions.from_cloud(answer.cloud)["x"].min() >= 0


@pytest.mark.parametrize("prompts, fields, problem", [
    ([], {}, "no prompt"), ([""], {}, "empty"), (["  "], {}, "empty"), (["red ball", ""], {}, "prompt 2 is empty"),
    (["x" * 257], {}, "257 characters"), (["a"] * 65, {}, "65 prompts"), (["a"], {"negatives": [""]}, "empty"),
    (["a"], {"mode": 9}, "mode 9"), (["a"], {"threshold": float("nan")}, "threshold"), (["a"], {"threshold": 1.5}, "1.5"),
    (["a"], {"refine": True}, "refine"), (["a"], {"roi_min": Point(x=1.0)}, "roi_min"),
    (["a"], {"roi_max": Point(x=float("inf"))}, "finite"),
    (["a"], {"mask_stamps": [conversions.to_time(12.0)]}, "no keyframe at 12.000 s")])
def test_bad_requests_are_refused_with_a_reason(session, prompts, fields, problem):
    answer = session.client.query(*prompts, **fields)
    assert answer.error_code == QueryText.Response.BAD_REQUEST
    assert problem in answer.error_msg
    assert "\n" not in answer.error_msg


def test_late_subscribers_get_the_clouds_and_the_label_map(session):
    answer = session.client.query("red ball", "purple elephant")
    cloud = session.client.receive("/ovs3d/map_cloud", conversions.PointCloud2, LATCHED)
    assert [f.name for f in cloud.fields] == ["x", "y", "z", "rgb"]
    assert cloud.header.frame_id == "map"
    points = conversions.from_cloud(cloud)
    assert len(points) > 500
    assert np.isfinite(points["x"]).all()
    table = conversions.from_cloud(session.client.receive("/ovs3d/query_cloud", conversions.PointCloud2, LATCHED))
    assert table.dtype.names == ("x", "y", "z", "rgb", "label", "instance", "score")
    assert set(np.unique(table["label"])) == {0, 1}
    labels = json.loads(session.client.receive("/ovs3d/label_map", conversions.String, LATCHED).data)
    assert [entry["prompt"] for entry in labels["labels"]] == ["red ball", "purple elephant"]
    assert labels["map_version"] == answer.map_version


def test_segmentation_topics_fit_the_image_they_belong_to(session):
    session.client.query("red ball")
    kinds = {"label": conversions.Image, "score": conversions.Image, "overlay": conversions.Image,
             "camera_info": conversions.CameraInfo}
    for name, kind in kinds.items():
        session.client.listen(f"/ovs3d/segmentation/{name}", kind, 1)
    time.sleep(1.0)  # let discovery finish, then make the node draw for all four
    session.client.query("red ball")
    wait_until(lambda: len({session.client.newest[t].header.stamp.nanosec for t in session.client.newest
                            if "segmentation" in t}) == 1 and
               sum("segmentation" in t for t in session.client.newest) == 4, 20, lambda: str(list(session.client.newest)))
    label, score, overlay, info = (session.client.newest[f"/ovs3d/segmentation/{name}"] for name in kinds)
    assert (label.encoding, score.encoding, overlay.encoding) == ("mono8", "32FC1", "rgb8")
    assert {(m.width, m.height) for m in (label, score, overlay, info)} == {(WIDTH, HEIGHT)}
    mask = np.frombuffer(label.data, np.uint8).reshape(HEIGHT, WIDTH) == 1
    assert iou(mask, red(open_dataset(session.data)[FRAMES - 1].camtoworld)) > 0.5
    assert np.frombuffer(score.data, np.float32).reshape(HEIGHT, WIDTH)[mask].min() > 0.5


def test_queries_are_answered_while_frames_come_in(session):
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


def test_garbage_is_counted_and_the_map_survives(session):
    node = session.client.node
    publishers = {"image": node.create_publisher(conversions.Image, "/image", 10),
                  "camera_info": node.create_publisher(conversions.CameraInfo, "/camera_info", 10),
                  "pose": node.create_publisher(conversions.PoseStamped, "/pose", 10)}
    wait_until(lambda: all(p.get_subscription_count() for p in publishers.values()), 20)
    before = session.client.value(": input", "rejected")
    header = conversions.to_header(time.time(), "map")
    pose = conversions.to_pose(np.eye(4))
    pose.orientation.w = float("nan")
    publishers["pose"].publish(conversions.PoseStamped(header=header, pose=pose))
    publishers["image"].publish(conversions.Image(encoding="rgb8", height=7, width=7, step=1))
    publishers["camera_info"].publish(conversions.CameraInfo(header=header, width=5, height=5))
    wait_until(lambda: session.client.value(": input", "rejected") >= before + 3, 20,
               lambda: str(session.client.diagnostic(": input")))
    assert session.client.diagnostic(": input")[0].startswith(("rejected: /", "no usable frame"))
    assert session.client.query("red ball").found == [True]
    session.play("--rate", "4")
    assert session.node.child.poll() is None


def test_sigint_ends_the_node_cleanly_and_writes_the_map(session):
    found = session.client.query("red ball").found
    assert session.node.stop(signal.SIGINT) == 0, session.node.output()
    assert "Traceback" not in session.node.output()
    restored = Ovs3d.load(session.saved)
    assert list(restored.query(["red ball"]).found) == list(found)


@pytest.mark.parametrize("settings, problem", [
    ({"map.max_gausians": 10}, "ovs3d: map.max_gausians: no such parameter; `ovs3d config`"),
    ({"clip.model": "nowhere:Encoder"}, "ovs3d: clip.model")])
def test_bad_settings_end_the_node_with_one_line(tmp_path, settings, problem):
    node = start_node(settings, free_domain_id(), tmp_path / "node.log")
    assert node.wait(60) == 2
    assert problem in node.output()
    assert "Traceback" not in node.output()


def test_a_failing_mapping_thread_ends_the_node_with_a_failure(session, tmp_path):
    domain_id = free_domain_id()
    node = start_node({**SETTINGS, "clip.model": "color_encoder:BrokenEncoder"}, domain_id, tmp_path / "node.log")
    player = Process("ovs3d_ros.ros.play", [str(session.data), "--wait", "60"], domain_id, tmp_path / "play.log")
    assert node.wait(60) == 1
    assert "the mapping thread failed: the encoder broke" in node.output()
    player.stop()


def test_the_player_says_when_nobody_listens(session, tmp_path):
    player = Process("ovs3d_ros.ros.play", [str(session.data), "--wait", "0.5"], free_domain_id(), tmp_path / "play.log")
    assert player.wait(30) == 2
    assert "nobody subscribes to /image, /camera_info, /pose after 0.5 s" in player.output()
