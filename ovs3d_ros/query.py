"""Answers to text queries: relevancy, labels, instances, boxes. Pure functions on a snapshot's codes."""

from __future__ import annotations

import numpy as np
import torch

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.geometry import matrix_to_quat
from ovs3d_ros.types import MapSnapshot, SemanticObject, UserError

MAX_PROMPTS, MAX_PROMPT_LENGTH = 64, 256
_TURNS = np.radians(np.arange(0, 90, 5))
_ALIKE = 0.8  # ratio of standard deviations above which two principal axes may be anyone's


def check_prompts(prompts: list[str], what: str = "prompt") -> list[str]:
    """Returns the prompts, or the negatives if that is `what` they are, stripped of blanks.

    Raises:
        UserError: none or too many prompts, or an empty or overlong one.
    """
    if not prompts:
        raise UserError(f"no {what}: name at least one object, for example \"red mug\"")
    if len(prompts) > MAX_PROMPTS:
        raise UserError(f"{len(prompts)} {what}s: at most {MAX_PROMPTS} per query; split the list")
    stripped = [p.strip() for p in prompts]
    for index, prompt in enumerate(stripped):
        if not prompt:
            raise UserError(f"{what} {index + 1} is empty: name an object, for example \"red mug\"")
        if len(prompt) > MAX_PROMPT_LENGTH:
            raise UserError(f"{what} {index + 1} has {len(prompt)} characters: at most {MAX_PROMPT_LENGTH}")
    return stripped


def check_semantics(snapshot: MapSnapshot, encoder: str | None) -> None:
    """Raises UserError unless a map can be asked in words that the encoder of this name has read."""
    if snapshot.num_gaussians == 0 or snapshot.codec is None:
        raise UserError("the map holds no language features yet: feed it posed frames first")
    if encoder is None:
        raise UserError("no text encoder is loaded: create the pipeline with encode=True")
    if snapshot.meta["clip"] != encoder:
        raise UserError(f"the map was made with the encoder {snapshot.meta['clip']}, but {encoder} is loaded: set "
                        "clip.model and clip.pretrained to match")


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
    return torch.sigmoid(temperature * (positive - negative.amax(-1, keepdim=True)))


def assign_labels(scores: torch.Tensor, found: np.ndarray, threshold: float) -> torch.Tensor:
    """Labels [...] in 0..P of scores [..., P]: the best found prompt above the threshold, else 0."""
    allowed = torch.where(torch.as_tensor(found, device=scores.device), scores, torch.full_like(scores, -1.0))
    best, label = allowed.max(-1)
    return torch.where(best >= threshold, label + 1, torch.zeros_like(label))


def choose_labels(mode: str, scores: torch.Tensor, ranking: torch.Tensor, found: np.ndarray,
                  threshold: float) -> torch.Tensor:
    """Labels [...] in 1..P by the best of ranking [..., P] in mode "argmax", else those of `assign_labels`."""
    return ranking.argmax(-1) + 1 if mode == "argmax" else assign_labels(scores, found, threshold)


def restore_taken(labels: torch.Tensor, scores: torch.Tensor, found: np.ndarray, threshold: float,
                  strongest: torch.Tensor, enough: int) -> torch.Tensor:
    """Gives found prompts that were left without Gaussians the strongest of their own back.

    A Gaussian carries one label, and beside a like thing ("yellow keyboard") a small one ("yellow phone") may lose all
    of its Gaussians. Found without a place is of no use to a robot.

    Args:
        labels: [N] of `assign_labels`.
        scores: [N, P] relevancy.
        found: [P] the presence decision.
        threshold: relevancy above which a label is given.
        strongest: [P, K] Gaussians the presence decision rests on.
        enough: Gaussians that make an instance.
    """
    labels = labels.clone()
    for p in np.flatnonzero(found):
        if int((labels == p + 1).sum()) < enough:
            own = strongest[p]
            labels[own[scores[own, p] >= threshold]] = int(p) + 1
    return labels


def inside(means: torch.Tensor, roi: np.ndarray | None) -> torch.Tensor:
    """Which of means [N, 3] lie in a box given by two corners [2, 3] in metres; all for None."""
    if roi is None:
        return torch.ones(len(means), dtype=torch.bool, device=means.device)
    low, high = torch.as_tensor(np.sort(np.asarray(roi, np.float32), axis=0), device=means.device)
    return ((means >= low) & (means <= high)).all(-1)


def connected_components(points: np.ndarray, gap: float) -> np.ndarray:
    """Component number [N] of points [N, 3] joined when their voxels of side `gap` touch."""
    cells = np.floor(points / gap).astype(np.int64)
    cells -= cells.min(0) - 1
    span = cells.max(0) + 2
    keys = (cells[:, 0] * span[1] + cells[:, 1]) * span[2] + cells[:, 2]
    unique, inverse = np.unique(keys, return_inverse=True)
    offsets = [(x * span[1] + y) * span[2] + z for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]
    pairs = []
    for offset in (o for o in offsets if o > 0):
        position = np.searchsorted(unique, unique + offset).clip(max=len(unique) - 1)
        hit = unique[position] == unique + offset
        pairs.append(np.stack([hit.nonzero()[0], position[hit]]))
    a, b = np.concatenate(pairs, axis=1)
    label = np.arange(len(unique))
    while True:
        # Every voxel takes the smallest label of its neighbours, then of its label's label: O(log n) rounds.
        smallest = label.copy()
        np.minimum.at(smallest, a, label[b])
        np.minimum.at(smallest, b, label[a])
        smallest = smallest[smallest]
        if (smallest == label).all():
            return np.unique(label, return_inverse=True)[1].reshape(-1)[inverse.reshape(-1)]
        label = smallest


def find_objects(means: np.ndarray, labels: np.ndarray, scores: np.ndarray, views: np.ndarray, prompts: list[str],
                 config: QueryConfig, max_instances: int) -> tuple[list[SemanticObject], np.ndarray]:
    """Groups labelled Gaussians into instances with oriented boxes, best first.

    Args:
        means: [N, 3] metres.
        labels: [N] 0 = none, else 1 + prompt index.
        scores: [N, P] relevancy.
        views: [N] keyframes that saw each Gaussian.
        prompts: the P prompts.
        config: gap and smallest size of an instance.
        max_instances: per prompt, 0 = all.

    Returns:
        The objects and the instance number [N] of each Gaussian (0 = none).
    """
    objects, instances = [], np.zeros(len(labels), np.int64)
    for label in range(1, len(prompts) + 1):
        rows = (labels == label).nonzero()[0]
        if len(rows) < config.min_instance:
            continue
        component = connected_components(means[rows], config.instance_gap)
        sizes = np.bincount(component)
        score = np.bincount(component, weights=scores[rows, label - 1]) / sizes
        big = (sizes >= config.min_instance).nonzero()[0]
        ranked = big[np.argsort(-score[big] * np.sqrt(sizes[big]))]
        for c in ranked[: max_instances or None]:
            members = rows[component == c]
            center, quat, size = oriented_box(means[members])
            objects.append(SemanticObject(
                prompt=prompts[label - 1], label=label, instance=len(objects) + 1, score=float(score[c]),
                center=center, quat=quat, size=size, num_gaussians=len(members), views=int(views[members].max())))
            instances[members] = len(objects)
    return objects, instances


def oriented_box(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Box along the principal axes of points [M, 3] between their 2nd and 98th percentiles.

    Returns:
        center [3], quat wxyz [4], size [3] in metres.
    """
    mean = points.mean(0)
    _, axes = np.linalg.eigh((points - mean).T @ (points - mean))
    axes = axes[:, ::-1].copy()
    if np.linalg.det(axes) < 0:
        axes[:, 2] *= -1
    axes = _turned_to_fit(points - mean, axes)
    low, high = np.percentile((points - mean) @ axes, [2, 98], axis=0)
    return mean + axes @ ((low + high) / 2), matrix_to_quat(axes), high - low


def _turned_to_fit(points: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Axes [3, 3] (columns) turned to the tightest box where two of them spread alike, as on a square table.

    There the principal axes are arbitrary, and a box along them may be 1.4 times too wide.
    """
    sample = points[:: 1 + len(points) // 500] @ axes
    cosine, sine = np.cos(_TURNS), np.sin(_TURNS)
    for pair in ([0, 1], [1, 2], [0, 2]):
        spread = sample[:, pair].std(0)
        if spread.min() < _ALIKE * spread.max():
            continue
        a, b = sample[:, pair].T[:, :, None]
        turned = np.stack([a * cosine + b * sine, b * cosine - a * sine])  # [2, M, turns]
        low, high = np.percentile(turned, [2, 98], axis=1)
        best = np.prod(high - low, axis=0).argmin()
        axes[:, pair] = axes[:, pair] @ np.array([[cosine[best], -sine[best]], [sine[best], cosine[best]]])
        sample[:, pair] = turned[:, :, best].T
    return axes
