"""The values that travel between modules: cameras, frames, keyframes, snapshots, queries and their results.

Everything here is plain data. Functions elsewhere hold the maths; `semantic_map.SemanticMap` holds the state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # annotations only: reading datasets and messages needs no torch
    import torch

    from ovs3d_ros.packed_codes import PackedCodes


class UserError(ValueError):
    """Bad input. The message is one line that names what is wrong and says what to do about it."""


@dataclass(frozen=True, slots=True)
class Camera:
    """An undistorted pinhole camera.

    Attributes:
        K: [3, 3] float64 intrinsics in pixels; pixel centres lie at +0.5.
        width: image width in pixels.
        height: image height in pixels.
    """

    K: np.ndarray
    width: int
    height: int

    def scaled(self, width: int, height: int) -> Camera:
        """The same camera at another resolution (exact because pixel centres lie at +0.5)."""
        factors = np.array([width / self.width, height / self.height, 1.0])
        return Camera(self.K * factors[:, None], width, height)

    def fitted(self, max_side: int) -> Camera:
        """The same camera with its longer side at most `max_side` pixels (0: unchanged)."""
        factor = max_side / max(self.width, self.height) if max_side else 1.0
        if factor >= 1.0:
            return self
        return self.scaled(max(1, round(self.width * factor)), max(1, round(self.height * factor)))


@dataclass(frozen=True, slots=True)
class Annotation:
    """The pixels of one name in a frame; the masks of different names may overlap.

    Attributes:
        mask: [H, W] bool, the pixels of the named things.
        boxes: [H, W] bool, the pixels inside one of their bounding boxes.
    """

    mask: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True, slots=True)
class Frame:
    """One posed camera image, as read from a dataset or a robot.

    Attributes:
        stamp: seconds.
        image: [H, W, 3] uint8 RGB.
        camera: intrinsics of that image.
        camtoworld: [4, 4] float64, OpenCV camera axes, metres (else see `map.unit`).
        depth: [H, W] float32 z in the unit of `camtoworld`, 0 = none; or None.
        labels: [H, W] integer class index, 0 = unlabelled; or None. Never used for mapping.
        name: used in messages and file names.
        sensor: name of the camera, where there are several. Keyframes are chosen for each camera on its own.
        annotations: the annotated names of this frame; or None. Never used for mapping.
        mask: [H, W] bool, false at pixels that do not show the scene and take no part (people); or None.
    """

    stamp: float
    image: np.ndarray
    camera: Camera
    camtoworld: np.ndarray
    depth: np.ndarray | None = None
    labels: np.ndarray | None = None
    name: str = ""
    sensor: str = ""
    annotations: dict[str, Annotation] | None = None
    mask: np.ndarray | None = None


@dataclass(slots=True)
class CropTable:
    """CLIP embeddings of the crops of one image, or of the cells of a dense feature map.

    The table is about a thousand times smaller than the per-pixel features it replaces.

    Attributes:
        boxes: [M, 4] float32 left, top, right, bottom, as fractions of the image's width and height.
        levels: [M] int64 index of the pyramid level.
        embeddings: [M, D] float32, as the encoder gave them (not normalised).
        num_levels: number of pyramid levels.
        grid: (rows, columns) if the crops are the cells of one dense feature map in row-major order, else
            None. A dense map is interpolated between cell centres; crops are averaged over their pixels.
    """

    boxes: torch.Tensor
    levels: torch.Tensor
    embeddings: torch.Tensor
    num_levels: int
    grid: tuple[int, int] | None = None


@dataclass(slots=True)
class Keyframe:
    """A frame the map is trained on, at the mapping resolution.

    Attributes:
        index: running number.
        stamp: seconds.
        name: the frame's name.
        image: [H, W, 3] uint8 RGB: a quarter of the memory of float32, as keyframes are never deleted.
        camera: intrinsics of `image`.
        camtoworld: [4, 4] float64.
        depth: [H, W] float32 in the unit of `camtoworld`, 0 = none; or None.
        crops: CLIP crop table; None before the keyframe is encoded.
        sensor: name of the frame's camera.
        mask: [H, W] bool, false for pixels that take no part; None: all do.
    """

    index: int
    stamp: float
    name: str
    image: torch.Tensor
    camera: Camera
    camtoworld: np.ndarray
    depth: torch.Tensor | None = None
    crops: CropTable | None = None
    sensor: str = ""
    mask: torch.Tensor | None = None

    @property
    def rgb(self) -> torch.Tensor:
        """[H, W, 3] float32 RGB in 0..1."""
        return self.image.float() / 255


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
        stage: "sharpening", "aligning", "checking" or "done".
        step: steps taken of this stage.
        total: steps this stage takes.
        message: when done, the outcome in one line.
        kept: when done, whether the refined field takes effect.
        figures: when done, the figures of the check.
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


@dataclass(frozen=True, slots=True)
class SemanticObject:
    """One instance of a queried name.

    Attributes:
        prompt: the name.
        label: 1-based index of the prompt in the query.
        instance: 1-based number within the answer.
        score: mean relevancy of its Gaussians, 0..1.
        center: [3] world frame, in the unit of its poses.
        quat: [4] wxyz, orientation of the box.
        size: [3] in that unit, full extents of the oriented box.
        num_gaussians: number of Gaussians in the instance.
        views: number of keyframes that saw it.
    """

    prompt: str
    label: int
    instance: int
    score: float
    center: np.ndarray
    quat: np.ndarray
    size: np.ndarray
    num_gaussians: int
    views: int


@dataclass(frozen=True, slots=True)
class Query:
    """A text query whose parts were checked, see `query.request.make_query`.

    Attributes:
        prompts: the P names to find.
        negatives: names the prompts compete against.
        own_negatives: the user named the negatives. Lifted codes then answer: a refined field holds others.
        mode: "relevancy" decides each prompt against the negatives; "argmax" gives every Gaussian the best
            prompt (3D-OVS).
        threshold: relevancy from which a Gaussian or a pixel carries a label, 0..1.
        max_instances: per prompt, 0 = all.
        roi: [2, 3] two opposite corners of a box in the world; nothing outside is labelled. None: no limit.
        refine: the map is refined for these prompts first.
    """

    prompts: tuple[str, ...]
    negatives: tuple[str, ...]
    own_negatives: bool
    mode: str
    threshold: float
    max_instances: int
    roi: np.ndarray | None
    refine: bool


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The answer to a text query, per prompt and per Gaussian.

    Attributes:
        query: the question, with its P prompts.
        map_version: version of the snapshot that answered.
        found: [P] bool, the presence decision.
        presence: [P] float, calibrated probability that the thing is in the map.
        verdicts: [P] "yes" (found), "unsure" or "no".
        observed: share of the horizon round the keyframes that the map shows, 0..1. Well below 1, a thing
            that was not found may stand where no camera has looked.
        score: [P] float, the peak relevancy.
        evidence: [P, E] all the evidence of presence, see `presence.Evidence`.
        relevancy: [N, P] float32 per Gaussian, 0..1.
        labels: [N] int64, 0 = none, else 1 + prompt index.
        instances: [N] int64, 0 = none, else `SemanticObject.instance`.
        objects: the instances.
        field: the refined field that decided for some of the prompts; None: the lifted codes decided for all.
        latency_ms: time to answer in milliseconds, text encoding included.
    """

    query: Query
    map_version: int
    found: np.ndarray
    presence: np.ndarray
    score: np.ndarray
    evidence: np.ndarray
    relevancy: torch.Tensor
    labels: torch.Tensor
    instances: torch.Tensor
    objects: list[SemanticObject]
    verdicts: list[str]
    observed: float
    field: RefinedField | None = None
    latency_ms: float = 0.0

    @property
    def prompts(self) -> tuple[str, ...]:
        """The P prompts of the query."""
        return self.query.prompts
