"""Refines the map of a worker while the worker goes on mapping."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ovs3d_ros.mapping.keyframes import to_frame
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.types import MapSnapshot, RefineStep
from ovs3d_ros.worker.mapping_worker import MappingWorker


class MapRefiner:
    """Runs refinements on the caller's thread; only their begin and end run on the mapping thread."""

    def __init__(self, pipeline: Ovs3d, worker: MappingWorker):
        """Takes the map and the thread that owns it."""
        self._pipeline = pipeline
        self._worker = worker

    def refine(
        self, names: list[str], on_step: Callable[[RefineStep], bool], timeout: float
    ) -> tuple[RefineStep, MapSnapshot | None]:
        """Refines the map for names, checks the result on keyframes and publishes it, see `Ovs3d.refine`.

        Args:
            names: the names to tell apart.
            on_step: takes each step; returns whether to continue.
            timeout: seconds to wait for the mapping thread.

        Returns:
            The last step, and the snapshot with the refined field. The snapshot is None if the map keeps its
            field: `on_step` ended the refinement, the check found it no better, or the map was replaced.

        Raises:
            UserError: bad names, an empty map, or a missing DINO.
            TimeoutError, RuntimeError: see `MappingWorker.run`.
        """
        if self._pipeline.keyframes:
            self._pipeline.prepare_check()  # on this thread, because it takes seconds
        steps, step, num_replacements = self._worker.run(lambda: self._begin(names), timeout)
        try:
            while (proceed := on_step(step)) and step.stage != "done":
                step = next(steps)
            if not (proceed and step.kept):
                return step, None
            return step, self._worker.run(lambda: self._end(steps, num_replacements), timeout)
        finally:
            self._worker.run(lambda: self._close(steps), timeout)

    def _begin(self, names: list[str]) -> tuple[Iterator[RefineStep], RefineStep, int]:
        """Starts a refinement; returns its steps, the first step, and the number of replaced maps."""
        keyframes = self._pipeline.keyframes
        chosen = evenly_spaced_indices(len(keyframes), self._pipeline.config.refine.check_views)
        steps = self._pipeline.refine(names, [to_frame(keyframes[index]) for index in chosen])
        try:
            return steps, next(steps), self._worker.num_replacements
        except Exception:
            self._close(steps)
            raise

    def _close(self, steps: Iterator[RefineStep]) -> None:
        """Ends the steps, also those that raised, and frees what they kept in the map."""
        steps.close()  # type: ignore[attr-defined]  # a generator
        self._pipeline.map.discard_refinement()

    def _end(self, steps: Iterator[RefineStep], num_replacements: int) -> MapSnapshot | None:
        """Exhausts the steps, which installs the field, and publishes it unless the map was replaced."""
        next(steps, None)
        if num_replacements != self._worker.num_replacements:
            return None
        self._worker.publish()
        return self._worker.snapshot
