"""The demo: its scene, its processes, and whole runs on a part of the scene."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovs3d_ros import demo
from ovs3d_ros.config import Config
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.datasets.ply import read_points
from ovs3d_ros.demo import processes
from ovs3d_ros.demo.processes import ProcessFailed, running
from ovs3d_ros.demo.scene import SHIPPED, read_scene
from ovs3d_ros.evaluation.metrics import auroc
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import UserError

REPORT_KEYS = {
    "psnr_holdout",
    "num_gaussians",
    "frames_sent",
    "frames_received",
    "frames_dropped",
    "keyframes",
    "queries",
    "miou_lift",
    "miou_refined",
    "query_p50_ms",
    "query_p95_ms",
    "frame_to_map_p95_ms",
    "frame_to_features_p95_ms",
    "seconds_total",
}
QUERY_KEYS = {"prompt", "present_in_scene", "found", "verdict", "presence", "iou", "latency_ms"}
MAX_BYTES = 8 * 1024**2
STRIDE = 4  # the tests use every fourth frame of the scene
QUICK = {"map.image_size": 160, "train.steps_per_keyframe": 12, "seed.spacing": 2.0, "input.inbox": 20}


@pytest.fixture(scope="session")
def small_scene(tmp_path_factory) -> Path:
    """The shipped scene with every fourth frame only."""
    folder = tmp_path_factory.mktemp("part")
    transforms = json.loads((SHIPPED / "transforms.json").read_text(encoding="utf-8"))
    transforms["frames"] = transforms["frames"][::STRIDE]
    for frame in transforms["frames"]:
        for key in ("file_path", "depth_file_path", "label_file_path"):
            (folder / frame[key]).parent.mkdir(exist_ok=True)
            shutil.copy(SHIPPED / frame[key], folder / frame[key])
    for name in ("classes.txt", "absent.txt"):
        shutil.copy(SHIPPED / name, folder / name)
    (folder / "transforms.json").write_text(json.dumps(transforms), encoding="utf-8")
    return folder


def check_run(out: Path, report: demo.Report, num_frames: int) -> None:
    """Checks that hold for every run, over ROS or in one process."""
    values = report.as_json()
    assert set(values) == REPORT_KEYS and all(set(q) == QUERY_KEYS for q in values["queries"])
    assert report.frames_sent == report.frames_received == num_frames and report.frames_dropped == 0
    assert 3 <= report.keyframes <= num_frames
    assert 15 < report.psnr_holdout < 50
    assert 0.35 < report.miou_lift < 1 and report.miou_lift < report.miou_refined < 1
    assert 0 < report.query_p50_ms <= report.query_p95_ms < 30_000
    assert 0 < report.frame_to_map_p95_ms <= report.frame_to_features_p95_ms < 60_000
    # The accuracy of the bundled model has its own evaluation; here it only has to be better than guessing.
    assert auroc([q.presence for q in report.queries], [q.present_in_scene for q in report.queries]) > 0.8
    assert sum(q.found for q in report.present) >= 10 and max(q.iou or 0 for q in report.present) > 0.3
    assert len(report.absent) >= 10 and all(q.iou is None for q in report.absent)
    assert all(0 <= q.presence <= 1 and (q.iou is None or 0 <= q.iou <= 1) for q in report.queries)
    pipeline = Ovs3d.load(out / "demo.ovs3d")
    assert pipeline.stats["num_gaussians"] == report.num_gaussians
    points, _ = read_points(out / "cloud.ply")
    assert 1000 < len(points) <= report.num_gaussians
    with Image.open(out / "demo.png") as sheet:
        assert sheet.width == 1800 and np.asarray(sheet).std() > 20
    assert len(list((out / "masks").glob("*.png"))) == 2 * len(report.present)  # two held-out views


def test_shipped_scene_is_small_and_complete():
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= MAX_BYTES
    dataset = open_dataset(SHIPPED)
    assert len(dataset) == 60 and dataset.has_depth and dataset.has_labels
    assert (dataset.cameras[0].width, dataset.cameras[0].height) == (320, 240)
    steps = np.linalg.norm(np.diff(dataset.camtoworlds[:, :3, 3], axis=0), axis=1)
    assert steps.max() < 0.25  # metres: a robot drives, it does not jump
    scene = read_scene()
    assert not set(scene.training) & set(scene.holdout) and len(scene.holdout) == 7
    assert len(scene.present) >= 10 and len(scene.absent) >= 10


def test_absent_names_are_not_in_the_room():
    objects = json.loads((SHIPPED / "objects.json").read_text(encoding="utf-8")).values()
    pairs = {f"{o['colour']} {o['noun']}" for o in objects}
    nouns = {o["noun"] for o in objects}
    for name in read_scene().absent:
        assert name not in nouns and name not in pairs, name


def test_absent_name_that_is_a_class_is_refused(small_scene, tmp_path):
    shutil.copytree(small_scene, tmp_path / "scene")
    (tmp_path / "scene" / "absent.txt").write_text("floor\n", encoding="utf-8")
    with pytest.raises(UserError, match="'floor' is one of its classes"):
        read_scene(tmp_path / "scene")


def test_bag_holds_the_frames_of_the_scene():
    rosbags = pytest.importorskip("rosbags.highlevel")
    dataset = open_dataset(SHIPPED)
    with rosbags.AnyReader([SHIPPED / "bag"]) as bag:
        counts = {c.topic: c.msgcount for c in bag.connections}
        assert counts == dict.fromkeys(
            ["/image/compressed", "/depth/compressedDepth", "/camera_info", "/pose"], 60
        )
        messages = {
            t: [bag.deserialize(raw, c.msgtype) for c, _, raw in bag.messages() if c.topic == t]
            for t in counts
        }
    stamps = [m.header.stamp.sec + 1e-9 * m.header.stamp.nanosec for m in messages["/image/compressed"]]
    assert np.allclose(np.diff(stamps), 0.5)
    for i in (0, 31, 59):
        assert bytes(messages["/image/compressed"][i].data) == dataset.image_paths[i].read_bytes()
        depth = bytes(messages["/depth/compressedDepth"][i].data)
        assert depth[12:] == (SHIPPED / "depth" / f"{dataset.names[i]}.png").read_bytes()
        position = messages["/pose"][i].pose.position
        assert np.allclose([position.x, position.y, position.z], dataset.camtoworlds[i, :3, 3])
        K = messages["/camera_info"][i].k.reshape(3, 3)
        assert np.allclose(K[:2, 2] + 0.5, dataset.cameras[i].K[:2, 2]) and np.isclose(
            K[0, 0], dataset.cameras[i].K[0, 0]
        )


def test_demo_in_one_process(small_scene, tmp_path):
    (tmp_path / "overlays").mkdir()
    for name in ("mine.png", "topic_label.png"):
        (tmp_path / "overlays" / name).write_text("earlier")
    report, how_run = demo.make_demo(tmp_path, False, QUICK, rate=10.0, scene_path=small_scene)
    assert "without ROS" in how_run
    check_run(tmp_path, report, num_frames=13)
    assert (tmp_path / "overlays" / "mine.png").is_file(), "the demo removes only its own files"
    assert not (tmp_path / "overlays" / "topic_label.png").exists(), (
        "a run without ROS leaves no topic pictures"
    )


@pytest.mark.slow
@pytest.mark.ros
def test_demo_over_ros(small_scene, tmp_path):
    report, how_run = demo.make_demo(tmp_path, True, QUICK, rate=4.0, scene_path=small_scene)
    assert "ROS 2" in how_run
    check_run(tmp_path, report, num_frames=13)
    label = np.load(tmp_path / "logs" / "label.npy")
    assert label.shape[:2] == (240, 320) and label.max() > 0
    cloud = np.load(tmp_path / "logs" / "query_cloud.npy")
    assert {"x", "y", "z", "label", "instance", "score"} <= set(cloud.dtype.names) and cloud[
        "label"
    ].max() > 0


def test_run_removes_only_its_own_logs(small_scene, tmp_path, monkeypatch):
    logs = tmp_path / "logs"
    logs.mkdir()
    for name in ("answers.json", "node.log", "python3_12_1795266850536.log", "notes.txt", "flight.log"):
        (logs / name).write_text("earlier")

    def stop(*_: object) -> None:
        raise ProcessFailed("stopped")

    monkeypatch.setattr(processes, "running", stop)
    with pytest.raises(ProcessFailed, match="stopped"):
        processes.run_processes(
            read_scene(small_scene), Config(), 1.0, tmp_path / "demo.ovs3d", lambda _: None
        )
    earlier = {path.name for path in logs.iterdir() if path.read_text() == "earlier"}
    assert earlier == {"notes.txt", "flight.log"}


def test_unwritable_report_is_refused_before_the_run(tmp_path):
    with pytest.raises(UserError, match=r"no: .*create it|does not exist"):
        demo.run(tmp_path / "out", False, {}, json_path=str(tmp_path / "no" / "r.json"))
    assert not (tmp_path / "out").exists()


def test_bad_settings_and_rates_are_refused(tmp_path):
    for settings in ({"map.no_such": 1}, {"seed.spacing": -1.0}):
        with pytest.raises(UserError):
            demo.run(tmp_path, False, settings)
    with pytest.raises(UserError, match="rate"):
        demo.run(tmp_path, False, {}, rate=0.0)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a Python module that a child process can run, and returns its environment."""

    def write(name: str, source: str) -> dict[str, str]:
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        return dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))

    return write


def test_failed_process_shows_the_end_of_its_log(module, tmp_path):
    environment = module("broken", "raise ValueError('the camera fell off')")
    with running("broken", [], environment, tmp_path / "broken.log") as child:
        child.process.wait(30)
        with pytest.raises(ProcessFailed, match=r"(?s)broken ended with exit status 1.*the camera fell off"):
            child.has_ended()


def test_process_that_ignores_signals_is_killed(module, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "STOP_TIMEOUT", 1.0)
    environment = module(
        "stubborn",
        "import signal, time\nfor number in (signal.SIGINT, signal.SIGTERM):\n"
        "    signal.signal(number, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)",
    )
    started = time.monotonic()
    with running("stubborn", [], environment, tmp_path / "stubborn.log") as child:
        while "up" not in child.lines():
            assert time.monotonic() < started + 30
            time.sleep(0.02)
        stopping = time.monotonic()
    assert child.process.returncode == -9 and time.monotonic() - stopping < 10


@pytest.mark.slow
@pytest.mark.ros
def test_demo_ends_with_the_log_of_a_dead_node(module, small_scene, tmp_path, monkeypatch, capsys):
    environment = module("dying_node", "import sys, time\ntime.sleep(1)\nsys.exit('no space left on device')")
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    monkeypatch.setattr(processes, "NODE", "dying_node")
    monkeypatch.setattr(demo, "SHIPPED", small_scene)
    assert demo.run(tmp_path / "out", True, QUICK, quiet=True) == 1
    assert "no space left on device" in capsys.readouterr().err
    assert not (tmp_path / "out" / "report.json").exists()


def test_child_ends_though_a_shell_has_it_ignore_sigint(module, tmp_path):
    environment = module("sleeper", "import time\nprint('ready', flush=True)\ntime.sleep(120)")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with running("sleeper", [], environment, tmp_path / "log") as child:
            while not child.lines():
                time.sleep(0.05)
            assert child.stop() == -signal.SIGTERM, "it is not killed after a minute"
    finally:
        signal.signal(signal.SIGINT, before)
