"""Metrics of image quality, segmentation and presence: pure functions on arrays.

Images are [H, W, 3] floats in 0..1, or uint8; label maps are [H, W] integers, 0 = unlabelled or no class, and
1..C index `classes` (with `classes[0] == ""`, as in `Dataset.classes`). Inputs: NumPy arrays, CPU tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.types import UserError

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5

# Protocols for label maps (docs/method.md, "Evaluation protocols"); "lerf" is in `evaluation.queries`.
# Protocol B, LangSplat's per-query threshold, is left out: its code was never released.
PROTOCOLS = {
    "3dovs-a": "3D-OVS: argmax over the full class list, Jaccard averaged over views x classes; all scenes",
    "3dovs-c": "as 3dovs-a, over the scenes other than 'room'",
    "3dovs-d": "as 3dovs-a, of label maps rendered from Gaussians that were selected in 3D",
    "dataset": "one confusion matrix over all views; unlabelled pixels ignored",
}


@dataclass(frozen=True, slots=True)
class SegmentationScore:
    """The result of a segmentation protocol.

    Attributes:
        protocol: key of `PROTOCOLS`, or "lerf".
        miou: mean intersection over union, 0..1.
        accuracy: share of correct pixels, 0..1 (mean of shares over scenes); for "lerf", of located names.
        per_class: IoU by class name; NaN for a class that is neither labelled nor predicted.
        views: number of labelled views.
    """

    protocol: str
    miou: float
    accuracy: float
    per_class: dict[str, float]
    views: int

    def as_json(self) -> dict:
        """The fields as JSON values; NaN becomes null."""

        def json_number(value: float) -> float | None:
            return None if np.isnan(value) else value

        return {
            "protocol": self.protocol,
            "miou": json_number(self.miou),
            "accuracy": json_number(self.accuracy),
            "per_class": {name: json_number(iou) for name, iou in self.per_class.items()},
            "views": self.views,
        }


def psnr(pred: np.ndarray | torch.Tensor, target: np.ndarray | torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB for peak 1; infinite if the images are equal.

    Raises:
        ValueError: the shapes differ.
    """
    pred, target = _image_pair(pred, target)
    error = float(np.mean((pred - target) ** 2))
    return float("inf") if error == 0.0 else -10.0 * float(np.log10(error))


def psnr_aligned(pred: np.ndarray | torch.Tensor, target: np.ndarray | torch.Tensor) -> float:
    """PSNR in dB after a gain per channel that fits `pred` to `target`, for cameras with auto exposure.

    The gain is the least-squares fit for this image, g = <pred, target> / <pred, pred>; the product is
    clipped to 0..1.

    Args:
        pred: [H, W, 3] image.
        target: [H, W, 3] photograph.

    Raises:
        ValueError: the shapes differ.
    """
    pred, target = _image_pair(pred, target)
    energy = (pred * pred).sum(axis=(0, 1))  # [3]
    gains = np.where(energy > 0, (pred * target).sum(axis=(0, 1)) / np.where(energy > 0, energy, 1.0), 1.0)
    return psnr(np.clip(pred * gains, 0.0, 1.0), target)


def ssim(pred: np.ndarray | torch.Tensor, target: np.ndarray | torch.Tensor) -> float:
    """Structural similarity, mean over pixels and channels.

    Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004): 11 x 11
    Gaussian window, sigma 1.5, K1 = 0.01, K2 = 0.03, peak 1, only windows that lie inside the image.

    Raises:
        ValueError: the shapes differ, or the images are smaller than the window.
    """
    pair = _image_pair(pred, target)
    if min(pair[0].shape[:2]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels, got {pair[0].shape[:2]}")
    x, y = (torch.from_numpy(image).permute(2, 0, 1)[:, None] for image in pair)  # [3, 1, H, W]
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    window = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    window = window / window.sum()

    def blur(image: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.conv2d(image, window[None, None, :, None]), window[None, None, None, :])

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float((luminance * (2 * covariance + c2) / (var_x + var_y + c2)).mean())


def confusion_matrix(pred: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixel counts by target (rows) and prediction (columns).

    Args:
        pred: [H, W] labels 0..C; 0 = no class.
        target: [H, W] labels 0..C; 0 = unlabelled.
        num_classes: C, without index 0.

    Returns:
        [C + 1, C + 1] int64; row and column 0 stand for unlabelled.

    Raises:
        ValueError: the shapes differ, or a label is greater than C.
    """
    pred, target = _label_pair(pred, target, num_classes)
    size = num_classes + 1
    return np.bincount((target * size + pred).ravel(), minlength=size * size).reshape(size, size)


def iou_per_class(confusion: np.ndarray) -> np.ndarray:
    """IoU [C] of each class of a `confusion_matrix`, ignoring unlabelled target pixels.

    A class has IoU 0 if it is only predicted, and NaN if it is neither labelled nor predicted.
    """
    counted = confusion[1:]
    hits = np.diagonal(confusion)[1:].astype(np.float64)
    union = counted.sum(axis=1) + counted[:, 1:].sum(axis=0) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def miou(confusion: np.ndarray) -> float:
    """Mean of `iou_per_class` over the classes that are labelled or predicted; NaN if there are none."""
    ious = iou_per_class(confusion)
    return float(np.nanmean(ious)) if not np.isnan(ious).all() else float("nan")


def jaccard_per_class(pred: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
    """Jaccard index [C] of each class of one view over *all* pixels, as the 3D-OVS code computes it.

    Predictions on unlabelled pixels count as errors of the predicted class. A class that is in neither map
    scores 0, as in `jaccard_score` of scikit-learn, which the reference uses.

    Raises:
        ValueError: the shapes differ, or a label is greater than C.
    """
    confusion = confusion_matrix(pred, target, num_classes)
    hits = np.diagonal(confusion)[1:].astype(np.float64)
    union = confusion.sum(axis=1)[1:] + confusion.sum(axis=0)[1:] - hits
    return np.divide(hits, union, out=np.zeros(len(hits)), where=union > 0)


def score_segmentation(
    protocol: str, preds: Sequence[np.ndarray], targets: Sequence[np.ndarray], classes: Sequence[str]
) -> SegmentationScore:
    """Scores the label maps of one scene.

    Args:
        protocol: key of `PROTOCOLS`. The caller makes `preds` accordingly: per pixel the argmax over the
            class list for A and C, rendered from Gaussians selected in 3D for D.
        preds: V label maps [H, W].
        targets: V label maps of the same sizes.
        classes: names by index, `classes[0] == ""`; indices with an empty name are left out.

    Raises:
        UserError: the protocol is unknown, or there are no labelled views.
        ValueError: predictions and targets do not match.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"protocol {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    if len(preds) != len(targets):
        raise ValueError(f"{len(preds)} predictions for {len(targets)} targets")
    if not targets:
        raise UserError(
            f"protocol {protocol}: no labelled views; the dataset needs labels/ or segmentations/"
        )
    named = [index for index in range(1, len(classes)) if classes[index]]
    rows = np.array(named) - 1
    count = len(classes) - 1
    if protocol == "dataset":
        confusion = sum(confusion_matrix(p, t, count) for p, t in zip(preds, targets, strict=True))
        ious = iou_per_class(confusion)[rows]
        mean = miou(confusion)
        labelled = int(confusion[1:].sum())
        accuracy = float(np.diagonal(confusion)[1:].sum() / labelled) if labelled else float("nan")
    else:
        # Shape [V, C].
        by_view = np.stack(
            [jaccard_per_class(p, t, count)[rows] for p, t in zip(preds, targets, strict=True)]
        )
        ious, mean = by_view.mean(axis=0), float(by_view.mean())
        accuracy = float(
            np.mean([np.mean(np.asarray(p) == np.asarray(t)) for p, t in zip(preds, targets, strict=True)])
        )
    per_class = {classes[index]: float(iou) for index, iou in zip(named, ious, strict=True)}
    return SegmentationScore(protocol, mean, accuracy, per_class, len(targets))


def mean_over_scenes(protocol: str, scenes: Mapping[str, SegmentationScore]) -> SegmentationScore:
    """The mean of per-scene scores, as in the tables of 3D-OVS.

    Args:
        protocol: the protocol of the scores. "3dovs-c" leaves out the scene 'room'.
        scenes: score by scene name.

    Returns:
        `per_class` holds the mIoU by scene.

    Raises:
        UserError: no scene is left, or a scene was scored with another protocol.
    """
    chosen = {name: score for name, score in scenes.items() if not (protocol == "3dovs-c" and name == "room")}
    if not chosen:
        raise UserError(f"protocol {protocol}: no scenes to average over")
    for name, score in chosen.items():
        if score.protocol != protocol:
            raise UserError(f"scene {name} was scored with {score.protocol}, not {protocol}; score it again")
    return SegmentationScore(
        protocol=protocol,
        miou=float(np.mean([score.miou for score in chosen.values()])),
        accuracy=float(np.mean([score.accuracy for score in chosen.values()])),
        per_class={name: score.miou for name, score in chosen.items()},
        views=sum(score.views for score in chosen.values()),
    )


def auroc(scores: np.ndarray, present: np.ndarray) -> float:
    """Area under the ROC curve: probability that a present thing outscores an absent one; ties count half.

    Args:
        scores: [P] a higher score means more likely present.
        present: [P] bool truth.

    Raises:
        ValueError: the shapes differ, scores are not finite, or there are no present or no absent things.
    """
    scores, present = _decisions(scores, present)
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # 1-based, tied scores share the mean rank
    positives = int(present.sum())
    negatives = len(present) - positives
    return float((ranks[present].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def fpr_at_tpr(scores: np.ndarray, present: np.ndarray, tpr: float = 0.95) -> float:
    """False positive rate at the highest threshold (inclusive) whose true positive rate reaches `tpr`.

    Raises:
        ValueError: as `auroc`, or `tpr` is outside (0, 1].
    """
    scores, present = _decisions(scores, present)
    if not 0.0 < tpr <= 1.0:
        raise ValueError(f"tpr must lie in (0, 1], got {tpr}")
    positives = np.sort(scores[present])[::-1]
    threshold = positives[int(np.ceil(tpr * len(positives) - 1e-9)) - 1]
    return float((scores[~present] >= threshold).mean())


def ece(probabilities: np.ndarray, present: np.ndarray, num_bins: int = 15) -> float:
    """Expected calibration error of presence probabilities, over bins of equal width weighted by count.

    Guo et al., "On calibration of modern neural networks" (2017), eq. 3, for a binary outcome.

    Args:
        probabilities: [P] in 0..1.
        present: [P] bool truth.
        num_bins: number of bins over 0..1.

    Raises:
        ValueError: the shapes differ, are empty, or a probability is outside 0..1.
    """
    probabilities, present = np.asarray(probabilities, dtype=np.float64), np.asarray(present, dtype=bool)
    if probabilities.shape != present.shape or probabilities.ndim != 1 or not len(present):
        raise ValueError(f"expected two equal, non-empty [P], got {probabilities.shape} and {present.shape}")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("probabilities must lie in 0..1")
    bins = np.minimum((probabilities * num_bins).astype(np.int64), num_bins - 1)
    gaps = np.bincount(bins, weights=probabilities - present, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(present))


def _image_pair(pred: object, target: object) -> tuple[np.ndarray, np.ndarray]:
    first, second = _unit_image(pred), _unit_image(target)
    if first.shape != second.shape or first.ndim != 3:
        raise ValueError(f"expected two equal [H, W, 3], got {first.shape} and {second.shape}")
    return first, second


def _unit_image(image: object) -> np.ndarray:
    """Converts floats or uint8 to float64 in 0..1."""
    array = image.detach().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    if array.dtype == np.uint8:
        return array / 255.0
    if array.dtype.kind != "f":
        raise ValueError(f"images are floats in 0..1 or uint8, got {array.dtype}")
    return array.astype(np.float64)


def _label_pair(pred: object, target: object, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    pred, target = (np.asarray(labels).astype(np.int64) for labels in (pred, target))
    if pred.shape != target.shape:
        raise ValueError(f"prediction {pred.shape} and target {target.shape} differ in shape")
    for labels in (pred, target):
        if labels.size and (labels.min() < 0 or labels.max() > num_classes):
            raise ValueError(f"labels must lie in 0..{num_classes}, got {labels.min()}..{labels.max()}")
    return pred, target


def _decisions(scores: object, present: object) -> tuple[np.ndarray, np.ndarray]:
    scores, present = np.asarray(scores, dtype=np.float64), np.asarray(present, dtype=bool)
    if scores.shape != present.shape or scores.ndim != 1 or not np.isfinite(scores).all():
        raise ValueError(f"expected finite scores [P] and truth [P], got {scores.shape} and {present.shape}")
    if present.all() or not present.any():
        raise ValueError("need both present and absent things")
    return scores, present
