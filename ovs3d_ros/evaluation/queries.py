"""Queries for single names in annotated views: the protocol of LERF and LangSplat on `lerf_ovs`.

The relevancy of each annotated name against the negatives is rendered at the pose of its frame.

- Segmentation: the IoU of the mask with the pixels whose relevancy reaches the threshold, mean over all pairs
  of frame and name.
- Localisation: the share of pairs whose smoothed relevancy has its maximum inside one of the boxes of the
  name (Kerr et al. 2023, §4.2; smoothing as in the evaluations of LERF and LangSplat).

All names and scenes share one threshold. The IoU that LangSplat published is not comparable: it stretches
each map to its own range first, and so finds every name (docs/method.md, "Evaluation protocols"). Queries use
the lifted features, even if the map was refined for some of the names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ovs3d_ros.evaluation.metrics import SegmentationScore
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Annotation, Frame, MapSnapshot, UserError

PROTOCOL = "lerf"
_BOX, _SIDE = 29, 986  # px: side of the averaging box, for images whose longer side is `_SIDE`


@dataclass(frozen=True, slots=True)
class QueryScore:
    """The score of one name in one frame.

    Attributes:
        view: the frame's name.
        name: the prompt.
        iou: IoU of the mask, 0..1.
        located: whether the peak lies in one of the boxes of the name.
    """

    view: str
    name: str
    iou: float
    located: bool


def score_frame(pipeline: Ovs3d, snapshot: MapSnapshot, frame: Frame, threshold: float) -> list[QueryScore]:
    """Scores each annotated name of a frame; names do not compete.

    Args:
        pipeline: encodes the names and renders.
        snapshot: the map.
        frame: gives an empty list if it has no annotations.
        threshold: least relevancy of a pixel in the predicted mask.
    """
    annotations = frame.annotations or {}
    if not annotations:
        return []
    names = list(annotations)
    _, relevancy = pipeline.render_relevancy(names, frame.camera, frame.camtoworld, snapshot)
    maps = np.moveaxis(relevancy.cpu().numpy(), -1, 0)
    if frame.mask is not None:
        maps = maps * frame.mask
    return [
        QueryScore(
            frame.name,
            name,
            mask_iou(scores, annotations[name], threshold),
            is_located(scores, annotations[name]),
        )
        for name, scores in zip(names, maps, strict=True)
    ]


def mask_iou(relevancy: np.ndarray, annotation: Annotation, threshold: float) -> float:
    """IoU of the mask with the pixels of relevancy [H, W] that reach the threshold; 0 if both are empty.

    Raises:
        ValueError: relevancy and mask differ in shape.
    """
    if relevancy.shape != annotation.mask.shape:
        raise ValueError(f"relevancy {relevancy.shape} and mask {annotation.mask.shape} differ in shape")
    found = relevancy >= threshold
    return int((found & annotation.mask).sum()) / max(1, int((found | annotation.mask).sum()))


def is_located(relevancy: np.ndarray, annotation: Annotation) -> bool:
    """Whether the maximum of the smoothed relevancy [H, W] lies in a box.

    One of several equal maxima in a box suffices, as in published work. A constant map locates nothing.
    """
    smooth = smooth_relevancy(relevancy)
    peak = smooth.max()
    return bool(peak > smooth.min() and annotation.boxes[smooth == peak].any())


def smooth_relevancy(relevancy: np.ndarray) -> np.ndarray:
    """Averages relevancy [H, W] over a box of 29 px in images of 986 px, in proportion at other sizes.

    Edges are mirrored.
    """
    half = round(_BOX * max(relevancy.shape) / _SIDE) // 2
    # cv2.blur keeps running sums; in double precision, equal averages stay equal after rounding to float32.
    return cv2.blur(np.ascontiguousarray(relevancy, dtype=np.float64), (2 * half + 1,) * 2).astype(np.float32)


def score_queries(scores: Sequence[QueryScore]) -> SegmentationScore:
    """Averages the scores of one scene.

    Returns:
        `miou` is the mean over all pairs of frame and name, `accuracy` the localisation accuracy, `per_class`
        the mean IoU by name.

    Raises:
        UserError: there are no scores.
    """
    if not scores:
        raise UserError(
            f"protocol {PROTOCOL}: no annotated views; the scene needs lerf_ovs annotations, JSON files in "
            "label/ or in ../label/<scene>/"
        )
    by_name: dict[str, list[float]] = {}
    for score in scores:
        by_name.setdefault(score.name, []).append(score.iou)
    return SegmentationScore(
        protocol=PROTOCOL,
        miou=float(np.mean([score.iou for score in scores])),
        accuracy=float(np.mean([score.located for score in scores])),
        per_class={name: float(np.mean(ious)) for name, ious in by_name.items()},
        views=len({score.view for score in scores}),
    )
