"""Paths that correct nothing are refused or reported; test_robot.py covers a whole loop closure."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import synthetic

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from ovs3d_ros.config import override  # noqa: E402
from ovs3d_ros.map_file import load_map  # noqa: E402
from ovs3d_ros.pipeline import Ovs3d  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.inputs.loop_closure import LoopClosure  # noqa: E402
from ovs3d_ros.types import UserError  # noqa: E402
from ovs3d_ros.worker import MappingWorker  # noqa: E402
from ovs3d_ros.worker.ingest import JUMP, MEMORY  # noqa: E402

STREAM = SimpleNamespace(topic="/keyframe_path")


SHIFT = np.array([[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
STAMPS = (10.0, 11.0)


def path(*stamps: float, shift: np.ndarray = SHIFT) -> conversions.Path:
    """A path with the keyframes' poses shifted by half a metre."""
    frames = synthetic.make_frames(len(STAMPS))
    return conversions.Path(
        header=conversions.to_header(1.0, "map"),
        poses=[
            conversions.PoseStamped(
                header=conversions.to_header(stamp, "map"),
                pose=conversions.to_pose(shift @ frames[i % len(STAMPS)].camtoworld),
            )
            for i, stamp in enumerate(stamps)
        ],
    )


@pytest.fixture
def worker() -> Iterator[MappingWorker]:
    """A worker with the map of a bag played twice: two keyframes at 10 s and two at 11 s."""
    config = synthetic.make_config()
    pipeline = Ovs3d(config)
    for frame in 2 * synthetic.make_frames(len(STAMPS)):
        pipeline.add_frame(dataclasses.replace(frame, stamp=STAMPS[len(pipeline.keyframes) % len(STAMPS)]))
    worker = MappingWorker(pipeline, config)
    worker.start()
    yield worker
    assert worker.stop(30.0)


@pytest.fixture
def closure(worker: MappingWorker) -> LoopClosure:
    node = SimpleNamespace(get_logger=lambda: logging.getLogger("loop_closure"))
    return LoopClosure(node, worker.config, worker.pipeline, worker, {"": np.eye(4)})


def test_path_of_the_robot_is_led_to_the_camera_by_its_mount(worker):
    node = SimpleNamespace(get_logger=lambda: logging.getLogger("loop_closure"))
    closure = LoopClosure(node, worker.config, worker.pipeline, worker, {"": None})
    mount = conversions.extrinsics_matrix((0.1, 0.0, 0.5, -0.5, 0.5, -0.5, 0.5), "mount")
    before = [keyframe.camtoworld for keyframe in worker.pipeline.keyframes]
    message = conversions.Path(header=conversions.to_header(1.0, "map"))
    for stamp, camtoworld in zip(STAMPS, before, strict=False):
        robot = SHIFT @ camtoworld @ np.linalg.inv(mount)
        header = conversions.to_header(stamp, "map")
        message.poses.append(conversions.PoseStamped(header=header, pose=conversions.to_pose(robot)))
    closure.submit(message, STREAM, {"": mount})
    settle(worker)
    after = [keyframe.camtoworld for keyframe in worker.pipeline.keyframes]
    np.testing.assert_allclose(after, SHIFT @ before, atol=1e-6)


def test_path_that_moves_keyframes_ends_a_pause(worker, closure):
    assert worker.ingest.pause(JUMP, "the pose moved 5 m") and not worker.ingest.pause(JUMP, "again")
    assert (worker.stats()["ingest"], worker.stats()["pause_reason"]) == (False, "the pose moved 5 m")
    closure.submit(path(100.0), STREAM, {})
    settle(worker)
    assert worker.stats()["pause_reason"]  # it moved nothing
    closure.submit(path(*STAMPS), STREAM, {})
    settle(worker)
    assert (worker.stats()["ingest"], worker.stats()["pause_reason"]) == (True, "")
    worker.ingest.set(False)
    closure.submit(path(*STAMPS, shift=SHIFT @ SHIFT), STREAM, {})
    settle(worker)
    assert closure.corrected == 8 and not worker.stats()["ingest"]  # a person switched it off
    worker.ingest.set(True)
    assert worker.ingest.pause(MEMORY, "all memory is used")
    closure.submit(path(*STAMPS), STREAM, {})
    settle(worker)
    assert closure.corrected == 12 and worker.stats()["pause_reason"] == "all memory is used"


def settle(worker: MappingWorker) -> None:
    """Waits until the mapping thread has run the queued jobs."""
    worker.run(lambda: None, 30.0)


def test_path_moves_a_map_that_was_loaded_with_its_keyframes(worker, closure, tmp_path):
    worker.pipeline.configure(override(worker.config, {"map.keep_keyframes": True}))
    worker.run(lambda: worker.pipeline.save(tmp_path / "room.ovs3d"), 30.0)
    params, loaded = load_map(tmp_path / "room.ovs3d", training=True)
    worker.replace_map(lambda: worker.pipeline.restore(params, loaded, "room.ovs3d"), 30.0)
    assert len(worker.pipeline.keyframes) == 4
    before = worker.snapshot.gaussians["means"].clone()
    closure.submit(path(*STAMPS), STREAM, {})
    settle(worker)
    assert closure.corrected == 4
    moved = worker.pipeline.map.mapper.gaussians.params["means"].detach() - before
    np.testing.assert_allclose(moved.median(0).values, [0.5, 0, 0], atol=1e-4)


def test_keyframes_with_equal_stamps_move_separately(closure, worker):
    closure.submit(path(*STAMPS), STREAM, {})
    settle(worker)
    expected = [SHIFT @ frame.camtoworld for frame in synthetic.make_frames(len(STAMPS))]
    for index, keyframe in enumerate(worker.pipeline.keyframes):
        assert np.allclose(keyframe.camtoworld, expected[index % len(STAMPS)], atol=1e-6)
    closure.submit(path(*STAMPS), STREAM, {})
    settle(worker)
    assert closure.corrected == 4, "the second path moves nothing"


def test_loop_closure_moves_each_camera_by_its_extrinsics():
    turned = np.diag([-1.0, 1.0, -1.0, 1.0])  # the rear camera looks back
    extrinsics, config = {"front": np.eye(4), "rear": turned}, synthetic.make_config()
    pipeline = Ovs3d(config)
    for frame, stamp in zip(synthetic.make_frames(len(STAMPS)), STAMPS, strict=True):
        for sensor, extrinsic in extrinsics.items():
            pipeline.add_frame(
                dataclasses.replace(
                    frame, stamp=stamp, sensor=sensor, camtoworld=frame.camtoworld @ extrinsic
                )
            )
    before = [(k.sensor, k.stamp, k.camtoworld) for k in pipeline.keyframes]
    assert [row[0] for row in before] == ["front", "rear"] * 2
    worker = MappingWorker(pipeline, config)
    worker.start()
    closure = LoopClosure(
        SimpleNamespace(get_logger=lambda: logging.getLogger("loop_closure")),
        config,
        pipeline,
        worker,
        extrinsics,
    )
    closure.submit(path(*STAMPS), STREAM, {})
    settle(worker)
    assert worker.stop(30.0)
    for keyframe, (sensor, stamp, pose) in zip(pipeline.keyframes, before, strict=True):
        assert (keyframe.sensor, keyframe.stamp) == (sensor, stamp)
        np.testing.assert_allclose(keyframe.camtoworld, SHIFT @ pose, atol=1e-6)


def test_path_without_stamps_is_refused(closure, worker, caplog):
    with pytest.raises(
        UserError, match="/keyframe_path: no pose of the path has a stamp; the publisher must"
    ):
        closure.submit(path(0.0, 0.0), STREAM, {})
    closure.submit(path(), STREAM, {})  # as SLAM publishes at its start
    settle(worker)
    assert not caplog.records


def test_path_without_matching_keyframe_warns_once(closure, worker, caplog):
    closure.submit(path(10.01, 500.0), STREAM, {})
    settle(worker)
    caplog.clear()
    closure.submit(path(11.01, 501.0), STREAM, {})
    settle(worker)
    assert not caplog.records
    for _ in range(2):
        closure.submit(path(500.0, 501.0), STREAM, {})
        settle(worker)
    (record,) = caplog.records
    assert "(500.000 to 501.000 s) is within 0.02 s of a keyframe (10.000 to 11.000 s)" in record.message


@pytest.mark.parametrize("distance", [1e39, 3e38, 1e12])
def test_positions_beyond_float32_are_refused(distance: float, closure, worker):
    before = worker.pipeline.snapshot()
    message = path(*STAMPS)
    message.poses[1].pose.position.x = distance
    with pytest.raises(UserError, match=r"/keyframe_path: lies .* m from the origin"):
        closure.submit(message, STREAM, {})
    settle(worker)
    assert np.array_equal(worker.pipeline.snapshot().camtoworlds, before.camtoworlds)


def test_bad_pose_of_one_camera_moves_no_camera(worker, caplog):
    far = np.eye(4)
    far[:3, 3] = 9e8
    keyframes = worker.pipeline.map.mapper.keyframes.views  # the pipeline gives copies
    for keyframe in keyframes[2:]:
        keyframe.sensor = "rear"
    node = SimpleNamespace(get_logger=lambda: logging.getLogger("loop_closure"))
    closure = LoopClosure(node, worker.config, worker.pipeline, worker, {"": np.eye(4), "rear": far})
    before = [keyframe.camtoworld.copy() for keyframe in keyframes]
    message = path(*STAMPS)
    for item in message.poses:
        item.pose.position.x += 9e8
    closure.submit(message, STREAM, {})
    settle(worker)
    assert "could not be applied" in caplog.text
    assert all(np.array_equal(k.camtoworld, old) for k, old in zip(keyframes, before, strict=True))
    assert worker.error is None
