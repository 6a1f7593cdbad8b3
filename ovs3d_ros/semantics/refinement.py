"""Refinement of class distributions for one vocabulary (docs/method.md, "Refinement").

1. Sharpening: a crop or cell of an image encoder sees its surroundings, so the feature of a mug is half
   table. This step adds the part of the rendered cosines that a blur would remove: the first steps of van
   Cittert deconvolution.
2. Alignment: class distributions follow the affinities between Gaussians, see `affinity`.
3. Adaptation: the names' look in this map is learned from the aligned distributions, see `scene_classifier`;
   neighbours are aligned once more, weakly.
4. Training, if `refine.train_steps` says so: gradient descent on RDA and FDA at keyframes, see `training`.
5. Check: on views kept aside, the objective of 3D-OVS must fall. It is RDA against the view's own relevancy
   plus FDA over the view's DINO patches. DINO takes no part in steps 1 to 3, and training sees other views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from ovs3d_ros.config import Config, RefineConfig
from ovs3d_ros.encoders import ImageTextEncoder, PatchEncoder, make_dino
from ovs3d_ros.map_frame import poses_to_map
from ovs3d_ros.mapping.blocks import Blocks
from ovs3d_ros.mapping.keyframe_store import Keyframes
from ovs3d_ros.packed_codes import PackedCodes
from ovs3d_ros.rasterize import Rasterizer, Splats, Views
from ovs3d_ros.rasterize.spherical_harmonics import base_colors
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.semantics.affinity import align_distributions, compute_affinities, relative_mass
from ovs3d_ros.semantics.class_field import (
    SURFACE_ALPHA,
    class_distribution,
    fill_missing_rows,
    lifted_cosines,
    make_lifted_field,
    vocabulary_indices,
)
from ovs3d_ros.semantics.codec import FeatureCodec
from ovs3d_ros.semantics.names import distinct_names
from ovs3d_ros.semantics.refinement_check import alignment_objective, encode_check_views
from ovs3d_ros.semantics.scene_classifier import adapt_distributions
from ovs3d_ros.semantics.surface_graph import make_surface_graph
from ovs3d_ros.semantics.training import choose_training_keyframes, train_field
from ovs3d_ros.types import Frame, Keyframe, MapSnapshot, RefinedField, RefineStep

_SECOND_STRENGTH = 0.1  # share of `refine.strength` in the alignment after adaptation, which starts nearer
_MIN_WEIGHT = 0.5  # pixels; Gaussians with less lifted weight are not sharpened
# Statistics of the Gaussians.
_PROBABILITIES = "refined"  # [N, V] class distributions of the refined field
_ROW = "refined_row"  # [N] 1 + row at the start of a refinement; 0 for Gaussians added since


def refine_names(
    names: list[str],
    snapshot: MapSnapshot,
    rasterizer: Rasterizer,
    config: RefineConfig,
    encode_text: Callable[[list[str]], torch.Tensor],
    frames: Sequence[Frame] = (),
    encoders: tuple[ImageTextEncoder, PatchEncoder | None] | None = None,
    keyframes: Sequence[Keyframe] = (),
) -> Iterator[RefineStep]:
    """Refines a map for names and checks the result. A generator that yields its progress.

    Args:
        names: the names to tell apart.
        snapshot: the map.
        rasterizer: renders the map's Gaussians.
        config: parameters of all three stages.
        encode_text: returns unit features [P, D] of texts.
        frames: views for the check; empty: no check.
        encoders: CLIP and DINO, for the check and for training.
        keyframes: to train on; empty: no training.

    Returns:
        The refined field, or None if the check finds it no better than the lifted one.

    Raises:
        UserError: nothing was lifted, or there is only one name and no background.
    """
    field = make_lifted_field(names, config, encode_text, snapshot)
    refined = yield from refine_field(field, snapshot, rasterizer, config)
    if keyframes:
        assert encoders is not None and encoders[1] is not None, "training needs DINO"
        refined = yield from train_field(refined, snapshot, keyframes, rasterizer, encoders[1], config)
    refined = replace(refined, summary=refined.summary | dict(labels_changed=_labels_changed(field, refined)))
    changed = f"{refined.summary['labels_changed']:.0%} of the Gaussians changed their label"
    if not frames:
        message = f"{changed}; not checked, because no images were given"
        yield RefineStep("done", 1, 1, message, True, refined.summary)
        return refined
    views = yield from encode_check_views(frames, field, snapshot.codec, encoders, config)
    before, after = (
        alignment_objective(f, snapshot.gaussians, views, rasterizer, config) for f in (field, refined)
    )
    better = after["objective"] < before["objective"]
    values = f"{before['objective']:.4f} to {after['objective']:.4f}"
    outcome = changed if better else "no better: the map keeps its old labels"
    message = f"the objective on {len(views)} views went from {values}; {outcome}"
    summary = refined.summary | dict(before=before, after=after, checked=len(views))
    yield RefineStep("done", 1, 1, message, better, summary)
    return replace(refined, summary=summary) if better else None


def refine_field(
    field: RefinedField, snapshot: MapSnapshot, rasterizer: Rasterizer, config: RefineConfig
) -> Iterator[RefineStep]:
    """Sharpens and aligns a field. A generator that yields its progress.

    Args:
        field: the lifted field, see `class_field.make_lifted_field`.
        snapshot: the map; cosines are sharpened at the poses of its keyframes.
        rasterizer: renders and lifts cosines.
        config: parameters of both stages.

    Returns:
        The refined field, not checked yet.
    """
    cosines = lifted_cosines(snapshot.codes, snapshot.codec, field.texts)
    keyframes = evenly_spaced_indices(len(snapshot.cameras), config.views)
    cosines = yield from _sharpen(cosines, keyframes, snapshot, rasterizer, config)
    probabilities = class_distribution(cosines, field.temperature)
    if config.strength > 0:
        probabilities = yield from _align(probabilities, cosines, snapshot, config)
    return replace(field, probabilities=probabilities, summary=dict(views=len(keyframes)))


def _labels_changed(before: RefinedField, after: RefinedField) -> float:
    """Share of the Gaussians whose best name changed."""
    return float((after.probabilities.argmax(-1) != before.probabilities.argmax(-1)).float().mean())


def _sharpen(
    cosines: torch.Tensor,
    keyframes: Sequence[int],
    snapshot: MapSnapshot,
    rasterizer: Rasterizer,
    config: RefineConfig,
) -> Iterator[RefineStep]:
    """Sharpens cosines [N, V] at keyframes; yields its progress and returns them."""
    total = config.sharpen_steps * len(keyframes)
    yield RefineStep("sharpening", 0, total)
    for step in range(config.sharpen_steps):
        residual, weight = torch.zeros_like(cosines), cosines.new_zeros(len(cosines))
        for done, index in enumerate(keyframes, start=step * len(keyframes) + 1):
            view_residual, view_weight = _lift_blur_residual(cosines, snapshot, index, rasterizer, config)
            residual += view_residual
            weight += view_weight
            yield RefineStep("sharpening", done, total)
        cosines = (
            cosines + residual / weight.clamp_min(_MIN_WEIGHT)[:, None] * (weight > _MIN_WEIGHT)[:, None]
        )
    return cosines


def _align(
    prior: torch.Tensor, cosines: torch.Tensor, snapshot: MapSnapshot, config: RefineConfig
) -> Iterator[RefineStep]:
    """Aligns class distributions [N, V] twice: before and after learning from them; yields its progress."""
    yield RefineStep("aligning", 0, 2)
    colors = base_colors(snapshot.gaussians["sh"])
    graph = make_surface_graph(snapshot.gaussians["means"], colors, config.neighbours)
    affinity = compute_affinities(graph, config).to(prior.device)
    aligned = align_distributions(prior, snapshot.weight, affinity, config.strength)
    yield RefineStep("aligning", 1, 2)
    if config.adaptation > 0:
        mass = relative_mass(snapshot.weight)
        features = torch.cat([cosines, graph.lab.to(cosines)], dim=1)
        adapted = adapt_distributions(aligned, features, mass, config.adaptation)
        strength = _SECOND_STRENGTH * config.strength
        aligned = align_distributions(adapted, snapshot.weight, affinity, strength)
    yield RefineStep("aligning", 2, 2)
    return aligned


def _lift_blur_residual(
    cosines: torch.Tensor, snapshot: MapSnapshot, index: int, rasterizer: Rasterizer, config: RefineConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lifts the part of keyframe `index`'s cosines that a blur removes: sums [N, V], weights [N]."""
    splats, camera = Splats.from_dict(snapshot.gaussians), snapshot.cameras[index].fitted(config.image_size)
    pose = poses_to_map(snapshot.camtoworlds[index], snapshot.frame)
    views = Views.from_camera(camera, pose, cosines.device)
    with torch.no_grad():
        out, alphas, _ = rasterizer(splats, cosines.contiguous(), views)
        rendered = out[0] / alphas[0].clamp_min(SURFACE_ALPHA)
        sigma = config.sharpen_radius * max(camera.width, camera.height)
        residual = rendered - _gaussian_blur(rendered, sigma)
        numerator, weight, _ = rasterizer.lift(splats, residual[None].contiguous(), views)
    return numerator, weight


def _gaussian_blur(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """An image [H, W, C] blurred by a Gaussian of `sigma` pixels, with repeated borders."""
    radius = max(1, min(round(3 * sigma), min(image.shape[:2]) - 1))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=image.device) / max(sigma, 1e-3)) ** 2)
    taps = (taps / taps.sum())[None, None]
    x = image.permute(2, 0, 1)[:, None]  # [C, 1, H, W]
    x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="replicate"), taps[:, :, None])
    x = F.conv2d(F.pad(x, (0, 0, radius, radius), mode="replicate"), taps[..., None])
    return x[:, 0].permute(1, 2, 0)


class Refinement:
    """The refined field of a map that grows.

    The class distributions are statistics of the Gaussians, so they follow insertion and removal.

    Attributes:
        field: names, background and text features, without distributions; None before the first refinement.
    """

    def __init__(
        self,
        config: Config,
        rasterizer: Rasterizer,
        clip: ImageTextEncoder | None,
        encode_text: Callable[[list[str]], torch.Tensor],
        device: str,
    ) -> None:
        self.field: RefinedField | None = None
        self._config, self._rasterizer, self._device = config, rasterizer, device
        self._clip, self._encode_text = clip, encode_text
        self._dino: PatchEncoder | None = None  # loaded by the first check

    def prepare(self) -> None:
        """Loads the DINO model of the check ahead of `run`.

        Raises:
            UserError: the model is missing.
        """
        if self._dino is None:
            self._dino = make_dino(self._config.dino, self._device)

    def run(
        self,
        names: list[str],
        snapshot: MapSnapshot,
        blocks: Blocks,
        frames: Sequence[Frame],
        keyframes: Keyframes,
    ) -> Iterator[RefineStep]:
        """Refines as `refine_names` does, while the map may gain and lose Gaussians.

        Returns:
            The field, one row per Gaussian at the end, zero for new ones; or None, see `refine_names`.

        Raises:
            UserError: as `refine_names`; or none of the keyframes is left to train on.
        """
        training: list[Keyframe] = []
        if self._config.refine.train_steps:
            training = choose_training_keyframes(keyframes, frames, self._config.refine.views)
        if frames or training:
            self.prepare()
        blocks.spread(_ROW, torch.arange(1, snapshot.num_gaussians + 1))
        try:
            refined = yield from refine_names(
                distinct_names(names),
                snapshot,
                self._rasterizer,
                self._config.refine,
                self._encode_text,
                frames,
                (self._clip, self._dino),
                training,
            )
        except GeneratorExit:
            self.discard(blocks)
            raise
        rows = blocks.gather(_ROW)[_ROW]
        self.discard(blocks)
        if refined is None:
            return None
        padded = F.pad(refined.probabilities, (0, 0, 1, 0))  # row 0: zeros, for new Gaussians
        return replace(refined, probabilities=padded[rows])

    def discard(self, blocks: Blocks) -> None:
        """Frees what a `run` that raised left in the statistics; the thread that owns the map calls it."""
        blocks.forget(_ROW)

    def refine_for_query(self, prompts: Sequence[str], snapshot: MapSnapshot) -> RefinedField:
        """The snapshot's refined field if it holds all prompts, else a new one that adds the prompts."""
        field = snapshot.refined
        if field is not None and (vocabulary_indices(field, prompts, "relevancy") >= 0).all():
            return field
        known = field.names if field is not None else ()
        steps = refine_names(
            distinct_names([*prompts, *known]),
            snapshot,
            self._rasterizer,
            self._config.refine,
            self._encode_text,
        )
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value

    def clear(self) -> None:
        """Forgets the field, for a new map."""
        self.field = None

    def set_field(self, field: RefinedField, blocks: Blocks) -> None:
        """Makes `field` the refined field of the map."""
        blocks.spread(_PROBABILITIES, field.probabilities)
        self.field = replace(field, texts=field.texts.to(self._device), probabilities=field.probabilities[:0])

    def snapshot_field(
        self, blocks: Blocks, codes: PackedCodes, codec: FeatureCodec | None
    ) -> RefinedField | None:
        """The current field for a snapshot with fused codes [N]; None without a refinement."""
        if self.field is None or codec is None:
            return None
        field = replace(self.field, probabilities=blocks.gather(_PROBABILITIES)[_PROBABILITIES].clone())
        return fill_missing_rows(field, codes, codec)
