"""Answers to text queries: relevancy, presence, labels, instances, boxes. Pure functions on a snapshot's codes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.geometry import matrix_to_quat
from ovs3d_ros.types import SemanticObject, UserError

MAX_PROMPTS, MAX_PROMPT_LENGTH = 64, 256
_TURNS = np.radians(np.arange(0, 90, 5))
_ALIKE = 0.8  # ratio of standard deviations above which two principal axes may be anyone's
_PEAK_GAUSSIANS = 60  # evidence of presence is the mean over this many: about a tenth of a mug seen from two metres


@dataclass(frozen=True, slots=True)
class Calibration:
    """How an encoder's cosines read; fitted on labelled scenes and stored beside the model.

    Attributes:
        temperature: factor on cosines before the softmax of relevancy (LERF uses 10 with OpenAI CLIP).
        threshold: relevancy above which a Gaussian carries a label.
        presence_weights: logistic weights of the columns of `Evidence.table`.
        presence_bias: logistic bias.
        general_weights: those of general prompts: "mug", where the distractors have "red mug". Everything round fits
            a bare name a little, so the same evidence means less.
        general_bias: likewise.
        distractors: nouns every prompt competes against in the presence decision.
        synonym: text-text cosine above which a distractor counts as another word for the prompt.
        source: what it was fitted on.
    """

    temperature: float = 10.0
    threshold: float = 0.55
    presence_weights: tuple[float, ...] = (10.0, 0.0, 20.0, 0.0)
    presence_bias: float = -5.5
    general_weights: tuple[float, ...] = (10.0, 0.0, 20.0, 0.0)
    general_bias: float = -5.5
    distractors: tuple[str, ...] = ()
    synonym: float = 0.9
    source: str = "none: the defaults of LERF for OpenAI CLIP, not calibrated"


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


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the presence decision rests on, [P] each. Nothing is rescaled per query (METHOD §14).

    Attributes:
        peak: relevancy 0..1 of the strongest Gaussians.
        cosine: their cosine with the prompt.
        margin: by how much that exceeds the best competing distractor there.
        zscore: how many standard deviations it lies above the rest of the map.
    """

    peak: np.ndarray
    cosine: np.ndarray
    margin: np.ndarray
    zscore: np.ndarray

    @property
    def table(self) -> np.ndarray:
        """[P, 4] the columns that `Calibration.presence_weights` weigh."""
        return np.stack([self.peak, self.cosine, self.margin, self.zscore], axis=1)


def presence_evidence(codes: torch.Tensor, weight: torch.Tensor, cosines: torch.Tensor, scores: torch.Tensor,
                      distractors: torch.Tensor, competing: torch.Tensor) -> Evidence:
    """Collects the evidence that each prompt's thing is in the map.

    Args:
        codes: [N, d + 1] unit codes.
        weight: [N] evidence mass of each Gaussian in pixels.
        cosines: [N, P] with the prompts.
        scores: [N, P] relevancy.
        distractors: [d + 1, M] directions of other things, see `FeatureCodec.directions`.
        competing: [P, M] whether a distractor is another thing than the prompt.
    """
    prompts = cosines.shape[1]
    peak, cosine, margin, zscore = np.zeros((4, prompts))
    for p in range(prompts if len(codes) else 0):
        best = _best_gaussians(cosines[:, p])
        mass = weight[best] / weight[best].sum().clamp_min(1e-9)
        peak[p] = float((scores[best, p] * mass).sum())
        cosine[p] = own = float((cosines[best, p] * mass).sum())
        zscore[p] = (own - float(cosines[:, p].mean())) / max(float(cosines[:, p].std(correction=0)), 1e-6)
        if bool(competing[p].any()):
            rivals = mass @ (codes[best] @ distractors[:, competing[p]])
            margin[p] = own - float(rivals.max())
    return Evidence(peak, cosine, margin, zscore)


def _best_gaussians(cosine: torch.Tensor) -> torch.Tensor:
    """Indices of the top Gaussians by cosine [N]: enough not to trust a single one, few enough for a small thing."""
    return cosine.topk(min(len(cosine), _PEAK_GAUSSIANS)).indices


def is_general(prompts: list[str], distractors: tuple[str, ...]) -> np.ndarray:
    """Which prompts [P] leave open what a distractor tells: all their words are in one that has more."""
    known = [set(name.lower().split()) for name in distractors]
    return np.array([any(set(prompt.lower().split()) < words for words in known) for prompt in prompts], bool)


def presence_probability(evidence: Evidence, general: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Calibrated probability [P] that each prompt's thing is in the map (logistic regression).

    Args:
        evidence: of P prompts.
        general: [P] bool, see `is_general`.
        calibration: of the encoder.
    """
    specific = evidence.table @ np.array(calibration.presence_weights) + calibration.presence_bias
    bare = evidence.table @ np.array(calibration.general_weights) + calibration.general_bias
    return 1 / (1 + np.exp(-np.clip(np.where(general, bare, specific), -50, 50)))


def assign_labels(scores: torch.Tensor, found: np.ndarray, threshold: float) -> torch.Tensor:
    """Labels [...] in 0..P of scores [..., P]: the best found prompt above the threshold, else 0."""
    allowed = torch.where(torch.as_tensor(found, device=scores.device), scores, torch.full_like(scores, -1.0))
    best, label = allowed.max(-1)
    return torch.where(best >= threshold, label + 1, torch.zeros_like(label))


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
