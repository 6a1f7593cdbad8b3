"""Mapping workers of small synthetic maps, and a gate that holds them."""

from __future__ import annotations

import threading

from helpers import synthetic
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.worker import MappingWorker

WAIT = 120.0  # seconds; generous, for machines under load


def make_worker(**settings) -> MappingWorker:
    config = synthetic.make_config(**settings)
    return MappingWorker(Ovs3d(config), config)


class Gate:
    """Holds the pipeline inside `Intake.insert_frame` until the test opens the gate."""

    def __init__(self, worker: MappingWorker) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        insert_frame = worker.pipeline.intake.insert_frame

        def wait_and_insert(frame):
            self.entered.set()
            assert self.opened.wait(WAIT)
            return insert_frame(frame)

        worker.pipeline.intake.insert_frame = wait_and_insert


def note_steps(worker: MappingWorker, steps: list[int]) -> None:
    """Appends the steps that were taken whenever the thread begins to map a frame."""
    insert_frame = worker.pipeline.intake.insert_frame

    def note_and_insert(frame):
        steps.append(worker.stats()["steps"])
        return insert_frame(frame)

    worker.pipeline.intake.insert_frame = note_and_insert
