"""The refined field: class distributions per Gaussian for one vocabulary (docs/method.md, "Refinement")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from ovs3d_ros.config import RefineConfig
from ovs3d_ros.packed_codes import PackedCodes
from ovs3d_ros.rasterize import Rasterizer, Splats, Views
from ovs3d_ros.semantics.codec import FeatureCodec
from ovs3d_ros.semantics.names import distinct_names, unify_spelling
from ovs3d_ros.types import Camera, MapSnapshot, RefinedField, UserError

SURFACE_ALPHA = 0.5  # a pixel with more alpha shows the map


def lifted_cosines(codes: torch.Tensor, codec: FeatureCodec, texts: torch.Tensor) -> torch.Tensor:
    """Cosines [N, V] of codes [N, d + 1] with texts [V, D]; the others' mean for Gaussians without a code."""
    cosines, known = codes @ codec.directions(texts), codes[:, -1] != 0
    return torch.where(known[:, None], cosines, cosines[known].mean(0)) if bool(known.any()) else cosines


def class_distribution(cosines: torch.Tensor, temperature: float) -> torch.Tensor:
    """Class distributions [..., V]: softmax of cosines [..., V] over the temperature."""
    return (cosines / temperature).softmax(-1)


def make_lifted_field(
    names: list[str],
    config: RefineConfig,
    encode_text: Callable[[list[str]], torch.Tensor],
    snapshot: MapSnapshot,
) -> RefinedField:
    """Makes the field of a map before refinement: the class distributions of the lifted cosines.

    Args:
        names: the user's names, distinct; background words among them are not repeated.
        config: background words and temperature.
        encode_text: returns unit features [P, D] of texts.
        snapshot: the map.

    Raises:
        UserError: nothing was lifted, or there is only one name and no background.
    """
    background = distinct_names([*names, *config.background])[len(names) :]
    if len(names) + len(background) < 2:
        raise UserError("one name cannot be refined alone: give at least two names, or set refine.background")
    if not bool(snapshot.packed_codes.known.any()):
        raise UserError("the map holds no language features yet: feed it posed frames first")
    texts = encode_text(names + background).to(snapshot.weight.device)
    lifted = class_distribution(lifted_cosines(snapshot.codes, snapshot.codec, texts), config.temperature)
    return RefinedField(tuple(names), tuple(background), texts, config.temperature, lifted)


def fill_missing_rows(field: RefinedField, codes: PackedCodes, codec: FeatureCodec) -> RefinedField:
    """Fills zero rows (Gaussians added since the refinement) with lifted class distributions."""
    new = field.probabilities.sum(-1) == 0
    if not bool(new.any()):
        return field
    probabilities = field.probabilities.clone()
    cosines = lifted_cosines(codes[new].unpack(), codec, field.texts)
    probabilities[new] = class_distribution(cosines, field.temperature)
    return replace(field, probabilities=probabilities)


def vocabulary_indices(field: RefinedField | None, prompts: Sequence[str], mode: str) -> np.ndarray:
    """Index [P] of each prompt in the field's names, in any letter case; -1: the lifted codes answer for it.

    Refined probabilities and lifted cosines do not share a scale. In mode "argmax", where prompts compete,
    the lifted codes therefore answer for all prompts unless the field holds every one.
    """
    names = field.names if field is not None else ()
    spelled = unify_spelling([*names, *prompts])[len(names) :]
    columns = np.array([names.index(prompt) if prompt in names else -1 for prompt in spelled], np.int64)
    return np.full_like(columns, -1) if mode == "argmax" and (columns < 0).any() else columns


def merge_refined_scores(
    probabilities: torch.Tensor,
    columns: np.ndarray,
    cosines: torch.Tensor,
    scores: torch.Tensor,
    threshold: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replaces the lifted scores of refined prompts by those of the refined field.

    The relevancy of a refined prompt is o p / (o p + rival) with o = threshold / (1 - threshold), so that a
    draw with the rival lies at the threshold. The rival is the best other name, or half of all others
    together if that is more (docs/method.md, "Relevancy and labels").

    Args:
        probabilities: [..., V] of Gaussians, or blended at pixels.
        columns: [P] column of each prompt, see `vocabulary_indices`.
        cosines: [..., P] of the prompts with the lifted codes.
        scores: [..., P] relevancy of the lifted codes; where it is 0, nothing is known and the result is 0.
        threshold: relevancy from which a Gaussian takes a label, 0..1.

    Returns:
        Ranking [..., P] for the argmax over prompts, and relevancy [..., P] in 0..1. Prompts outside the
        vocabulary keep their lifted values.
    """
    ranking, relevancy = cosines.clone(), scores.clone()
    top, index = probabilities.topk(2, dim=-1)
    draw_odds = max(threshold, 1e-3) / max(1 - threshold, 1e-3)
    for prompt, column in enumerate(columns):
        if column >= 0:
            own = probabilities[..., column]
            rival = torch.where(index[..., 0] == column, top[..., 1], top[..., 0])
            # Where no name fits, all probabilities are alike; this rival keeps the prompt below threshold.
            rival = torch.maximum(rival, (probabilities.sum(-1) - own) / 2)
            ranking[..., prompt] = own
            weighted = draw_odds * own
            relevancy[..., prompt] = (
                weighted / (weighted + rival).clamp_min(1e-12) * (scores[..., prompt] > 0)
            )
    return ranking, relevancy


@torch.no_grad()
def render_channels(
    gaussians: dict[str, torch.Tensor],
    channels: torch.Tensor,
    camera: Camera,
    camtoworld: np.ndarray,
    rasterizer: Rasterizer,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Renders channels [N, C] of activated Gaussians, without gradients.

    Returns blended channels [H, W, C] and alpha [H, W, 1].
    """
    views = Views.from_camera(camera, camtoworld, channels.device)
    out, alphas, _ = rasterizer(Splats.from_dict(gaussians), channels.contiguous(), views)
    return out[0], alphas[0]
