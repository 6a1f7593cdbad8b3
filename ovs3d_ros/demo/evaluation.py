"""Measures a saved map on held-out frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ovs3d_ros.demo.scene import Scene
from ovs3d_ros.evaluation import metrics
from ovs3d_ros.evaluation.segmentation import Segmenter, pixel_segmenter
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Frame, MapSnapshot, QueryResult

PROTOCOL = "dataset"


@dataclass(frozen=True, slots=True)
class HeldOutView:
    """A held-out frame, and the map rendered from its pose.

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
    """The quality of a map on the held-out views.

    Attributes:
        psnr: mean over the views, dB.
        segmentation: score of the argmax over the class list against the labels.
        refined: the same score after refinement for the class list.
        ious: per present prompt that is a class, IoU of its mask (relevancy mode) with the class, pixels of
            all views pooled.
        views: the held-out views.
        masks: per present prompt, its mask in each view, [H, W] bool.
        answer: one query for all prompts that were found; the labelled cloud and the boxes show it.
    """

    psnr: float
    segmentation: metrics.SegmentationScore
    refined: metrics.SegmentationScore
    ious: dict[str, float]
    views: list[HeldOutView]
    masks: dict[str, list[np.ndarray]]
    answer: QueryResult


def evaluate_map(pipeline: Ovs3d, snapshot: MapSnapshot, scene: Scene, found: list[str]) -> Evaluation:
    """Renders and segments the held-out views.

    Args:
        pipeline: has the encoder of the map.
        snapshot: the map.
        scene: the scene that was mapped.
        found: prompts of the query for the labelled cloud.
    """
    classes = scene.dataset.classes or []
    names, frames = scene.dataset.class_names, [scene.dataset[i] for i in scene.holdout]
    # There is no check of the refinement: the only images that were kept aside are those it is measured on.
    field = pipeline.query(names, mode="argmax", snapshot=snapshot, refine=True).field
    lifted, refined = (
        _segment_frames(pixel_segmenter(pipeline, snapshot, names, f), frames, names, classes)
        for f in (None, field)
    )
    views = [_view(pipeline, snapshot, frame, labels) for frame, labels in zip(frames, lifted, strict=True)]
    truth = [frame.labels for frame in frames]
    masks = {prompt: _masks(pipeline, snapshot, frames, prompt) for prompt in scene.present}
    ious = {
        prompt: _pooled_iou(masks[prompt], [f.labels == classes.index(prompt) for f in frames])
        for prompt in scene.present
        if prompt in classes
    }
    psnr = float(np.mean([metrics.psnr(v.rgb, v.frame.image) for v in views]))
    answer = pipeline.query(found or scene.present, snapshot=snapshot)
    return Evaluation(
        psnr,
        metrics.score_segmentation(PROTOCOL, lifted, truth, classes),
        metrics.score_segmentation(PROTOCOL, refined, truth, classes),
        ious,
        views,
        masks,
        answer,
    )


def _segment_frames(
    segment: Segmenter, frames: list[Frame], names: list[str], classes: list[str]
) -> list[np.ndarray]:
    """Class index at each pixel of each frame, [H, W], 0 where the map is transparent."""
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
    """The mask of a prompt in each frame, [H, W] bool; empty masks where the prompt is not found."""
    result = pipeline.query([prompt], snapshot=snapshot)
    if not result.found[0]:
        return [np.zeros(frame.image.shape[:2], bool) for frame in frames]
    return [
        pipeline.render_labels(result, frame.camera, frame.camtoworld, snapshot)[0] > 0 for frame in frames
    ]


def _pooled_iou(masks: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """IoU over the pixels of all views together; NaN when masks and truth are all empty."""
    union = sum(int((m | t).sum()) for m, t in zip(masks, truth, strict=True))
    return (
        sum(int((m & t).sum()) for m, t in zip(masks, truth, strict=True)) / union if union else float("nan")
    )
