"""The mapping thread shows a keyframe's colours at once, and adds its features when the encoder has them."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from helpers import rooms, synthetic
from helpers.color_encoder import ColorEncoder
from helpers.workers import WAIT

from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Frame, MapSnapshot
from ovs3d_ros.worker import MappingWorker
from ovs3d_ros.worker.frame_mapper import _MOST_PENDING
from ovs3d_ros.worker.training import TrainingSchedule


class SlowEncoder(ColorEncoder):
    """Encodes the first image at once, and others when the test opens the gate; `broken` raises then."""

    def __init__(self) -> None:
        super().__init__(None, "cpu")
        self.images, self.opened, self.broken = 0, threading.Event(), False

    def encode_image(self, image):
        self.images += 1
        if self.images > 1:
            assert self.opened.wait(WAIT)
            if self.broken:
                raise RuntimeError("the encoder broke")
        return super().encode_image(image)


@pytest.fixture
def encoder():
    made = SlowEncoder()
    yield made
    made.opened.set()


@pytest.fixture
def worker(encoder):
    made = start(encoder)
    yield made
    encoder.opened.set()
    assert made.stop(WAIT)


def start(encoder: ColorEncoder, **settings) -> MappingWorker:
    """A worker that has mapped the first frame, with its features."""
    config = synthetic.make_config(input__inbox=9, **settings)
    worker = MappingWorker(Ovs3d(config, clip=encoder), config)
    worker.start()
    submit(worker, synthetic.make_frames(6)[:1])
    assert worker.wait_idle(WAIT)
    return worker


def submit(worker: MappingWorker, frames: list[Frame]) -> None:
    for frame in frames:
        worker.submit(frame)


def wait_for(worker: MappingWorker, name: str, least: float) -> dict:
    """The figures of a worker as soon as one of them reaches a number."""
    deadline = time.monotonic() + WAIT
    while worker.stats()[name] < least and time.monotonic() < deadline:
        time.sleep(0.01)
    stats = worker.stats()
    assert stats[name] >= least
    return stats


def share_known(snapshot: MapSnapshot) -> float:
    """Share of the Gaussians that have features."""
    return float((snapshot.weight > 0).float().mean())


def test_colours_are_shown_before_the_features_are_there(worker, encoder) -> None:
    known = share_known(worker.snapshot)
    submit(worker, synthetic.make_frames(6)[5:])
    wait_for(worker, "frames_mapped", 2)
    assert not worker.wait_idle(0.3)
    assert len(worker.snapshot.names) == 2 and share_known(worker.snapshot) < known
    encoder.opened.set()
    assert worker.wait_idle(WAIT)
    assert share_known(worker.snapshot) > 0.98
    stats = worker.stats()
    assert stats["frame_to_features_p95_ms"] > stats["frame_to_map_p95_ms"] and encoder.images == 2


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_training_takes_its_share_while_frames_wait_for_the_encoder(encoder, share: float) -> None:
    worker = start(encoder, train__least_share=share, train__steps_per_keyframe=1)
    steps = worker.stats()["steps"]
    submit(worker, synthetic.make_frames(6)[1:])
    wait_for(worker, "frames_mapped", 1 + _MOST_PENDING)
    if share:
        wait_for(worker, "steps", steps + 1)
    else:
        time.sleep(0.5)
        assert worker.stats()["steps"] == steps
    assert not worker.wait_idle(0.1)
    encoder.opened.set()
    assert worker.wait_idle(WAIT) and worker.stats()["steps"] == steps + 5
    assert worker.stop(WAIT)


def test_features_are_those_of_a_map_that_waits_for_them(worker, encoder) -> None:
    worker.set_training(False)
    submit(worker, synthetic.make_frames(6)[1:3])
    wait_for(worker, "frames_mapped", 3)
    encoder.opened.set()
    worker.run(lambda: None, WAIT)
    whole = worker.pipeline.freeze()[1]
    waited = Ovs3d(worker.config, clip=ColorEncoder(None, "cpu"))
    for number, frame in enumerate(synthetic.make_frames(6)[:3]):
        waited.add_frame(frame)
        if number == 0:
            waited.optimize(worker.config.train.steps_per_keyframe)
            for _ in waited.relift():
                pass
    other = waited.snapshot()
    assert whole.names == other.names and whole.num_gaussians == other.num_gaussians
    assert torch.equal(whole.gaussians["means"], other.gaussians["means"])
    # The lift of the second keyframe sees the Gaussians of the third here, so shares differ a little.
    cosines = torch.nn.functional.cosine_similarity(whole.codes, other.codes)
    assert float(cosines[(whole.weight > 1) & (other.weight > 1)].median()) > 0.999


def test_frames_wait_while_the_encoder_is_behind(worker, encoder) -> None:
    submit(worker, synthetic.make_frames(6)[1:])
    stats = wait_for(worker, "frames_mapped", 1 + _MOST_PENDING)
    time.sleep(0.3)
    stats = worker.stats()
    assert (stats["frames_mapped"], stats["queue"]) == (1 + _MOST_PENDING, 5 - _MOST_PENDING)
    encoder.opened.set()
    assert worker.wait_idle(WAIT) and worker.stats()["frames_mapped"] == 6


def test_a_job_sees_the_features_of_all_keyframes(worker, encoder) -> None:
    submit(worker, synthetic.make_frames(6)[4:])
    wait_for(worker, "frames_mapped", 3)
    assert share_known(worker.snapshot) < 0.9
    threading.Timer(0.3, encoder.opened.set).start()
    _, frozen = worker.run(worker.pipeline.freeze, WAIT)
    assert share_known(frozen) > 0.98


def test_features_are_added_when_the_thread_stops(worker, encoder) -> None:
    submit(worker, synthetic.make_frames(6)[4:])
    wait_for(worker, "frames_mapped", 3)
    threading.Timer(0.3, encoder.opened.set).start()
    assert worker.stop(WAIT)
    assert share_known(worker.pipeline.snapshot()) > 0.98


def test_a_new_map_forgets_what_waits(worker, encoder) -> None:
    submit(worker, synthetic.make_frames(6)[3:])
    wait_for(worker, "frames_mapped", 4)
    assert worker.replace_map(worker.pipeline.reset, WAIT) is None
    encoder.opened.set()
    submit(worker, synthetic.make_frames(6)[:2])
    assert worker.wait_idle(WAIT) and worker.error is None
    stats = worker.stats()
    assert (stats["keyframes"], stats["frames_featureless"]) == (2, 0)
    assert encoder.images == 4, "of the old map the one that was begun, beside its first"
    assert share_known(worker.snapshot) > 0.98


def test_a_broken_encoder_ends_the_thread(encoder) -> None:
    worker = start(encoder)
    encoder.broken = True
    submit(worker, synthetic.make_frames(6)[1:2])
    wait_for(worker, "frames_mapped", 2)
    encoder.opened.set()
    assert not worker.wait_idle(WAIT)
    assert isinstance(worker.error, RuntimeError) and "the encoder broke" in str(worker.error)
    assert worker.stop(WAIT)


def test_a_lift_of_all_keyframes_begins_anew_with_new_features(encoder) -> None:
    pipeline = Ovs3d(synthetic.make_config(), clip=encoder)
    training, frames = TrainingSchedule(pipeline, lambda: None), synthetic.make_frames(6)
    encoder.opened.set()
    for frame in frames[:3]:
        pipeline.add_frame(frame)
    encoder.opened.clear()
    insertion = pipeline.intake.insert_frame(frames[5])
    assert insertion is not None and insertion.features is not None
    training.add_keyframe(1)
    for _ in range(3):  # a step, and two of the three keyframes
        assert not training.run_slice()
    encoder.opened.set()
    pipeline.intake.add_features(insertion)
    training.add_features()
    while not training.run_slice():
        pass
    assert not training.needs_work() and share_known(pipeline.snapshot()) > 0.98
    assert int(pipeline.snapshot().views.max()) == 4


def test_features_reach_places_that_were_parked_meanwhile(encoder) -> None:
    pipeline = rooms.drive([], clip=encoder)
    frames = [rooms.in_room(frame, room) for room in range(4) for frame in rooms.FRAMES]
    first, *insertions = [pipeline.intake.insert_frame(frame) for frame in frames]
    assert first.features is None and pipeline.stats["parked"] > 0
    encoder.opened.set()
    for insertion in insertions:
        pipeline.intake.add_features(insertion)
    snapshot = pipeline.snapshot()
    place = (snapshot.gaussians["means"][:, 0] / rooms.STEP).round()
    shares = [float((snapshot.weight[place == room] > 0).float().mean()) for room in range(4)]
    assert min(shares) > 0.95
