"""The refined field: class distributions per Gaussian for one vocabulary (docs/method.md, "Refinement")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from ovs3d_ros.config import RefineConfig
from ovs3d_ros.rasterize import Rasterizer, Splats, Views
from ovs3d_ros.semantics.codec import FeatureCodec
from ovs3d_ros.types import Camera, MapSnapshot, RefinedField, UserError

SURFACE_ALPHA = 0.5  # a pixel shows the map, not the void behind it, above this alpha


def lifted_cosines(codes: torch.Tensor, codec: FeatureCodec, texts: torch.Tensor) -> torch.Tensor:
    """Cosines [N, V] of codes [N, d + 1] with texts [V, D]; where nothing was lifted, the mean of the others."""
    cosines, known = codes @ codec.directions(texts), codes[:, -1] != 0
    return torch.where(known[:, None], cosines, cosines[known].mean(0)) if bool(known.any()) else cosines


def class_distribution(cosines: torch.Tensor, temperature: float) -> torch.Tensor:
    """Class distributions [..., V] of cosines [..., V]."""
    return (cosines / temperature).softmax(-1)


def make_lifted_field(
    names: list[str],
    config: RefineConfig,
    encode_text: Callable[[list[str]], torch.Tensor],
    snapshot: MapSnapshot,
) -> RefinedField:
    """The field of a map before refinement: the distributions of the lifted cosines.

    Args:
        names: the user's; background words that are among them are left out.
        config: background and temperature.
        encode_text: gives unit features [P, D] of texts.
        snapshot: the map.

    Raises:
        UserError: nothing was lifted, or there is but one name and no background.
    """
    background = [word for word in dict.fromkeys(config.background) if word not in names]
    if len(names) + len(background) < 2:
        raise UserError("refinement tells names apart: give two at least, or set refine.background")
    if not bool((snapshot.codes[:, -1] != 0).any()):
        raise UserError("nothing was lifted into the map yet: feed it posed frames first")
    texts = encode_text(names + background).to(snapshot.codes.device)
    lifted = class_distribution(lifted_cosines(snapshot.codes, snapshot.codec, texts), config.temperature)
    return RefinedField(tuple(names), tuple(background), texts, config.temperature, lifted)


def fill_missing_rows(field: RefinedField, codes: torch.Tensor, codec: FeatureCodec) -> RefinedField:
    """The field with the lifted distribution for Gaussians that came after the refinement: rows that are all zero."""
    new = field.probabilities.sum(-1) == 0
    if not bool(new.any()):
        return field
    lifted = class_distribution(lifted_cosines(codes, codec, field.texts), field.temperature)
    return replace(field, probabilities=torch.where(new[:, None], lifted, field.probabilities))


def vocabulary_indices(field: RefinedField | None, prompts: Sequence[str], mode: str) -> np.ndarray:
    """Index [P] of each prompt in the field's names; -1: the lifted codes answer.

    Refined names compete among themselves and with the field's background. In mode "argmax" the lifted codes answer for
    all prompts unless the field holds every one: the two scales do not compare.
    """
    names = field.names if field is not None else ()
    columns = np.array([names.index(prompt) if prompt in names else -1 for prompt in prompts], np.int64)
    return np.full_like(columns, -1) if mode == "argmax" and (columns < 0).any() else columns


def merge_refined_scores(
    probabilities: torch.Tensor,
    columns: np.ndarray,
    cosines: torch.Tensor,
    scores: torch.Tensor,
    threshold: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Puts refined names over the lifted answer.

    Args:
        probabilities: [..., V] of Gaussians, or blended at pixels.
        columns: [P] see `vocabulary_indices`.
        cosines: [..., P] with the lifted codes.
        scores: [..., P] their relevancy; 0 where nothing is known, and there it stays 0.
        threshold: relevancy from which a label is given: what a refined name has where it draws with its best rival.

    Returns:
        Ranking [..., P] for the argmax over prompts, and relevancy [..., P] in 0..1: p / (p + rival), moved by the
        logit of the threshold; the rival is the best other name, or half of all others together. Names outside the
        vocabulary keep the lifted ones.
    """
    ranking, relevancy = cosines.clone(), scores.clone()
    top, index = probabilities.topk(2, dim=-1)
    odds_of_draw = max(threshold, 1e-3) / max(1 - threshold, 1e-3)
    for prompt, column in enumerate(columns):
        if column >= 0:
            own = probabilities[..., column]
            rival = torch.where(index[..., 0] == column, top[..., 1], top[..., 0])
            # Where nothing of the vocabulary fits all names draw: then it takes more than to be one of many.
            rival = torch.maximum(rival, (probabilities.sum(-1) - own) / 2)
            ranking[..., prompt] = own
            favour = odds_of_draw * own
            relevancy[..., prompt] = favour / (favour + rival).clamp_min(1e-12) * (scores[..., prompt] > 0)
    return ranking, relevancy


@torch.no_grad()
def render_channels(
    gaussians: dict[str, torch.Tensor],
    channels: torch.Tensor,
    camera: Camera,
    camtoworld: np.ndarray,
    rasterizer: Rasterizer,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blended channels [H, W, C] of activated Gaussians' [N, C], and alpha [H, W, 1], without gradients."""
    views = Views.from_camera(camera, camtoworld, channels.device)
    out, alphas, _ = rasterizer(Splats.from_dict(gaussians), channels.contiguous(), views)
    return out[0], alphas[0]
