"""The pictures of a demo run: overlays, masks, the labelled cloud, and the contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ovs3d_ros.config import Config
from ovs3d_ros.demo.charts import PAPER, draw_presence, draw_room
from ovs3d_ros.demo.evaluation import Evaluation, HeldOutView
from ovs3d_ros.demo.report import Report
from ovs3d_ros.demo.scene import Scene
from ovs3d_ros.demo.session import Session
from ovs3d_ros.io.pictures import save_picture
from ovs3d_ros.io.ply import write_cloud
from ovs3d_ros.map_frame import points_to_world
from ovs3d_ros.types import MapSnapshot
from ovs3d_ros.visualization import pictures
from ovs3d_ros.visualization.point_cloud import answer_columns, point_columns, visible_points

WIDTH = 1800  # of the sheet, pixels
GAP = 20
TILES = 6  # pictures per row
LABEL_FOLDERS = ("overlays", "masks")
TOPICS = ("overlay", "label")  # under ~/segmentation/, see `Session.pictures`


def write_pictures(
    out: Path,
    report: Report,
    session: Session,
    evaluation: Evaluation,
    scene: Scene,
    snapshot: MapSnapshot,
    config: Config,
) -> None:
    """Writes `cloud.ply`, `overlays/`, `masks/` and `demo.png` into `out`.

    A run without ROS removes the topic pictures of an earlier run. All other files are overwritten.
    """
    for name in LABEL_FOLDERS:
        (out / name).mkdir(exist_ok=True)
    for name in TOPICS:
        (out / "overlays" / f"topic_{name}.png").unlink(missing_ok=True)
    indices = visible_points(snapshot, config.output)
    points, base = point_columns(snapshot, indices)
    columns = answer_columns(evaluation.answer, indices, base)
    points = points_to_world(points, snapshot.frame)
    write_cloud(out / "cloud.ply", points, columns.pop("rgb"), **columns)
    for i, view in enumerate(evaluation.views):
        for prompt, masks in evaluation.masks.items():
            name = f"{view.frame.name}_{prompt.replace(' ', '_')}.png"
            _save(out / "masks" / name, masks[i].astype(np.uint8) * 255)
        _save(out / "overlays" / f"{view.frame.name}.png", _labelled(view.frame.image, view.labels, scene))
    for name, picture in session.pictures.items():
        _save(out / "overlays" / f"topic_{name}.png", picture)
    _save(out / "demo.png", make_sheet(report, session, evaluation, scene, snapshot, config))


def make_sheet(
    report: Report,
    session: Session,
    evaluation: Evaluation,
    scene: Scene,
    snapshot: MapSnapshot,
    config: Config,
) -> np.ndarray:
    """Draws the contact sheet of a run, RGB [H, W, 3]."""
    views = _richest_views(evaluation)
    near, far = pictures.depth_range([view.depth for view in views])
    painter = pictures.FeatureColors.fit(
        np.concatenate([v.codes.reshape(-1, v.codes.shape[-1]) for v in views])
    )
    tiles, captions = [], []
    for view in views:
        tiles += [
            view.frame.image,
            pictures.to_uint8(view.rgb),
            pictures.color_depth(view.depth, near, far),
            painter.paint(view.codes),
            _overlay(view.frame.image, view.labels),
            _overlay(view.frame.image, view.frame.labels),
        ]
    captions = [
        "held-out photo",
        "rendered from the map",
        "rendered depth",
        "language features (PCA)",
        "best class per pixel",
        "ground truth",
    ] * len(views)
    note = (
        f"{session.how_run}\n"
        f"{report.frames_received} of {report.frames_sent} frames, {report.frames_dropped} dropped, "
        f"{report.keyframes} keyframes, {report.num_gaussians} Gaussians    held-out PSNR "
        f"{report.psnr_holdout:.1f} dB    mIoU {report.miou_lift:.2f}, refined {report.miou_refined:.2f}\n"
        f"query {report.query_p50_ms:.0f} ms median, {report.query_p95_ms:.0f} ms p95    frame to map "
        f"{report.frame_to_map_p95_ms:.0f} ms p95, with features {report.frame_to_features_p95_ms:.0f} ms    "
        f"{report.seconds_total:.0f} s in all"
    )
    top = pictures.contact_sheet(
        tiles, captions, TILES, WIDTH, "ovs3d: posed frames in, text queries out", note
    )
    middle = (WIDTH - 3 * GAP) // 2
    room = draw_room(snapshot, _best_objects(evaluation), middle, round(0.72 * middle))
    bars = draw_presence(report.present, report.absent, config.query.presence, middle, room.shape[0])
    charts = _row([room, bars])
    answers = pictures.contact_sheet(*_answers(report, evaluation), TILES, WIDTH)
    return np.concatenate([top, charts, answers], axis=0)


def _richest_views(evaluation: Evaluation) -> list[HeldOutView]:
    """The two held-out views that show the most classes."""
    richness = [-len(np.unique(view.frame.labels)) for view in evaluation.views]
    return [evaluation.views[i] for i in sorted(np.argsort(richness, kind="stable")[:2])]


def _best_objects(evaluation: Evaluation) -> list:
    """The best instance of each prompt."""
    best = {}
    for item in evaluation.answer.objects:
        if item.prompt not in best or item.num_gaussians > best[item.prompt].num_gaussians:
            best[item.prompt] = item
    return list(best.values())


def _answers(report: Report, evaluation: Evaluation) -> tuple[list[np.ndarray], list[str]]:
    """For each prompt that was found, the view with its largest mask, and a caption."""
    tiles, captions = [], []
    for query in sorted(report.present, key=lambda q: -(q.iou or 0)):
        masks = evaluation.masks[query.prompt]
        best = int(np.argmax([mask.sum() for mask in masks]))
        if query.found and masks[best].any():
            tiles.append(pictures.overlay(evaluation.views[best].frame.image, masks[best].astype(np.uint8)))
            captions.append(query.prompt + ("" if query.iou is None else f"   IoU {query.iou:.2f}"))
    return tiles[: 2 * TILES] or [np.full((60, 80, 3), PAPER, np.uint8)], captions[: 2 * TILES] or [
        "nothing found"
    ]


def _overlay(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return pictures.overlay(image, labels.astype(np.int64))


def _labelled(image: np.ndarray, labels: np.ndarray, scene: Scene) -> np.ndarray:
    """An overlay at twice the size, with a legend of its classes."""
    colors = pictures.label_colors(len(scene.dataset.classes))
    classes = scene.dataset.classes or []
    entries = [(classes[i], colors[i]) for i in np.unique(labels) if i]
    picture = pictures.overlay(image, labels.astype(np.int64), 2 * image.shape[1])
    return pictures.add_legend(picture, entries)


def _row(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Puts pictures of one height side by side, as wide as the sheet."""
    sheet = np.full((pictures[0].shape[0] + GAP, WIDTH, 3), PAPER, np.uint8)
    x = GAP
    for picture in pictures:
        sheet[: picture.shape[0], x : x + picture.shape[1]] = picture
        x += picture.shape[1] + GAP
    return sheet


def _save(path: Path, picture: np.ndarray) -> None:
    save_picture(path, Image.fromarray(picture))
