"""The keyframes of a map, and what training learns about each of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from ovs3d_ros.mapping.exposure import Exposure, join_exposures
from ovs3d_ros.mapping.keyframe_store import KeyframeStore
from ovs3d_ros.mapping.sorted_values import SortedValues
from ovs3d_ros.types import Keyframe, TrainingState


class KeyframeLog:
    """Lists that grow by one entry per keyframe.

    Attributes:
        keyframes: the images the map is trained on.
        rendered: views of merged maps without images, rendered from those, so that training does not forget
            what they showed.
        visits: optimisation steps on each.
        median_depths: of the scene in each, metres.
        depths: those that are known, in order.
        exposure: of each.
    """

    def __init__(self, device: str, memory_limit: int = 0) -> None:
        """Takes the device of tensors, and the bytes of keyframes in memory (0: all)."""
        self.keyframes = KeyframeStore(memory_limit)
        self.rendered: list[Keyframe] = []
        self.visits: list[int] = []
        self.median_depths: list[float] = []
        self.depths = SortedValues()
        self.exposure = Exposure(device)

    def add(self, keyframe: Keyframe, median_depth: float, visits: int = 0) -> None:
        """Adds a keyframe that was not trained on yet, or counts as one with some visits."""
        self.keyframes.append(keyframe)
        self.visits.append(visits)
        self.median_depths.append(median_depth)
        self.depths.add(median_depth)
        self.exposure.add_keyframe()

    def choose(
        self,
        rng: np.random.Generator,
        newest_share: float,
        first_visits: int,
        trainable: np.ndarray | None = None,
    ) -> tuple[Keyframe, int | None]:
        """What the next step trains on: a keyframe and its index, or a rendered view and None.

        A keyframe is the newest one in `newest_share` of the steps until it had `first_visits`, else a random
        one of the trainable ones (None: all).
        """
        others = len(self.rendered) if trainable is None else 0  # they may see what is not trainable
        if others and rng.random() < others / (others + len(self.keyframes)):
            return self.rendered[int(rng.integers(others))], None
        index = newest = len(self.keyframes) - 1
        may_be_newest = trainable is None or not len(trainable) or trainable[-1] == newest
        if not (rng.random() < newest_share and self.visits[-1] < first_visits and may_be_newest):
            if trainable is None:
                index = int(rng.integers(len(self.keyframes)))
            elif len(trainable):
                index = int(rng.choice(trainable))
        return self.keyframes[index], index

    def visit(self, index: int | None) -> float:
        """Counts a step on a keyframe, and returns the steps before; infinity for a rendered view (None)."""
        if index is None:
            return math.inf
        self.visits[index] += 1
        return self.visits[index] - 1

    @property
    def median_depth(self) -> float:
        """Median depth of the scene in the newest keyframe, metres; 0 before the first keyframe."""
        return self.median_depths[-1] if self.median_depths else 0.0

    def state(self, owners: torch.Tensor) -> TrainingState:
        """A copy of the log, with the owners [N] of Gaussians. Images are shared: they never change."""
        exposures = self.exposure.rows()
        keyframes = self.keyframes.frozen()
        return TrainingState(keyframes, [*self.visits], [*self.median_depths], exposures, owners.clone())

    def restore(self, state: TrainingState, copy: Callable[[Keyframe], Keyframe]) -> None:
        """Fills an empty log with a copy of another one, keyframe by keyframe."""
        for keyframe, median_depth in zip(state.keyframes, state.median_depths, strict=True):
            self.add(copy(keyframe), median_depth)
        self.visits[:] = state.visits
        self.exposure.load_rows(state.exposures)

    def join(self, first: TrainingState, second: TrainingState, copy: Callable[[Keyframe], Keyframe]) -> None:
        """Fills an empty log with the keyframes of two maps, one after the other."""
        for state in (first, second):
            for keyframe, median_depth in zip(state.keyframes, state.median_depths, strict=True):
                self.add(copy(replace(keyframe, index=len(self.keyframes))), median_depth)
        self.visits[:] = [*first.visits, *second.visits]
        self.exposure.load_rows(join_exposures(first.exposures, second.exposures))
