"""The keyframes of a map, and what training learns about each of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ovs3d_ros.mapping.exposure import Exposure
from ovs3d_ros.mapping.keyframe_store import KeyframeStore
from ovs3d_ros.types import Keyframe, TrainingState


class KeyframeLog:
    """Lists that grow by one entry per keyframe.

    Attributes:
        keyframes: the images the map is trained on.
        visits: optimisation steps on each.
        median_depths: of the scene in each, metres.
        exposure: of each.
    """

    def __init__(self, device: str, memory_limit: int = 0) -> None:
        """Takes the device of tensors, and the bytes of keyframes in memory (0: all)."""
        self.keyframes = KeyframeStore(memory_limit)
        self.visits: list[int] = []
        self.median_depths: list[float] = []
        self.exposure = Exposure(device)

    def add(self, keyframe: Keyframe, median_depth: float) -> None:
        """Adds a keyframe that was not trained on yet."""
        self.keyframes.append(keyframe)
        self.visits.append(0)
        self.median_depths.append(median_depth)
        self.exposure.add_keyframe()

    def choose(
        self,
        rng: np.random.Generator,
        newest_share: float,
        first_visits: int,
        trainable: np.ndarray | None = None,
    ) -> int:
        """Index of the keyframe of the next step.

        That is the newest one in `newest_share` of the steps until it had `first_visits`, else a random one
        of the trainable ones (None: all).
        """
        newest = len(self.keyframes) - 1
        may_be_newest = trainable is None or not len(trainable) or trainable[-1] == newest
        if rng.random() < newest_share and self.visits[-1] < first_visits and may_be_newest:
            return newest
        if trainable is None:
            return int(rng.integers(len(self.keyframes)))
        return int(rng.choice(trainable)) if len(trainable) else newest

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
