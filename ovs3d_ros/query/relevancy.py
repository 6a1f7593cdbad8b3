"""Answers to text queries: which prompts may be asked, relevancy and labels. Pure functions on a snapshot's codes."""

from __future__ import annotations

import numpy as np
import torch

from ovs3d_ros.types import MapSnapshot, UserError

MAX_PROMPTS, MAX_PROMPT_LENGTH = 64, 256


def check_prompts(prompts: list[str], what: str = "prompt") -> list[str]:
    """Returns the prompts, or the negatives if that is `what` they are, on one line each and without needless blanks.

    Raises:
        UserError: none or too many prompts, or an empty or overlong one, or one that is no text.
    """
    if not prompts:
        raise UserError(f'no {what}: name at least one object, for example "red mug"')
    if len(prompts) > MAX_PROMPTS:
        raise UserError(f"{len(prompts)} {what}s: at most {MAX_PROMPTS} per query; split the list")
    stripped = [" ".join(p.split()) for p in prompts]
    for index, prompt in enumerate(stripped):
        if not prompt:
            raise UserError(f'{what} {index + 1} is empty: name an object, for example "red mug"')
        if len(prompt) > MAX_PROMPT_LENGTH:
            raise UserError(f"{what} {index + 1} has {len(prompt)} characters: at most {MAX_PROMPT_LENGTH}")
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(
                f"{what} {index + 1} is not valid UTF-8: set the terminal to UTF-8 and type it again"
            ) from None
    return stripped


def check_semantics(snapshot: MapSnapshot, encoder: str | None) -> None:
    """Raises UserError unless a map can be asked in words that the encoder of this name has read."""
    if snapshot.num_gaussians == 0 or snapshot.codec is None:
        raise UserError("the map holds no language features yet: feed it posed frames first")
    if encoder is None:
        raise UserError("no text encoder is loaded: create the pipeline with encode=True")
    if snapshot.meta["clip"] != encoder:
        raise UserError(
            f"the map was made with the encoder {snapshot.meta['clip']}, but {encoder} is loaded: set "
            "clip.model and clip.pretrained to match"
        )


def relevancy(positive: torch.Tensor, negative: torch.Tensor, temperature: float) -> torch.Tensor:
    """LERF relevancy: the smallest softmax over (prompt, negative) pairs (Kerr et al. 2023, §3.3).

    Args:
        positive: [..., P] cosines with the prompts.
        negative: [..., M] cosines with what they compete against.
        temperature: factor on the cosines.

    Returns:
        [..., P] in 0..1.
    """
    # min over negatives of softmax(t [pos, neg])_0 is the sigmoid against the largest negative.
    return (positive - negative.amax(-1, keepdim=True)).mul_(temperature).sigmoid_()


def assign_labels(scores: torch.Tensor, found: np.ndarray, threshold: float) -> torch.Tensor:
    """Labels [...] in 0..P of scores [..., P]: the best found prompt above the threshold, else 0."""
    labels = torch.zeros(scores.shape[:-1], dtype=torch.int64, device=scores.device)
    best = torch.full_like(scores[..., 0], threshold)
    best = best.nextafter(best - 1)  # the threshold itself is enough
    for p in np.flatnonzero(found):  # by prompt: rows of a million Gaussians
        labels.masked_fill_(scores[..., p] > best, int(p) + 1)
        torch.maximum(best, scores[..., p], out=best)
    return labels


def choose_labels(
    mode: str, scores: torch.Tensor, ranking: torch.Tensor, found: np.ndarray, threshold: float
) -> torch.Tensor:
    """Labels [...] in 1..P by the best of ranking [..., P] in mode "argmax", else those of `assign_labels`."""
    return ranking.argmax(-1) + 1 if mode == "argmax" else assign_labels(scores, found, threshold)


def restore_taken(
    labels: torch.Tensor,
    scores: torch.Tensor,
    found: np.ndarray,
    threshold: float,
    strongest: torch.Tensor,
    enough: int,
) -> torch.Tensor:
    """Gives found prompts that were left without Gaussians the strongest of their own back.

    A Gaussian carries one label, and beside a like thing ("yellow keyboard") a small one ("yellow phone") may lose all
    of its Gaussians. Found without a place is of no use to a robot.

    Args:
        labels: [N] of `assign_labels`.
        scores: [N, P] relevancy of the lifted codes, on which the presence decision rests.
        found: [P] the presence decision.
        threshold: relevancy above which a label is given.
        strongest: [P, K] Gaussians the presence decision rests on.
        enough: Gaussians that make an instance, and that another found prompt keeps.
    """
    labels = labels.clone()
    carried = torch.bincount(labels, minlength=len(found) + 1)
    for p in np.flatnonzero(found):
        if carried[p + 1] < enough:
            own = strongest[p][scores[strongest[p], p] >= threshold]
            for owner in (
                labels[own].unique().tolist()
            ):  # two words for one thing: the second must not empty the first
                held, spare = own[labels[own] == owner], int(carried[owner]) - enough
                labels[held if owner == 0 else held[: max(spare, 0)]] = int(p) + 1
            carried = torch.bincount(labels, minlength=len(found) + 1)
    return labels


def check_box(roi: np.ndarray | None) -> None:
    """Raises UserError unless a region of interest is two corners in metres, or None."""
    if roi is not None and (np.shape(roi) != (2, 3) or not np.isfinite(np.asarray(roi, np.float64)).all()):
        raise UserError(
            f"roi: give two corners in metres, [[x, y, z], [x, y, z]], not {np.asarray(roi).tolist()}"
        )


def inside(means: torch.Tensor, roi: np.ndarray | None) -> torch.Tensor:
    """Which of means [N, 3] lie in a box given by two corners [2, 3] in metres; all for None."""
    if roi is None:
        return torch.ones(len(means), dtype=torch.bool, device=means.device)
    low, high = torch.as_tensor(np.sort(np.asarray(roi, np.float32), axis=0), device=means.device)
    return ((means >= low) & (means <= high)).all(-1)
