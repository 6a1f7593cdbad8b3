"""A refinement runs beside the mapping thread, and is published only if it is better."""

from __future__ import annotations

import threading

import pytest
from helpers import synthetic
from helpers.workers import WAIT, make_worker

from ovs3d_ros.semantics import refinement
from ovs3d_ros.types import RefineStep, UserError
from ovs3d_ros.worker import MappingWorker, MapRefiner

NAMES = ["red box", "green box", "blue box", "grey wall"]


@pytest.fixture
def worker():
    made = make_worker(input__inbox=3)
    yield made
    assert made.stop(WAIT)


# `weight` scales the FDA loss. Without that loss the lifted labels are better.
@pytest.mark.parametrize("weight, better", [(60.0, True), (0.0, False)])
def test_refinement_is_published_only_if_it_is_better(weight: float, better: bool) -> None:
    worker = make_worker(
        dino__model="helpers.color_encoder:ColorPatches", refine__attract=weight, refine__repel=weight / 60
    )
    worker.start()
    for frame in synthetic.make_frames(4):
        worker.submit(frame)
    assert worker.wait_idle(WAIT)
    before, stages = worker.snapshot, []
    step, refined = MapRefiner(worker.pipeline, worker).refine(
        NAMES, lambda s: stages.append(s.stage) or True, WAIT
    )
    assert list(dict.fromkeys(stages)) == ["sharpening", "aligning", "checking", "done"]
    assert step.kept == better == (step.figures["after"]["objective"] < step.figures["before"]["objective"])
    assert step.figures["checked"] == 4
    if better:
        assert refined is worker.snapshot and refined.refined.names == tuple(NAMES)
    else:
        assert refined is None and worker.snapshot is before and worker.pipeline.snapshot().refined is None
    assert worker.stop(WAIT)


def test_stopped_refinement_changes_nothing(worker: MappingWorker) -> None:
    worker.start()
    for frame in synthetic.make_frames(2):
        worker.submit(frame)
    assert worker.wait_idle(WAIT)
    before = worker.snapshot
    step, refined = MapRefiner(worker.pipeline, worker).refine(NAMES, lambda s: s.stage != "aligning", WAIT)
    assert (step.stage, refined) == ("aligning", None)
    assert worker.snapshot is before and worker.pipeline.snapshot().refined is None
    with pytest.raises(UserError, match="no class"):
        MapRefiner(worker.pipeline, worker).refine([], lambda s: True, WAIT)
    assert worker.error is None


def test_refinement_of_a_replaced_map_is_not_published(worker: MappingWorker) -> None:
    worker.start()
    for frame in synthetic.make_frames(2):
        worker.submit(frame)
    assert worker.wait_idle(WAIT)

    def empty_map(step: RefineStep) -> bool:
        if step.stage == "done":
            worker.replace_map(worker.pipeline.reset, WAIT)
        return True

    refiner = MapRefiner(worker.pipeline, worker)
    step, refined = refiner.refine(NAMES, empty_map, WAIT)
    assert step.stage == "done" and refined is None and worker.snapshot is None
    assert worker.num_replacements == 1 and worker.error is None


class RecordedStatistics(dict):
    """Statistics of Gaussians that record which threads remove an entry."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.threads: set[str] = set()

    def pop(self, *arguments):
        self.threads.add(threading.current_thread().name)
        return super().pop(*arguments)


@pytest.mark.parametrize("stage", ["class_distribution", "_sharpen"])
def test_failed_refinement_leaves_statistics_to_the_mapping_thread(stage: str, worker, monkeypatch) -> None:
    worker.start()
    for frame in synthetic.make_frames(2):
        worker.submit(frame)
    assert worker.wait_idle(WAIT)
    g = worker.pipeline.map.mapper.gaussians
    names, g.stats = set(g.stats), RecordedStatistics(g.stats)

    def fail(*_: object) -> None:
        raise MemoryError("out of memory")

    monkeypatch.setattr(refinement, stage, fail)
    with pytest.raises(MemoryError, match="out of memory"):
        MapRefiner(worker.pipeline, worker).refine(NAMES, lambda s: True, WAIT)
    assert g.stats.threads == {"mapping"} and set(g.stats) == names
    assert worker.error is None
