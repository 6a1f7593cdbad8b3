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
    """Holds the pipeline inside `add_frame` until the test opens the gate."""

    def __init__(self, worker: MappingWorker) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        add_frame = worker.pipeline.add_frame

        def wait_and_add(frame):
            self.entered.set()
            assert self.opened.wait(WAIT)
            return add_frame(frame)

        worker.pipeline.add_frame = wait_and_add
