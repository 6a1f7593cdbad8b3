"""Per-pixel measures of a CLIP encoder on labelled scenes: argmax mIoU, and presence in a view."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import captions
import cv2
import numpy as np
import torch
import torch.nn.functional as F
import vocabulary

from ovs3d_ros.types import CropTable

NEGATIVES = ["object", "things", "stuff", "texture"]
HEIGHT, WIDTH = 120, 160  # where scores are compared with labels


def scenes(folder: Path, every: int = 1) -> Iterator[tuple[list[str], list[tuple[np.ndarray, np.ndarray]]]]:
    """Class names and (image, labels at WIDTH x HEIGHT) pairs per scene."""
    for scene in sorted(folder.glob("scene_*")):
        names = [line.split(" ", 1)[1] for line in (scene / "classes.txt").read_text().splitlines()]
        frames = []
        for frame in json.loads((scene / "transforms.json").read_text())["frames"][::every]:
            labels = cv2.imread(str(scene / frame["label_file_path"]), cv2.IMREAD_UNCHANGED)
            frames.append(
                (
                    cv2.imread(str(scene / frame["file_path"]))[..., ::-1],
                    cv2.resize(labels, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST),
                )
            )
        yield names, frames


def pixel_features(table: CropTable) -> list[torch.Tensor]:
    """Per level [H, W, D] unit features: the mean of the embeddings of all crops over a pixel."""
    features = []
    edges = (table.boxes * table.boxes.new_tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])).round().long()
    for level in range(table.num_levels):
        inside = table.levels == level
        total = torch.zeros(HEIGHT, WIDTH, table.embeddings.shape[1])
        for (left, top, right, bottom), embedding in zip(
            edges[inside].tolist(), table.embeddings[inside], strict=True
        ):
            total[top:bottom, left:right] += embedding
        features.append(F.normalize(total, dim=-1))
    return features


def pixel_scores(encoder, image: np.ndarray, texts: torch.Tensor) -> torch.Tensor:
    """Cosines [H, W, P] with every text, averaged over levels.

    A dense map is interpolated between its cell centres.
    """
    table = encoder.encode_image(image)
    if encoder.mode == "dense":
        columns = int((table.boxes[:, 1] == 0).sum())
        grid = table.embeddings.view(-1, columns, table.embeddings.shape[1]).permute(2, 0, 1)[None]
        grid = F.interpolate(grid, size=(HEIGHT, WIDTH), mode="bilinear", align_corners=False)[0].permute(
            1, 2, 0
        )
        return F.normalize(grid, dim=-1) @ texts.T
    return torch.stack([level @ texts.T for level in pixel_features(table)]).mean(dim=0)


def segmentation(encoder, folder: Path, every: int = 2) -> dict:
    """mIoU and pixel accuracy of the argmax over each scene's class names.

    All classes of a scene weigh the same.
    """
    scores, right, total = [], 0, 0
    for names, frames in scenes(folder, every):
        texts = encoder.encode_text(names[1:])
        hits = np.zeros((len(names), len(names)), np.int64)
        for image, labels in frames:
            predicted = pixel_scores(encoder, image, texts).argmax(dim=-1).numpy() + 1
            keep = labels > 0
            pairs = labels[keep].astype(np.int64) * len(names) + predicted[keep]
            hits += np.bincount(pairs, minlength=hits.size).reshape(hits.shape)
        correct = np.diag(hits)[1:]
        union = (hits.sum(axis=0) + hits.sum(axis=1))[1:] - correct
        seen = hits.sum(axis=1)[1:] > 0
        scores.append(float((correct / np.maximum(union, 1))[seen].mean()))
        right, total = right + int(correct.sum()), total + int(hits.sum())
    return {
        "scenes": len(scores),
        "miou": round(float(np.mean(scores)), 4),
        "accuracy": round(right / max(1, total), 4),
    }


def presence(encoder, folder: Path, unknown: list[str], every: int = 2) -> dict:
    """AUROC of the highest relevancy in a view: its names against other names and unknown words."""
    known = [f"{c} {n}" for n in vocabulary.SMALL_NOUNS for c in vocabulary.NOUNS[n].colours]
    unknown = [word.replace("-", " ") for word in unknown]
    unknown += [f"{captions.COLOURS[i % len(captions.COLOURS)]} {word}" for i, word in enumerate(unknown)]
    texts, negatives = encoder.encode_text(known + unknown), encoder.encode_text(NEGATIVES)
    peaks, shown = [], []
    for names, frames in scenes(folder, every):
        for image, labels in frames:
            cosine = pixel_scores(encoder, image, torch.cat([texts, negatives]))  # [H, W, P + 4]
            rivals = cosine[..., len(texts) :].amax(dim=-1, keepdim=True)
            relevancy = torch.sigmoid(10 * (cosine[..., : len(texts)] - rivals)).view(HEIGHT * WIDTH, -1)
            peaks.append(relevancy.quantile(0.995, dim=0).numpy())
            visible = {
                names[k] for k, n in enumerate(np.bincount(labels.ravel(), minlength=len(names))) if n >= 80
            }
            shown.append(np.isin(known, list(visible)))
    peaks, shown = np.stack(peaks), np.stack(shown)
    present = peaks[:, : len(known)][shown]
    absent, strange = peaks[:, : len(known)][~shown], peaks[:, len(known) :].ravel()
    return {
        "present_median": round(float(np.median(present)), 3),
        "absent_known": {"auroc": _against(present, absent), "median": round(float(np.median(absent)), 3)},
        "unknown_words": {"auroc": _against(present, strange), "median": round(float(np.median(strange)), 3)},
    }


def _against(positive: np.ndarray, negative: np.ndarray) -> float:
    values = np.concatenate([positive, negative])
    return round(auroc(values, np.arange(len(values)) < len(positive)), 4)


def auroc(values: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve by ranks; ties count half."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / max(1, n * (len(values) - n)))
