"""The mapping thread never blocks its callers, counts every frame, and reports its errors."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest
from helpers import synthetic
from helpers.workers import WAIT, Gate, make_worker, note_steps

from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import MapSnapshot
from ovs3d_ros.worker import MappingWorker, memory
from ovs3d_ros.worker.training import TrainingSchedule


@pytest.fixture
def worker():
    made = make_worker(input__inbox=3)
    yield made
    assert made.stop(WAIT)


def test_frames_become_a_published_map(worker: MappingWorker) -> None:
    assert worker.snapshot is None
    worker.start()
    frames = synthetic.make_frames(3)
    for frame in frames:
        worker.submit(frame)
    assert worker.wait_idle(WAIT)
    stats = worker.stats()
    assert (stats["frames_received"], stats["frames_dropped"], stats["frames_rejected"]) == (3, 0, 0)
    assert stats["keyframes"] == 3 and stats["queue"] == 0
    assert stats["steps"] == 3 * worker.config.train.steps_per_keyframe
    assert stats["map_version"] == worker.snapshot.version > 0
    assert stats["num_gaussians"] == worker.snapshot.num_gaussians > 0
    assert 0 < stats["frame_to_map_p50_ms"] <= stats["frame_to_map_p95_ms"]
    result = worker.pipeline.query(["red box"], snapshot=worker.snapshot)
    assert result.found[0] and np.linalg.norm(result.objects[0].center - synthetic.RED.center) < 0.2


def test_submit_never_blocks_and_drops_the_oldest_frames(worker: MappingWorker) -> None:
    gate = Gate(worker)
    worker.start()
    frames = synthetic.make_frames(8)
    worker.submit(frames[0])
    assert gate.entered.wait(WAIT)
    started = time.perf_counter()
    for frame in frames[1:]:
        worker.submit(frame)
    # The gate holds the thread: a blocking submit would wait for ever.
    assert time.perf_counter() - started < 1.0
    stats = worker.stats()
    assert (stats["frames_received"], stats["frames_dropped"], stats["queue"]) == (8, 4, 3)
    assert not worker.wait_idle(0.05)
    gate.opened.set()
    assert worker.wait_idle(WAIT)
    mapped = [k.name for k in worker.pipeline.keyframes]
    assert mapped == ["frame_0", "frame_5", "frame_6", "frame_7"]


def test_bad_frames_are_counted_and_mapping_continues(worker: MappingWorker) -> None:
    worker.start()
    good, other = synthetic.make_frames(2)
    broken = good.camtoworld.copy()
    broken[2, 3] = np.nan
    for frame in (good, dataclasses.replace(good, camtoworld=broken, name="bad one"), other):
        worker.submit(frame)
    assert worker.wait_idle(WAIT)
    stats = worker.stats()
    assert stats["frames_rejected"] == 1 and "bad one" in stats["last_rejection"]
    assert stats["keyframes"] == 2 and worker.error is None


def test_queries_while_mapping_see_one_consistent_map() -> None:
    worker = make_worker(input__inbox=50, train__densify_every=3, train__densify_gradient=1e-4)
    worker.start()
    for frame in synthetic.make_frames(8):
        worker.submit(frame)
    versions, deadline = [], time.monotonic() + WAIT
    while not worker.wait_idle(0.0) and time.monotonic() < deadline:
        snapshot = worker.snapshot
        if snapshot is None:
            continue
        assert isinstance(snapshot, MapSnapshot)
        count = snapshot.num_gaussians
        assert all(len(t) == count for t in snapshot.gaussians.values())
        assert (
            len(snapshot.codes) == len(snapshot.weight) == count
            and snapshot.codes.shape[1] == snapshot.codec.dim
        )
        result = worker.pipeline.query(["red box", "blue box"], snapshot=snapshot)
        assert result.map_version == snapshot.version and len(result.labels) == count
        worker.pipeline.render(snapshot.cameras[0], snapshot.camtoworlds[0], snapshot)
        versions.append(snapshot.version)
    assert worker.wait_idle(WAIT) and worker.error is None
    assert versions == sorted(versions) and len(set(versions)) > 1
    assert worker.stop(WAIT)


def test_error_ends_the_thread_and_is_kept() -> None:
    worker = make_worker(clip__model="helpers.color_encoder:BrokenEncoder")
    worker.start()
    worker.submit(synthetic.make_frames(1)[0])
    assert not worker.wait_idle(WAIT)
    assert isinstance(worker.error, RuntimeError) and "encoder broke" in str(worker.error)
    worker.submit(synthetic.make_frames(1)[0])  # after the error: counted, nothing else
    assert worker.stats()["frames_received"] == 2
    assert worker.stop(WAIT)


def test_stop_joins_in_the_middle_of_work() -> None:
    worker = make_worker(train__steps_per_keyframe=10_000)
    worker.start()
    worker.submit(synthetic.make_frames(1)[0])
    deadline = time.monotonic() + WAIT
    while worker.stats()["steps"] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert worker.stop(WAIT)
    assert 0 < worker.stats()["steps"] < 10_000
    assert worker.stop(WAIT)  # twice is harmless
    assert make_worker().stop(WAIT)  # stopping a worker that never started is harmless too


def test_pause_stops_training_but_not_mapping(worker: MappingWorker) -> None:
    worker.set_training(False)
    worker.start()
    first, second = synthetic.make_frames(2)
    worker.submit(first)
    assert worker.wait_idle(WAIT)
    assert worker.stats()["steps"] == 0 and worker.stats()["keyframes"] == 1
    worker.submit(second)
    assert worker.wait_idle(WAIT) and worker.snapshot is not None
    assert worker.stats()["steps"] == 0 and worker.stats()["keyframes"] == 2
    worker.set_training(True)
    assert worker.wait_idle(WAIT)
    assert worker.stats()["steps"] == 2 * worker.config.train.steps_per_keyframe


def test_existing_map_is_published_at_start(tmp_path) -> None:
    pipeline = Ovs3d(synthetic.make_config())
    pipeline.add_frame(synthetic.make_frames(1)[0])
    pipeline.save(tmp_path / "m.ovs3d")
    loaded = Ovs3d.load(tmp_path / "m.ovs3d")
    worker = MappingWorker(loaded, loaded.config)
    worker.start()
    assert worker.snapshot.num_gaussians == pipeline.stats["num_gaussians"]
    assert worker.stop(WAIT)


def test_jobs_run_on_the_mapping_thread_and_return_errors(worker: MappingWorker) -> None:
    with pytest.raises(RuntimeError, match="has ended"):
        worker.run(lambda: 1, WAIT)
    worker.start()
    assert worker.run(lambda: threading.current_thread().name, WAIT) == "mapping"
    with pytest.raises(KeyError, match="mine"):
        worker.run(lambda: {}["mine"], WAIT)
    assert worker.error is None
    worker.submit(synthetic.make_frames(1)[0])
    assert worker.wait_idle(WAIT) and worker.stats()["keyframes"] == 1
    assert worker.stop(WAIT)
    with pytest.raises(RuntimeError, match="has ended"):
        worker.run(lambda: 1, WAIT)


def test_job_that_times_out_never_runs(worker: MappingWorker) -> None:
    gate, ran = Gate(worker), []
    worker.start()
    worker.submit(synthetic.make_frames(1)[0])
    assert gate.entered.wait(WAIT)
    with pytest.raises(TimeoutError, match="busy"):
        worker.run(lambda: ran.append(1), 0.05)
    gate.opened.set()
    assert worker.run(lambda: 2, WAIT) == 2
    assert ran == []


def test_jobs_end_with_the_thread() -> None:
    worker = make_worker(clip__model="helpers.color_encoder:BrokenEncoder")
    gate = Gate(worker)
    worker.start()
    worker.submit(synthetic.make_frames(1)[0])
    assert gate.entered.wait(WAIT)
    caught = []

    def ask() -> None:
        with pytest.raises(RuntimeError, match="has ended") as error:
            worker.run(lambda: 1, WAIT)
        caught.append(error)

    asker = threading.Thread(target=ask)
    asker.start()
    while not worker._queue._jobs:
        time.sleep(0.01)
    gate.opened.set()
    asker.join(WAIT)
    assert caught and worker.stop(WAIT)


def test_preparation_runs_first_and_its_error_ends_the_thread(worker: MappingWorker) -> None:
    order = []
    worker.submit(synthetic.make_frames(1)[0])
    worker.start(prepare=lambda: order.append(worker.stats()["keyframes"]))
    assert worker.wait_idle(WAIT) and order == [0] and worker.stats()["keyframes"] == 1
    broken = make_worker()
    broken.start(prepare=lambda: [][0])
    assert not broken.wait_idle(WAIT)
    assert isinstance(broken.error, IndexError)


def test_frames_are_ignored_and_counted_without_ingest(worker: MappingWorker) -> None:
    worker.start()
    worker.ingest.set(False)
    for frame in synthetic.make_frames(2):
        worker.submit(frame)
    assert worker.wait_idle(WAIT)
    stats = worker.stats()
    assert (stats["frames_received"], stats["frames_ignored"], stats["keyframes"]) == (2, 2, 0)
    assert (stats["ingest"], stats["training"]) == (False, True)
    worker.ingest.set(True)
    worker.submit(synthetic.make_frames(1)[0])
    assert worker.wait_idle(WAIT) and worker.stats()["keyframes"] == 1


def test_replace_map_discards_the_old_map_and_its_frames(worker: MappingWorker) -> None:
    gate = Gate(worker)
    worker.start()
    frames = synthetic.make_frames(3)
    gate.opened.set()
    worker.submit(frames[0])
    assert worker.wait_idle(WAIT)
    before, (params, past) = worker.snapshot, worker.run(worker.pipeline.freeze, WAIT)
    assert worker.replace_map(worker.pipeline.reset, WAIT) is None and worker.snapshot is None
    assert worker.wait_idle(WAIT) and worker.stats()["keyframes"] == 0
    restored = worker.replace_map(lambda: worker.pipeline.restore(params, past, "m"), WAIT)
    assert restored is worker.snapshot
    assert restored.num_gaussians == before.num_gaussians and restored.version > before.version
    gate.entered.clear(), gate.opened.clear()
    worker.submit(frames[1])
    assert gate.entered.wait(WAIT)
    worker.submit(frames[2])
    threading.Timer(0.1, gate.opened.set).start()
    worker.replace_map(worker.pipeline.reset, WAIT)
    assert worker.wait_idle(WAIT) and worker.snapshot is None
    stats = worker.stats()
    assert (stats["frames_ignored"], stats["frames_dropped"], stats["num_gaussians"]) == (1, 0, 0)


def test_training_keeps_its_share_while_frames_wait() -> None:
    worker = make_worker(input__inbox=2, train__steps_per_keyframe=30)
    steps_while_waiting = 0
    worker.start()
    poses = synthetic.orbit(12, arc=6.0)  # each shows something new
    for frame in (synthetic.make_frame(pose, float(index)) for index, pose in enumerate(poses)):
        worker.submit(frame)
        deadline = time.monotonic() + WAIT
        while worker.stats()["queue"] == 2 and time.monotonic() < deadline:
            steps_while_waiting = worker.stats()["steps"]
            time.sleep(0.002)
    stats = worker.stats()
    assert stats["keyframes"] >= 8 and stats["frames_dropped"] == 0
    assert steps_while_waiting > 5, "frames took all of the time"
    assert worker.wait_idle(WAIT) and worker.stop(WAIT)


def test_frames_go_first_without_a_share() -> None:
    worker = make_worker(input__inbox=2, train__steps_per_keyframe=30, train__least_share=0.0)
    gate = Gate(worker)
    worker.start()
    frames = synthetic.make_frames(3)
    worker.submit(frames[0])
    assert gate.entered.wait(WAIT)
    for frame in frames[1:]:
        worker.submit(frame)
    steps: list[int] = []
    note_steps(worker, steps)
    gate.opened.set()
    assert worker.wait_idle(WAIT)
    assert steps == [0, 0]
    assert worker.stop(WAIT)


def test_a_frame_waits_for_one_step_at_most() -> None:
    worker = make_worker(train__steps_per_keyframe=30, train__least_share=0.0)
    first, second = synthetic.make_frames(2)
    steps: list[int] = []
    optimize = worker.pipeline.optimize

    def submit_and_optimize(*arguments) -> None:
        if worker.stats()["steps"] == 3:
            worker.submit(second)
        optimize(*arguments)

    worker.pipeline.optimize = submit_and_optimize
    note_steps(worker, steps)
    worker.start()
    worker.submit(first)
    deadline = time.monotonic() + WAIT
    while worker.stats()["keyframes"] < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert steps == [0, 4]
    assert worker.wait_idle(WAIT) and worker.stop(WAIT)


def test_steps_that_are_due_are_limited() -> None:
    schedule = TrainingSchedule(Ovs3d(synthetic.make_config()), lambda: None)
    for _ in range(10_000):
        schedule.add_keyframe(30)
    assert schedule.figures()["steps_due"] == 200 * 30
    schedule.add_keyframe(1)  # the parameter was lowered: nothing is lost
    assert schedule.figures()["steps_due"] == 200 * 30


def test_changed_map_is_trained_and_lifted_anew() -> None:
    room = synthetic.build_map(synthetic.make_frames(3), steps=1)
    schedule = TrainingSchedule(room, lambda: None)
    schedule.retrain(2)
    assert schedule.figures()["steps_due"] == 3 * 2
    while schedule.figures()["steps_due"]:
        schedule.run_slice()
    schedule.run_slice()  # the first of three keyframes is lifted anew
    assert any(name.startswith("relift") for name in room.map.mapper.gaussians.stats)
    schedule.retrain(2)  # the map was changed again: half a lift is of no use
    assert not any(name.startswith("relift") for name in room.map.mapper.gaussians.stats)
    while schedule.needs_work():
        schedule.run_slice()
    empty = TrainingSchedule(Ovs3d(synthetic.make_config()), lambda: None)
    empty.retrain(2)
    assert not empty.needs_work(), "without keyframes there is nothing to train on"


def test_full_map_says_what_it_removes(caplog) -> None:
    worker = make_worker(map__max_gaussians=400, train__steps_per_keyframe=1)
    worker.start()
    for frame in synthetic.make_frames(4):
        worker.submit(frame)
    assert worker.wait_idle(WAIT)
    stats = worker.stats()
    assert stats["evicted"] > 0 and stats["num_gaussians"] <= 400
    assert caplog.text.count("what was mapped first fades") == 1
    assert worker.stop(WAIT)


def test_memory_of_keyframes_is_counted_and_its_end_pauses_ingest(worker: MappingWorker, monkeypatch) -> None:
    worker.start()
    first, second, third = synthetic.make_frames(3)
    worker.submit(first)
    assert worker.wait_idle(WAIT)
    stats = worker.stats()
    image = first.image.size + 4 * first.depth.size
    assert stats["keyframes_mib"] * memory.MIB >= 0.9 * image and stats["memory_mib"] > 100
    assert stats["memory_limit_mib"] > stats["memory_mib"] and not memory.describe_shortage(stats)
    monkeypatch.setattr(memory, "resident_bytes", lambda: memory.limit_bytes(0))
    worker.submit(second)
    assert worker.wait_idle(WAIT)
    stats = worker.stats()
    assert not stats["ingest"] and "all that compute.memory_limit allows" in stats["pause_reason"]
    assert "2 keyframes; at the limit frames are ignored" in memory.describe_shortage(stats)
    worker.submit(third)
    assert worker.wait_idle(WAIT) and worker.stats()["keyframes"] == 2
    worker.replace_map(worker.pipeline.reset, WAIT)
    assert worker.stats()["ingest"] and worker.stats()["keyframes_mib"] == 0
