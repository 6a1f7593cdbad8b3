"""Maps many datasets in parallel, and goes on where an earlier run stopped."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ovs3d_ros.config import Config, override
from ovs3d_ros.fleet.cluster import Cluster, Resources, WorkerLost, connect
from ovs3d_ros.fleet.manifest import (
    CRASHED,
    FAILED,
    FOLDER,
    Record,
    choose_names,
    fingerprint_data,
    fingerprint_settings,
    is_done,
    locked,
    read_records,
    write_record,
)
from ovs3d_ros.fleet.task import Task
from ovs3d_ros.io.atomic import check_writable
from ovs3d_ros.offline.mapping import Source
from ovs3d_ros.types import UserError

_POLL = 1.0  # s between looks at the progress


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """How a fleet is mapped.

    Attributes:
        address: of a Ray cluster; None: this machine.
        workers: datasets at a time; 0: as many as the resources allow.
        resources: of each dataset.
        retries: how often a dataset is tried again after its worker died.
        encode: False maps colours and shape only.
    """

    address: str | None = None
    workers: int = 0
    resources: Resources = field(default_factory=Resources)
    retries: int = 2
    encode: bool = True


@dataclass(frozen=True, slots=True)
class FleetProgress:
    """How far a fleet is.

    Attributes:
        total: number of datasets.
        ended: the records of those that were done before or have ended, in the order in which they ended.
        running: what the running ones reported, by the name of their map.
    """

    total: int
    ended: list[Record]
    running: dict[str, str]


def map_fleet(
    sources: Sequence[Source],
    folder: str | Path,
    config: Config,
    options: FleetOptions,
    on_progress: Callable[[FleetProgress], None] = lambda progress: None,
) -> list[Record]:
    """Maps datasets into a folder, several at a time.

    What is done, with the same data and settings, is not done again. A dataset that cannot be mapped does not
    stop the others. A dataset whose worker died is tried again.

    Args:
        sources: the datasets.
        folder: where the maps go; on a cluster, all machines see it and the data under the same paths.
        config: all parameters. `compute.threads` 0 becomes the cores of a dataset.
        options: how.
        on_progress: is told about every second, from this thread.

    Returns:
        What has become of each dataset, in their order.

    Raises:
        UserError: the folder cannot be used, another fleet is being mapped into it, or Ray or the resources
            are missing.
    """
    folder = Path(folder).expanduser().resolve()
    try:
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot create this folder ({error.strerror}); choose another") from None
    for used in (folder, folder / FOLDER):
        check_writable(used)
    with locked(folder / ".fleet.lock", wait=False) as alone:
        if not alone:
            raise UserError(f"{folder}: another `ovs3d fleet map` writes there; wait for it, or stop it")
        tasks = _plan(sources, folder, config, options)
        ended = [earlier for earlier, _ in tasks if earlier is not None]
        waiting = deque(task for earlier, task in tasks if earlier is None)
        progress = FleetProgress(len(tasks), ended, {})
        on_progress(progress)
        if waiting:
            with connect(options.address, options.workers, options.resources) as cluster:
                _work_off(cluster, waiting, options, progress, on_progress)
    by_source = {record.source: record for record in ended}
    return [by_source[task.record.source] for _, task in tasks]


def _plan(
    sources: Sequence[Source], folder: Path, config: Config, options: FleetOptions
) -> list[tuple[Record | None, Task]]:
    """A task for each dataset, and its record if there is nothing to do. Writes the records of all others."""
    if not config.compute.threads:
        config = override(config, {"compute.threads": options.resources.cpus})
    absolute = {source.path.expanduser().resolve(): source for source in sources}  # each dataset once
    records = read_records(folder)
    names = choose_names(absolute, records, folder)
    tasks = []
    for path, source in absolute.items():
        source = replace(source, path=path)
        settings = fingerprint_settings(source, config, options.encode)
        record = _new_record(path, names[path], settings, folder)
        earlier = records.get(record.source)
        if record.state == FAILED:
            earlier = record
        elif earlier is None or not is_done(folder, earlier, record):
            earlier = None
        if earlier is None or earlier is record:
            write_record(folder, record)
        tasks.append((earlier, Task(source, folder, record, config, options.encode)))
    return tasks


def _new_record(path: Path, name: str, settings: str, folder: Path) -> Record:
    """The record of a dataset that waits; of one that has failed if its files cannot be listed."""
    try:
        return Record(str(path), name, fingerprint_data(path, folder), settings)
    except UserError as error:
        return Record(str(path), name, "", settings, state=FAILED, error=str(error))


def _work_off(
    cluster: Cluster,
    waiting: deque[Task],
    options: FleetOptions,
    progress: FleetProgress,
    on_progress: Callable[[FleetProgress], None],
) -> None:
    """Runs all waiting tasks, and adds their records to those that have ended."""
    while waiting or len(cluster):
        while waiting and (not options.workers or len(cluster) < options.workers):
            task = waiting.popleft()
            record = replace(task.record, attempts=task.record.attempts + 1)
            cluster.submit(replace(task, record=record))
        for task, outcome in cluster.wait(_POLL):
            if isinstance(outcome, Record):
                progress.ended.append(outcome)
            elif task.record.attempts <= options.retries:
                waiting.append(task)
            else:
                progress.ended.append(_give_up(task, outcome))
        on_progress(replace(progress, running=cluster.reports()))


def _give_up(task: Task, reason: WorkerLost) -> Record:
    """The record of a dataset whose workers died too often."""
    error = f"its worker was lost {task.record.attempts} times: {reason}"
    record = replace(task.record, state=CRASHED, error=error)
    try:
        write_record(task.folder, record)
    except UserError as unwritten:
        record = replace(record, warnings=[str(unwritten)])
    return record


def exit_code(records: Sequence[Record]) -> int:
    """0 if all maps are there, 2 if some data cannot be mapped, 1 if workers died or the program failed."""
    states = {record.state for record in records}
    return 1 if CRASHED in states else 2 if FAILED in states else 0
