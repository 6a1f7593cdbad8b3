"""Views of keyframes that show the answer to a query."""

from __future__ import annotations

import cv2
import numpy as np

from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.types import MapSnapshot, QueryResult
from ovs3d_ros.visualization import pictures

PICTURE_WIDTH = 768  # px, of the picture of an answer
CANDIDATES = 32  # keyframes among which views are chosen
_PREVIEW_SIZE = 120  # px, longer side of the renders that rank them
_JPEG_QUALITY = 85


def legend(result: QueryResult) -> list[tuple[str, np.ndarray]]:
    """Legend entries of an overlay, text and colour: each prompt with its probability, or "not here"."""
    colors = pictures.label_colors(len(result.prompts))
    return [
        (f"{prompt}  {result.presence[p]:.2f}", colors[p + 1])
        if result.found[p]
        else (f"{prompt}: {'not here' if result.verdicts[p] == 'no' else 'unsure'}", colors[0])
        for p, prompt in enumerate(result.prompts)
    ]


def label_areas(pipeline: Ovs3d, snapshot: MapSnapshot, result: QueryResult) -> tuple[np.ndarray, np.ndarray]:
    """Keyframes [C], evenly spaced, and the pixels [C, P] of each prompt in small views from them."""
    candidates = evenly_spaced_indices(len(snapshot.names), CANDIDATES)
    areas = np.zeros((len(candidates), len(result.prompts)), np.int64)
    for row, index in enumerate(candidates):
        camera = snapshot.cameras[index].fitted(_PREVIEW_SIZE)
        labels, _ = pipeline.render_labels(result, camera, snapshot.camtoworlds[index], snapshot)
        areas[row] = np.bincount(labels.ravel(), minlength=len(result.prompts) + 1)[1:]
    return candidates, areas


def best_view(pipeline: Ovs3d, snapshot: MapSnapshot, result: QueryResult) -> int:
    """The keyframe that shows the most prompts and, among those, the most of them."""
    candidates, areas = label_areas(pipeline, snapshot, result)
    return int(candidates[np.lexsort((areas.sum(1), (areas > 0).sum(1)))[-1]])


def picture_answer(
    pipeline: Ovs3d, snapshot: MapSnapshot, result: QueryResult, width: int
) -> tuple[int, bytes]:
    """The keyframe that shows an answer best, and a JPEG of its view: the things in colour, and a legend.

    Args:
        pipeline: renders.
        snapshot: the map that answered.
        result: the answer.
        width: of the picture, px.
    """
    index = best_view(pipeline, snapshot, result)
    camera, pose = snapshot.cameras[index], snapshot.camtoworlds[index]
    labels, _ = pipeline.render_labels(result, camera, pose, snapshot)
    rendered = pipeline.render(camera, pose, snapshot).rgb.cpu().numpy()
    picture = pictures.overlay(pictures.to_uint8(rendered), labels, width=width)
    shown = np.ascontiguousarray(pictures.add_legend(picture, legend(result))[..., ::-1])
    return index, cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
