"""Maps: their frame, snapshots and refined fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ovs3d_ros.types.images import Camera, Keyframe

if TYPE_CHECKING:  # annotations only: reading datasets and messages needs no torch
    import torch

    from ovs3d_ros.packed_codes import PackedCodes


@dataclass(frozen=True, slots=True)
class RefinedField:
    """Class distributions per Gaussian, refined for one vocabulary (docs/method.md, "Refinement").

    Attributes:
        names: the user's names.
        background: generic nouns that compete with the names. The vocabulary is names, then background: V.
        texts: [V, D] unit text features.
        temperature: softmax temperature that turns lifted cosines into a distribution.
        probabilities: [N, V]; a row of zeros for a Gaussian that was inserted after the refinement.
        summary: figures of the refinement.
    """

    names: tuple[str, ...]
    background: tuple[str, ...]
    texts: torch.Tensor
    temperature: float
    probabilities: torch.Tensor
    summary: dict = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RefineStep:
    """Progress of a refinement.

    Attributes:
        stage: "sharpening", "aligning", "encoding" and "training" (if it is asked for), "checking" or "done".
        step: steps taken of this stage.
        total: steps this stage takes.
        message: when done, the outcome in one line.
        kept: when done, whether the refined field takes effect.
        figures: when done, the figures of the check; while training, the losses of the step.
    """

    stage: str
    step: int
    total: int
    message: str = ""
    kept: bool = False
    figures: dict = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class MapFrame:
    """Where a map keeps its Gaussians, see `map_frame`.

    Attributes:
        origin: [3] float64, in the world.
        unit: metres in one unit of the world.
    """

    origin: np.ndarray = field(default_factory=lambda: np.zeros(3))
    unit: float = 1.0


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What a map needs besides its Gaussians to be trained on as if it had never been closed.

    Attributes:
        keyframes: in the map frame.
        visits: [F] optimisation steps on each.
        median_depths: [F] of the scene in each, in the map frame.
        exposures: [F, 2, 3] log gain and offset of each.
        owners: [N] 1 + index of the keyframe that spawned a Gaussian, 0: none.
    """

    keyframes: Sequence[Keyframe]
    visits: list[int]
    median_depths: list[float]
    exposures: torch.Tensor
    owners: torch.Tensor


class ParkedRows(Protocol):
    """Stands for the same rows in all snapshots that have it."""

    @property
    def count(self) -> int:
        """Of the rows."""
        ...


@dataclass(frozen=True, eq=False)  # without slots, so that what is remembered of it need not keep it alive
class MapSnapshot:
    """An immutable copy of the map. Queries and renders read nothing else.

    Attributes:
        version: grows with every publication.
        gaussians: detached copies of the parameters: means [N, 3] in the map frame (see `map_frame`), quats
            [N, 4] wxyz, scales [N, 3] metres, opacities [N] in 0..1, sh [N, K, 3].
        packed_codes: [N] code of each Gaussian's unit feature, blended over levels; zero if not lifted.
        packed_levels: [N, S] the same per pyramid level, before blending.
        weight: [N] blending weight that went into each Gaussian's code, in pixels.
        views: [N] number of keyframes that saw the Gaussian.
        selection: [N, S] scale-selection logits.
        codec: the `FeatureCodec` of the codes.
        camtoworlds: [F, 4, 4] keyframe poses in the world.
        stamps: [F] keyframe stamps in seconds.
        cameras: the keyframes' cameras.
        names: the keyframes' names.
        meta: encoder names, world frame and statistics that go into the map file's header.
        refined: the refined field, if the map has one.
        frame: the map frame.
        training: what a map file holds with `map.keep_keyframes`; None for all other snapshots.
        parked: what the first rows are, part by part. Whoever changes rows, or their order, empties it.
    """

    version: int
    gaussians: dict[str, torch.Tensor]
    packed_codes: PackedCodes
    packed_levels: PackedCodes
    weight: torch.Tensor
    views: torch.Tensor
    selection: torch.Tensor
    codec: object | None
    camtoworlds: np.ndarray
    stamps: np.ndarray
    cameras: list[Camera]
    names: list[str]
    meta: dict = field(default_factory=dict)
    refined: RefinedField | None = None
    frame: MapFrame = MapFrame()
    training: TrainingState | None = None
    parked: Sequence[ParkedRows] = ()

    @property
    def num_gaussians(self) -> int:
        return int(self.gaussians["means"].shape[0])

    @property
    def codes(self) -> torch.Tensor:
        """[N, d + 1] the packed codes in single precision, made anew at each call."""
        return self.packed_codes.unpack()

    def directions(self, texts: torch.Tensor) -> torch.Tensor:
        """[d + 1, P] whose product with `codes` is the cosine with texts [P, D]; the map needs features."""
        assert self.codec is not None, "the map has no language features"
        return self.codec.directions(texts)
