"""The seam to Ray: a cluster, tasks on it, and a board on which they tell how far they are."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ovs3d_ros.fleet.board import Board
from ovs3d_ros.fleet.manifest import Record
from ovs3d_ros.fleet.task import Task, run_task
from ovs3d_ros.types import UserError

_STORE_BYTES = 100 * 2**20  # of shared memory; maps travel as files
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Resources:
    """What one dataset takes while it is mapped.

    Attributes:
        cpus: cores.
        memory: GiB.
        gpus: GPUs; a fraction shares one.
    """

    cpus: int = 1
    memory: float = 2.0
    gpus: float = 0.0


class WorkerLost(Exception):
    """The process or the machine that worked on a dataset is gone."""


@contextmanager
def connect(address: str | None, workers: int, resources: Resources) -> Iterator[Cluster]:
    """Connects to a Ray cluster, or starts one on this machine that ends with the block.

    In a process that has connected to Ray already, that connection is used, and stays.

    Args:
        address: of the cluster, e.g. "auto" or "head:6379"; None: this machine.
        workers: datasets at a time, 0: as many as fit.
        resources: of each dataset.

    Raises:
        UserError: Ray is not installed, the cluster cannot be reached, or no machine of it has the resources.
    """
    try:
        import ray
    except ImportError:
        raise UserError("a fleet needs Ray: pip install 'ovs3d_ros[fleet]'") from None
    own = not ray.is_initialized()
    if own:
        _start(address, workers, resources)
    try:
        _check_resources(resources)
        yield Cluster(resources)
    finally:
        if own:
            ray.shutdown()


def _start(address: str | None, workers: int, resources: Resources) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use over the network
    quiet: dict[str, Any] = dict(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    if address is not None:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"--address {address}: no Ray cluster can be reached there ({reason})") from None
        return
    cores = max(os.cpu_count() or 1, workers * resources.cpus)
    ray.init(address="local", num_cpus=cores, object_store_memory=_STORE_BYTES, **quiet)


def _check_resources(resources: Resources) -> None:
    """Raises UserError if no machine has what a dataset takes; Ray would wait for one for ever."""
    import ray

    wanted = dict(CPU=resources.cpus, memory=resources.memory * _GIB, GPU=resources.gpus)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
        largest = {name: max(node.get(name, 0) for node in nodes) for name in wanted}
        raise UserError(
            f"no machine has {resources.cpus} cores, {resources.memory:g} GiB of memory and "
            f"{resources.gpus:g} GPUs for a dataset; the most are {largest['CPU']:g}, "
            f"{largest['memory'] / _GIB:.1f} and {largest['GPU']:g}: lower --cpus, --memory or --gpus"
        )


def _run_remotely(task: Task, board: Any) -> Record:
    logging.getLogger("ovs3d_ros").setLevel(logging.WARNING)
    return run_task(task, lambda text: board.put.remote(task.record.map, text))


class Cluster:
    """Runs tasks on the cluster that this process is connected to.

    Args:
        resources: of each task.
    """

    def __init__(self, resources: Resources) -> None:
        import ray

        self._ray = ray
        self._remote = ray.remote(_run_remotely).options(
            num_cpus=resources.cpus,
            memory=int(resources.memory * _GIB),
            num_gpus=resources.gpus,
            max_retries=0,  # the driver tries again, because it counts and reports that
        )
        self._board = ray.remote(Board).options(num_cpus=0, max_restarts=-1).remote()
        self._running: dict[Any, Task] = {}

    def __len__(self) -> int:
        """Number of tasks that were submitted and have not been returned by `wait`."""
        return len(self._running)

    def submit(self, task: Task) -> None:
        """Queues a task; it runs when its resources are free."""
        self._running[self._remote.remote(task, self._board)] = task

    def wait(self, seconds: float) -> Iterator[tuple[Task, Record | WorkerLost]]:
        """Yields the tasks that end within some time, with their record or the reason why there is none."""
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        for reference in ended:
            task = self._running.pop(reference)
            try:
                yield task, self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:  # the package cannot be imported there
                yield task, WorkerLost(str(error).strip().splitlines()[-1])
            except self._ray.exceptions.RayError as error:
                yield task, WorkerLost(str(error).strip().splitlines()[0])

    def reports(self) -> dict[str, str]:
        """What the running tasks reported last, by the name of their map."""
        running = {task.record.map for task in self._running.values()}
        try:
            reports = self._ray.get(self._board.reports.remote(), timeout=5.0)
        except self._ray.exceptions.RayError:  # its machine went; it starts again elsewhere
            return {}
        return {name: text for name, text in reports.items() if name in running}
