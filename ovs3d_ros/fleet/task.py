"""The work on one dataset, in a process of its own somewhere in the cluster."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ovs3d_ros.config import Config
from ovs3d_ros.fleet.indexing import index_map
from ovs3d_ros.fleet.manifest import (
    CRASHED,
    DONE,
    FAILED,
    Record,
    is_done,
    locked,
    read_record,
    record_path,
    write_record,
)
from ovs3d_ros.fleet.parts import identity
from ovs3d_ros.offline.mapping import Progress, Source, map_dataset, open_source
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import UserError

logger = logging.getLogger(__name__)

_REPORT_PERIOD = 0.5  # s


@dataclass(frozen=True, slots=True)
class Task:
    """A dataset to map.

    Attributes:
        source: the data.
        folder: of the maps.
        record: what is known about it; its map is written.
        config: all parameters.
        encode: False maps colours and shape only.
    """

    source: Source
    folder: Path
    record: Record
    config: Config
    encode: bool


def run_task(task: Task, report: Callable[[str], None]) -> Record:
    """Maps a dataset, writes its record and its part of the object index, and never raises.

    While another process works on the same map, it waits and then takes over what that process made.

    Args:
        task: the work.
        report: is told now and then how far it is, in a few words.
    """
    record = task.record
    with locked(record_path(task.folder, record.map).with_suffix(".lock"), wait=True):
        earlier = read_record(record_path(task.folder, record.map))
        if earlier is not None and is_done(task.folder, earlier, record):
            return earlier
        started = time.monotonic()
        with _warnings() as warnings:
            pipeline, record = _map(task, report)
            record = replace(record, seconds=round(time.monotonic() - started, 2), warnings=warnings)
            try:
                write_record(task.folder, record)
                if pipeline is not None and task.encode:
                    report("indexing")
                    index_map(pipeline, task.folder / record.map)
            except UserError as error:  # the map is there, and a query makes the index if it must
                logger.warning("%s", error)
        return replace(record, warnings=warnings)


def _map(task: Task, report: Callable[[str], None]) -> tuple[Ovs3d | None, Record]:
    """Maps the data of a task; returns the map, None if there is none, and the record."""
    path = task.folder / task.record.map
    try:
        recording = open_source(task.source, task.config, task.encode)
        pipeline, figures = map_dataset(recording, path, task.config, task.encode, _progress(report))
        return pipeline, replace(task.record, state=DONE, identity=identity(path), report=figures, error="")
    except UserError as error:
        return None, replace(task.record, state=FAILED, error=" ".join(str(error).split()))
    except Exception as error:
        logger.exception("%s: a fault of the program", task.source.path)
        return None, replace(task.record, state=CRASHED, error=f"{type(error).__name__}: {error}")


def _progress(report: Callable[[str], None]) -> Progress:
    """Passes progress on, a few times a second at most."""
    last = -_REPORT_PERIOD

    def progress(stage, done, figures) -> None:
        nonlocal last
        if time.monotonic() - last >= _REPORT_PERIOD:
            last = time.monotonic()
            report(f"{stage.title} {done / max(stage.total, 1):.0%}")

    return progress


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collects what the package's loggers warn about; the list grows inside the block."""
    collected: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            collected.append(record.getMessage())

    package, handler = logging.getLogger("ovs3d_ros"), Collector(logging.WARNING)
    package.addHandler(handler)
    try:
        yield collected
    finally:
        package.removeHandler(handler)
