"""Refinement of class distributions for one vocabulary (docs/method.md, "Refinement").

1. Sharpening: an image encoder's cell sees its surroundings, so a mug's feature is half table. What a blur would take
   from the rendered cosines is added to them (van Cittert's first steps of deconvolution), and small things come out.
2. Alignment: class distributions follow affinities between Gaussians, see `affinity`.
3. The check: on views kept aside, the objective of 3D-OVS, RDA against the view's own relevancy plus FDA over its DINO
   patches, must have fallen. DINO takes no part in 1 and 2, so it is a witness of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from ovs3d_ros.config import Config, RefineConfig
from ovs3d_ros.encoders import ImageTextEncoder, PatchEncoder, make_dino
from ovs3d_ros.mapping.gaussians import Gaussians
from ovs3d_ros.rasterize import Rasterizer, Splats, Views
from ovs3d_ros.rasterize.spherical_harmonics import base_colors
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.semantics.affinity import align_distributions, compute_affinities
from ovs3d_ros.semantics.class_field import (
    SURFACE_ALPHA,
    class_distribution,
    fill_missing_rows,
    lifted_cosines,
    make_lifted_field,
)
from ovs3d_ros.semantics.codec import FeatureCodec
from ovs3d_ros.semantics.refinement_check import (
    alignment_objective,
    encode_check_views,
)
from ovs3d_ros.types import Frame, MapSnapshot, RefinedField, RefineStep

_LEAST_WEIGHT = 0.5  # pixels: what was lost to blur is known where this much was lifted
_REFINED, _ROW = (
    "refined",
    "refined_row",
)  # statistics: refined distributions; 1 + row when a refinement began


def refine_names(
    names: list[str],
    snapshot: MapSnapshot,
    rasterizer: Rasterizer,
    config: RefineConfig,
    encode_text: Callable[[list[str]], torch.Tensor],
    frames: Sequence[Frame] = (),
    encoders: tuple[ImageTextEncoder, PatchEncoder | None] | None = None,
) -> Iterator[RefineStep]:
    """Refines a map for names and checks the result; yields its progress.

    Args:
        names: what to tell apart.
        snapshot: the map.
        rasterizer: of its Gaussians.
        config: what to do how much.
        encode_text: gives unit features [P, D] of texts.
        frames: to check at; none: no check.
        encoders: CLIP and DINO, for the check.

    Returns:
        As a generator does: the refined field, or None where the check says that it is no better.

    Raises:
        UserError: nothing was lifted, or there is but one name and no background.
    """
    field = make_lifted_field(names, config, encode_text, snapshot)
    refined = yield from refine_field(field, snapshot, rasterizer, config)
    changed = f"{refined.summary['labels_changed']:.0%} of the Gaussians changed their label"
    if not frames:
        yield RefineStep(
            "done", 1, 1, f"{changed}; not checked, for no images were given", True, refined.summary
        )
        return refined
    views = yield from encode_check_views(frames, field, snapshot.codec, encoders, config)
    before, after = (
        alignment_objective(f, snapshot.gaussians, views, rasterizer, config) for f in (field, refined)
    )
    better = after["objective"] < before["objective"]
    said = (
        f"on {len(views)} views the objective went from {before['objective']:.4f} to {after['objective']:.4f}"
    )
    summary = refined.summary | dict(before=before, after=after, checked=len(views))
    message = f"{said}; {changed}" if better else f"{said}, no better: nothing was changed"
    yield RefineStep("done", 1, 1, message, better, summary)
    return replace(refined, summary=summary) if better else None


def refine_field(
    field: RefinedField, snapshot: MapSnapshot, rasterizer: Rasterizer, config: RefineConfig
) -> Iterator[RefineStep]:
    """Refines a field; yields its progress and returns (as a generator does) the refined field, not checked yet.

    Args:
        field: see `field.make_lifted_field`.
        snapshot: the map; the poses of its keyframes are those the cosines are sharpened from.
        rasterizer: renders and lifts cosines.
        config: what to do how much.
    """
    cosines = lifted_cosines(snapshot.codes, snapshot.codec, field.texts)
    chosen = evenly_spaced_indices(len(snapshot.cameras), config.views)
    total = config.sharpen_steps * len(chosen)
    yield RefineStep("sharpening", 0, total)
    for turn in range(config.sharpen_steps):
        lost, weight = torch.zeros_like(cosines), cosines.new_zeros(len(cosines))
        for done, index in enumerate(chosen, start=turn * len(chosen) + 1):
            for sum_, part in zip(
                (lost, weight), _lost_to_blur(cosines, snapshot, index, rasterizer, config), strict=True
            ):
                sum_ += part
            yield RefineStep("sharpening", done, total)
        cosines = (
            cosines + lost / weight.clamp_min(_LEAST_WEIGHT)[:, None] * (weight > _LEAST_WEIGHT)[:, None]
        )
    yield RefineStep("aligning", 0, 1)
    prior = class_distribution(cosines, field.temperature)
    if config.strength > 0:
        affinity = compute_affinities(
            snapshot.gaussians["means"], base_colors(snapshot.gaussians["sh"]), config
        )
        prior = align_distributions(prior, snapshot.weight, affinity, config.strength)
    changed = float((prior.argmax(-1) != field.probabilities.argmax(-1)).float().mean())
    yield RefineStep("aligning", 1, 1)
    return replace(field, probabilities=prior, summary=dict(labels_changed=changed, views=len(chosen)))


def _lost_to_blur(
    cosines: torch.Tensor, snapshot: MapSnapshot, index: int, rasterizer: Rasterizer, config: RefineConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a blur takes from the rendered cosines of keyframe `index`, lifted: sums [N, V] and their weights [N]."""
    splats, camera = Splats.from_dict(snapshot.gaussians), snapshot.cameras[index].fitted(config.image_size)
    views = Views.from_camera(camera, snapshot.camtoworlds[index], cosines.device)
    with torch.no_grad():
        out, alphas, _ = rasterizer(splats, cosines.contiguous(), views)
        shown = out[0] / alphas[0].clamp_min(SURFACE_ALPHA)
        lost = shown - _blurred(shown, config.sharpen_radius * max(camera.width, camera.height))
        numerator, weight, _ = rasterizer.lift(splats, lost[None].contiguous(), views)
    return numerator, weight


def _blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """[H, W, C] through a Gaussian of `sigma` pixels, borders repeated."""
    radius = max(1, min(round(3 * sigma), min(image.shape[:2]) - 1))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=image.device) / max(sigma, 1e-3)) ** 2)
    taps = (taps / taps.sum())[None, None]
    x = image.permute(2, 0, 1)[:, None]  # [C, 1, H, W]
    x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="replicate"), taps[:, :, None])
    x = F.conv2d(F.pad(x, (0, 0, radius, radius), mode="replicate"), taps[..., None])
    return x[:, 0].permute(1, 2, 0)


class Refinement:
    """The refined field of a growing map: its distributions are statistics of the Gaussians, which come and go.

    Attributes:
        field: names, background and texts of the field; None before the first refinement.
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
        """Loads the model of the check, which `run` does otherwise; a UserError if it is missing."""
        if self._dino is None:
            self._dino = make_dino(self._config.dino, self._device)

    def run(
        self, names: list[str], snapshot: MapSnapshot, gaussians: Gaussians, frames: Sequence[Frame]
    ) -> Iterator[RefineStep]:
        """Refines as `refine_names` does; returns the field for the Gaussians there are at the end, or None."""
        if frames:
            self.prepare()
        gaussians.stats[_ROW] = torch.arange(1, len(gaussians) + 1, device=gaussians.device)
        try:
            refined = yield from refine_names(
                list(dict.fromkeys(names)),
                snapshot,
                self._rasterizer,
                self._config.refine,
                self._encode_text,
                frames,
                (self._clip, self._dino),
            )
        finally:
            rows = gaussians.stats.pop(_ROW)
        if refined is None:
            return None
        return replace(
            refined, probabilities=F.pad(refined.probabilities, (0, 0, 1, 0))[rows]
        )  # newer rows: zeros

    def refine_for_query(self, prompts: Sequence[str], snapshot: MapSnapshot) -> RefinedField:
        """The snapshot's refined field, or one made for these prompts beside the names of that."""
        held = snapshot.refined.names if snapshot.refined is not None else ()
        if set(prompts) <= set(held):
            return snapshot.refined
        steps = refine_names(
            list(dict.fromkeys([*prompts, *held])),
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

    def set_field(self, field: RefinedField, gaussians: Gaussians) -> None:
        """Makes a field that of the map."""
        gaussians.stats[_REFINED] = field.probabilities.to(gaussians.device)
        self.field = replace(
            field, texts=field.texts.to(gaussians.device), probabilities=field.probabilities[:0]
        )

    def snapshot_field(
        self, gaussians: Gaussians, codes: torch.Tensor, codec: FeatureCodec | None
    ) -> RefinedField | None:
        """The field as it is now, for a snapshot of fused codes [N, d + 1]."""
        if self.field is None or codec is None:
            return None
        return fill_missing_rows(
            replace(self.field, probabilities=gaussians.stats[_REFINED].clone()), codes, codec
        )
