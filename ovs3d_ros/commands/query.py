"""`ovs3d query`: finds things by name in a map, and shows them in views of the keyframes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ovs3d_ros.commands import common
from ovs3d_ros.commands.opening import load_semantic_map
from ovs3d_ros.config import Config
from ovs3d_ros.datasets import Dataset, open_dataset
from ovs3d_ros.datasets.text import read_text
from ovs3d_ros.io.atomic import write_text
from ovs3d_ros.io.pictures import save_picture
from ovs3d_ros.io.ply import write_cloud
from ovs3d_ros.io.text_table import display_width, pad
from ovs3d_ros.map_frame import points_to_world
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.description import describe, more_digits
from ovs3d_ros.query.request import check_prompts
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.semantics.names import distinct_names
from ovs3d_ros.types import MapSnapshot, QueryResult, UserError
from ovs3d_ros.visualization import pictures, point_cloud
from ovs3d_ros.visualization.answer_views import CANDIDATES, label_areas, legend

MAX_VIEWS = 8
_OVERLAY_WIDTH = 960  # px
_PHOTOGRAPH_SIZE = 1920  # px, longer side
_SAME_POSE = 1e-3  # between a frame of the data and its keyframe
_FULL_HORIZON = 0.95  # share of the horizon from which a map counts as complete
_PICTURE_FOLDERS = ("masks", "overlays")
_MANIFEST = "query_pictures.txt"  # file in an answer's folder that lists the pictures of the answer
_MAX_NAME = 200  # bytes of a file name


def run(options: argparse.Namespace) -> int:
    """Answers a query, prints a table, and with `-o` writes objects.json, cloud.ply, masks/ and overlays/.

    Raises:
        UserError: bad prompts, settings, map or output.
    """
    values = common.read_settings(options)
    common.check_json(options.json, options.map)
    pipeline = load_semantic_map(options.map, values)
    query = pipeline.make_query(
        distinct_names(check_prompts(options.prompts)),
        negatives=options.negatives.split(",") if options.negatives else None,
        mode=options.mode,
        threshold=options.threshold,
        max_instances=options.max_instances,
        refine=options.refine,
    )
    folder = _answer_folder(options.output) if options.output else None
    snapshot = pipeline.snapshot()
    photographs = _open_photographs(options.data, pipeline.config, snapshot) if options.data else None
    result = pipeline.answer(query, snapshot)
    entries = describe(result, snapshot, pipeline.config.query)
    if folder is not None:
        write_answer(folder, pipeline, snapshot, result, photographs)
        common.write_json(str(folder / "objects.json"), entries)
    common.write_json(
        options.json,
        dict(
            map=str(options.map),
            map_version=result.map_version,
            latency_ms=round(result.latency_ms, 2),
            observed=round(result.observed, 3),
            prompts=entries,
        ),
    )
    common.print_message(options, _table(entries, snapshot.frame.unit))
    if not result.found.all() and result.observed < _FULL_HORIZON:
        common.print_message(
            options,
            f"The map shows {result.observed:.0%} of the horizon: a thing that was not found may stand where "
            "no camera has looked yet.",
        )
    if folder is not None:
        common.print_message(options, f"{folder}: objects.json, cloud.ply, masks/, overlays/")
    return 0


def _answer_folder(path: Path) -> Path:
    """Creates the folder of an answer if it does not exist; an earlier answer in it will be replaced.

    Raises:
        UserError: the folder cannot be written, or holds files of an answer that this command did not write.
    """
    folder = common.make_output_folder(path)
    if not (folder / _MANIFEST).is_file():
        for part in (folder / name for name in ("objects.json", "cloud.ply", *_PICTURE_FOLDERS)):
            if part.exists() and not (part.is_dir() and not any(part.iterdir())):
                raise UserError(
                    f"{part}: not written by `ovs3d query`, which would overwrite it; choose another folder "
                    "or move it away"
                )
    return folder


class Photographs:
    """The photographs of the keyframes of a map in the dataset it was made from.

    Args:
        dataset: the data.
        snapshot: the map.
    """

    def __init__(self, dataset: Dataset, snapshot: MapSnapshot) -> None:
        self._dataset = dataset
        by_name = {name: index for index, name in enumerate(dataset.names)}
        self._frames = {}
        for keyframe, name in enumerate(snapshot.names):
            index = by_name.get(name)
            pose = snapshot.camtoworlds[keyframe]
            if index is not None and np.abs(dataset.camtoworlds[index] - pose).max() < _SAME_POSE:
                self._frames[keyframe] = index

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, keyframe: int) -> np.ndarray | None:
        """The photograph [H, W, 3] uint8 of a keyframe, or None if the data do not hold it."""
        index = self._frames.get(keyframe)
        return None if index is None else self._dataset[index].image


def _open_photographs(path: Path, config: Config, snapshot: MapSnapshot) -> Photographs:
    dataset = open_dataset(path, _PHOTOGRAPH_SIZE, config=config, labels=False, skip_missing=True)
    photographs = Photographs(dataset, snapshot)
    if not len(photographs):
        raise UserError(f"{path}: shows none of the map's keyframes; give the data the map was made from")
    return photographs


def write_answer(
    folder: Path,
    pipeline: Ovs3d,
    snapshot: MapSnapshot,
    result: QueryResult,
    photographs: Photographs | None = None,
) -> None:
    """Writes cloud.ply, and label masks and overlays of the keyframes that show the found things.

    Args:
        folder: exists already.
        pipeline: renders the views.
        snapshot: the map.
        result: the answer.
        photographs: on which the overlays lie; where there is none, they lie on renders.
    """
    names = _picture_names(snapshot, choose_views(pipeline, snapshot, result))
    _renew_pictures(folder, list(names))
    indices = point_cloud.visible_points(snapshot, pipeline.config.output)
    points, rgb = point_cloud.point_columns(snapshot, indices)
    points = points_to_world(points, snapshot.frame)
    write_cloud(folder / "cloud.ply", points, **point_cloud.answer_columns(result, indices, rgb))
    text = "".join(f"{label} {prompt}\n" for label, prompt in enumerate(result.prompts, start=1))
    write_text(folder / "masks" / "classes.txt", text)
    for name, index in names.items():
        camera, pose = snapshot.cameras[index], snapshot.camtoworlds[index]
        labels, _ = pipeline.render_labels(result, camera, pose, snapshot)
        save_mask(folder / "masks" / name, labels, len(result.prompts))
        picture = photographs.read(index) if photographs is not None else None
        if picture is None:
            picture = pictures.to_uint8(pipeline.render(camera, pose, snapshot).rgb.cpu().numpy())
        labels = pictures.resize_labels(labels, picture.shape[1], picture.shape[0])
        picture = pictures.overlay(picture, labels, width=_OVERLAY_WIDTH)
        save_picture(
            folder / "overlays" / name, Image.fromarray(pictures.add_legend(picture, legend(result)))
        )


def _picture_names(snapshot: MapSnapshot, views: list[int]) -> dict[str, int]:
    """Names a file for each view after its keyframe; replaces characters that a file name cannot hold."""
    names: dict[str, int] = {}
    for index in views:
        stem = re.sub(r"[/\\\x00-\x1f]", "_", snapshot.names[index]) or f"keyframe_{index:05d}"
        stem = stem.encode("utf-8", "replace")[:_MAX_NAME].decode("utf-8", "ignore")
        names[f"{stem}_{index:05d}.png" if f"{stem}.png" in names else f"{stem}.png"] = index
    return names


def _renew_pictures(folder: Path, names: list[str]) -> None:
    """Deletes the pictures of an earlier answer and lists those of this one.

    Only pictures on the earlier list are deleted: other files in the folders are the user's.
    """
    manifest = folder / _MANIFEST
    for name in read_text(manifest).split("\n") if manifest.is_file() else ():
        if name.endswith(".png") and Path(name).name == name:
            for part in _PICTURE_FOLDERS:
                (folder / part / name).unlink(missing_ok=True)
    for part in _PICTURE_FOLDERS:
        common.make_output_folder(folder / part)
    write_text(manifest, "".join(f"{name}\n" for name in names))


def save_mask(path: Path, labels: np.ndarray, count: int) -> None:
    """Writes labels [H, W] 0..count as an index PNG (0 = none) with a palette for people."""
    image = Image.frombytes("P", labels.shape[::-1], labels.astype(np.uint8).tobytes())
    palette = pictures.label_colors(count)
    palette[0] = 0
    image.putpalette(palette.tobytes())
    save_picture(path, image)


def choose_views(pipeline: Ovs3d, snapshot: MapSnapshot, result: QueryResult) -> list[int]:
    """Chooses keyframes that show the found things best, and returns them in map order.

    The found things take turns: each takes the view it fills most. Views next to a chosen one are skipped. If
    nothing was found, the views are evenly spaced.
    """
    count = len(snapshot.names)
    if not result.found.any() or count <= MAX_VIEWS:
        candidates = evenly_spaced_indices(count, CANDIDATES)
        return candidates[evenly_spaced_indices(len(candidates), MAX_VIEWS)].tolist()
    candidates, areas = label_areas(pipeline, snapshot, result)
    visible = np.flatnonzero(areas.any(axis=0))
    if not len(visible):
        return candidates[evenly_spaced_indices(len(candidates), MAX_VIEWS)].tolist()
    spacing = max(1, count // (3 * MAX_VIEWS))
    chosen: list[int] = []
    for turn in range(MAX_VIEWS * len(visible)):
        if len(chosen) == MAX_VIEWS:
            break
        near = [
            row
            for row, index in enumerate(candidates)
            if any(abs(index - other) < spacing for other in chosen)
        ]
        remaining = areas[:, visible[turn % len(visible)]].copy()
        remaining[near] = 0
        if remaining.any():
            chosen.append(int(candidates[remaining.argmax()]))
    return sorted(chosen)


def _table(entries: list[dict[str, Any]], unit: float) -> str:
    """The answer as a text table: one line per prompt with the position of its best object or candidate.

    Args:
        entries: those of `describe`.
        unit: metres in one unit of the positions.
    """
    digits = 2 + more_digits(unit)
    width = max(len("prompt"), *(display_width(entry["prompt"]) for entry in entries))
    position = "position (m)" if unit == 1 else "position"
    lines = [f"{pad('prompt', width)}  found   presence  objects  {position}"]
    for entry in entries:
        objects, candidate = entry["objects"], entry["candidate"]
        best = objects[0] if objects else candidate
        position = "(" + ", ".join(f"{v:.{digits}f}" for v in best["center"]) + ")" if best else "-"
        position += "?" if best and best is candidate else ""
        lines.append(
            f"{pad(entry['prompt'], width)}  {entry['verdict']:<6}  {entry['presence']:8.2f}  "
            f"{len(objects):7d}  {position}"
        )
    lines += [f"{entry['prompt']}: {entry['note']}" for entry in entries if entry["note"]]
    return "\n".join(lines)
