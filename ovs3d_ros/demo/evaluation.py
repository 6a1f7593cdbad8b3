"""Measures a saved map on the frames it was not made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ovs3d_ros.demo.scene import Scene
from ovs3d_ros.evaluation import metrics
from ovs3d_ros.evaluation.segmentation import Segmenter, by_pixels
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Frame, MapSnapshot, QueryResult

PROTOCOL = "dataset"


@dataclass(frozen=True, slots=True)
class HeldOutView:
    """A frame the map never saw, and what the map shows from there.

    Attributes:
        frame: photograph, depth, labels, pose.
        rgb: [H, W, 3] rendered, 0..1.
        depth: [H, W] rendered, metres, 0 = none.
        codes: [H, W, d + 1] rendered unit feature codes, zero where the map is transparent.
        labels: [H, W] class index by argmax over the scene's class list, 0 = none.
    """

    frame: Frame
    rgb: np.ndarray
    depth: np.ndarray
    codes: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a map is.

    Attributes:
        psnr: mean over held-out views, dB.
        segmentation: argmax over the class list against the labels.
        refined: likewise, of the map refined for the class list.
        ious: per present prompt, its mask (relevancy mode) against its class, pooled over the held-out views.
        views: the held-out views.
        masks: per present prompt, its mask in each view, [H, W] bool.
        answer: one query for all that is present, for the labelled cloud and the boxes.
    """

    psnr: float
    segmentation: metrics.SegmentationScore
    refined: metrics.SegmentationScore
    ious: dict[str, float]
    views: list[HeldOutView]
    masks: dict[str, list[np.ndarray]]
    answer: QueryResult


def evaluate_map(pipeline: Ovs3d, snapshot: MapSnapshot, scene: Scene, named: list[str]) -> Evaluation:
    """Renders and segments the held-out views.

    Args:
        pipeline: with the encoder of the map.
        snapshot: the map.
        scene: what was mapped.
        named: prompts of the query for the labelled cloud.
    """
    classes = scene.dataset.classes
    names, frames = [name for name in classes if name], [scene.dataset[i] for i in scene.holdout]
    # Refined without a check: no image is kept aside but these.
    field = pipeline.query(names, mode="argmax", snapshot=snapshot, refine=True).field
    lifted, refined = (
        _segmented(by_pixels(pipeline, snapshot, names, f), frames, names, classes) for f in (None, field)
    )
    views = [_view(pipeline, snapshot, frame, labels) for frame, labels in zip(frames, lifted, strict=True)]
    truth = [frame.labels for frame in frames]
    masks = {prompt: _masks(pipeline, snapshot, frames, prompt) for prompt in scene.present}
    ious = {
        prompt: _pooled_iou(masks[prompt], [f.labels == classes.index(prompt) for f in frames])
        for prompt in scene.present
    }
    psnr = float(np.mean([metrics.psnr(v.rgb, v.frame.image) for v in views]))
    answer = pipeline.query(named or scene.present, snapshot=snapshot)
    return Evaluation(
        psnr,
        metrics.score_segmentation(PROTOCOL, lifted, truth, classes),
        metrics.score_segmentation(PROTOCOL, refined, truth, classes),
        ious,
        views,
        masks,
        answer,
    )


def _segmented(
    segment: Segmenter, frames: list[Frame], names: list[str], classes: list[str]
) -> list[np.ndarray]:
    """Class index at each pixel of the frames, [H, W] each, 0 where the map is not."""
    numbers = np.array([0, *map(classes.index, names)])
    return [numbers[segment(frame.camera, frame.camtoworld)] for frame in frames]


def _view(pipeline: Ovs3d, snapshot: MapSnapshot, frame: Frame, labels: np.ndarray) -> HeldOutView:
    pose = frame.camera, frame.camtoworld
    rendered = pipeline.render(*pose, snapshot)
    codes = pipeline.render_codes(*pose, snapshot)
    return HeldOutView(
        frame, rendered.rgb.cpu().numpy(), rendered.depth.cpu().numpy(), codes.cpu().numpy(), labels
    )


def _masks(pipeline: Ovs3d, snapshot: MapSnapshot, frames: list[Frame], prompt: str) -> list[np.ndarray]:
    """Where each frame shows what was asked for; empty where the map says that it is not there."""
    result = pipeline.query([prompt], snapshot=snapshot)
    if not result.found[0]:
        return [np.zeros(frame.labels.shape, bool) for frame in frames]
    return [
        pipeline.render_labels(result, frame.camera, frame.camtoworld, snapshot)[0] > 0 for frame in frames
    ]


def _pooled_iou(masks: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """Intersection over union, pixels of all views together; NaN where neither shows anything."""
    union = sum(int((m | t).sum()) for m, t in zip(masks, truth, strict=True))
    return (
        sum(int((m & t).sum()) for m, t in zip(masks, truth, strict=True)) / union if union else float("nan")
    )
