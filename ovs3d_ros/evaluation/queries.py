"""Names asked one by one in annotated views: the protocol of LERF and LangSplat on `lerf_ovs`.

For every annotated frame and name the relevancy of that name alone, against the negatives, is rendered at the frame's
pose. Segmentation: IoU of where it reaches the threshold with the mask, mean over all pairs of frame and name.
Localisation: the share of pairs whose smoothed relevancy is greatest inside one of the name's boxes (Kerr et al. 2023,
§4.2; the smoothing is that of LERF's and LangSplat's evaluations). There is one threshold for all names and scenes;
LangSplat's published IoU stretches every map to its own range first, which finds everything that is asked for, and does
not compare (docs/method.md, "Evaluation protocols"). Names are asked of the lifted features, whether or not the map was
refined for some of them.
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
_BOX, _SIDE = 29, 986  # px: the averaging box, and the longer side of the images it is meant for


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of one name in one frame.

    Attributes:
        view: the frame's name.
        name: what was asked for.
        iou: of its mask, 0..1.
        located: whether the peak lies in one of its boxes.
    """

    view: str
    name: str
    iou: float
    located: bool


def ask_frame(pipeline: Ovs3d, snapshot: MapSnapshot, frame: Frame, threshold: float) -> list[Asked]:
    """Asks for every annotated name of a frame, each alone.

    Args:
        pipeline: encodes the names and renders.
        snapshot: the map.
        frame: one with annotations; without, nothing is asked.
        threshold: relevancy from which a pixel counts.
    """
    names = list(frame.annotations or ())
    if not names:
        return []
    _, relevancy = pipeline.render_relevancy(names, frame.camera, frame.camtoworld, snapshot)
    maps = np.moveaxis(relevancy.cpu().numpy(), -1, 0)
    return [
        Asked(
            frame.name,
            name,
            mask_iou(scores, frame.annotations[name], threshold),
            is_located(scores, frame.annotations[name]),
        )
        for name, scores in zip(names, maps, strict=True)
    ]


def mask_iou(relevancy: np.ndarray, annotation: Annotation, threshold: float) -> float:
    """IoU of the pixels of relevancy [H, W] that reach the threshold; 0 where neither they nor the mask show anything.

    Raises:
        ValueError: relevancy and mask differ in shape.
    """
    if relevancy.shape != annotation.mask.shape:
        raise ValueError(f"relevancy {relevancy.shape} and mask {annotation.mask.shape} differ in shape")
    found = relevancy >= threshold
    return int((found & annotation.mask).sum()) / max(1, int((found | annotation.mask).sum()))


def is_located(relevancy: np.ndarray, annotation: Annotation) -> bool:
    """Whether the greatest value of smoothed relevancy [H, W] lies in a box; a draw is decided for the name.

    As in the published evaluations, where all pixels that share the maximum are tried. A map that is the same
    everywhere locates nothing.
    """
    smooth = smoothed(relevancy)
    peak = smooth.max()
    return bool(peak > smooth.min() and annotation.boxes[smooth == peak].any())


def smoothed(relevancy: np.ndarray) -> np.ndarray:
    """Relevancy [H, W] averaged over a box of 29 pixels at 986, in proportion at other sizes; mirrored at the edges."""
    half = round(_BOX * max(relevancy.shape) / _SIDE) // 2
    # Running sums in double precision: what is equal before is equal after, in single precision.
    return cv2.blur(np.ascontiguousarray(relevancy, dtype=np.float64), (2 * half + 1,) * 2).astype(np.float32)


def score_queries(asked: Sequence[Asked]) -> SegmentationScore:
    """The figures of one scene.

    Returns:
        `miou` is the mean over all pairs of frame and name, `accuracy` the localisation accuracy, `per_class` the mean
        IoU by name.

    Raises:
        UserError: nothing was asked.
    """
    if not asked:
        raise UserError(
            f"protocol {PROTOCOL}: no annotated views; the scene needs lerf_ovs annotations, JSON files in "
            "label/ or in ../label/<scene>/"
        )
    by_name: dict[str, list[float]] = {}
    for one in asked:
        by_name.setdefault(one.name, []).append(one.iou)
    return SegmentationScore(
        protocol=PROTOCOL,
        miou=float(np.mean([one.iou for one in asked])),
        accuracy=float(np.mean([one.located for one in asked])),
        per_class={name: float(np.mean(ious)) for name, ious in by_name.items()},
        views=len({one.view for one in asked}),
    )
