"""`ovs3d render`: a flight through the map as a video or a folder of pictures."""

from __future__ import annotations

import argparse
import contextlib
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ovs3d_ros.commands import common
from ovs3d_ros.commands.camera_paths import keyframe_path, orbit_path
from ovs3d_ros.commands.opening import load_semantic_map
from ovs3d_ros.commands.video import VIDEO_SUFFIXES, Sink, codec_name, write_video
from ovs3d_ros.io.pictures import save_picture
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.request import check_prompts
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.semantics.names import distinct_names
from ovs3d_ros.types import Camera, MapSnapshot, UserError
from ovs3d_ros.visualization import pictures
from ovs3d_ros.visualization.answer_views import legend

CHANNELS = ("rgb", "depth", "features", "segmentation")
_SAMPLES = 8  # keyframes that give the range of depths
_MAX_IMAGE_SIZE = 8192  # px
_NUMBERED = re.compile(r"(\d{5}|[1-9]\d{5,})\.png")  # file names of this command's pictures
_SCALE = 3  # depths that the legend shows
_SCREEN = 16 / 9  # width by height
_MARK = "Software", "ovs3d render"  # PNG text in each of them

Painter = Callable[[Camera, np.ndarray], np.ndarray]  # paints the view of a camera and pose as an RGB picture


def run(options: argparse.Namespace) -> int:
    """Renders the path.

    Raises:
        UserError: unknown channels or path, a map that lacks the data of a channel, or an unwritable output.
    """
    values = common.read_settings(options)
    channels = [name.strip() for name in options.channels.split(",")] if options.channels else None
    prompts = distinct_names(check_prompts(options.prompts)) if options.prompts else []
    _check(options, channels, prompts)
    video = options.output.suffix.lower() in VIDEO_SUFFIXES
    output = common.check_output_file(options.output) if video else common.make_output_folder(options.output)
    semantic = prompts or (channels and "features" in channels)
    pipeline = (
        load_semantic_map(options.map, values)
        if semantic
        else Ovs3d.load(options.map, values, encode=channels is None)
    )
    snapshot = pipeline.snapshot()
    if not len(snapshot.cameras):
        raise UserError(f"{options.map}: the map has no keyframes to make a path from")
    if channels is None:
        channels = [
            "rgb",
            "depth",
            *(["features"] if pipeline.clip else []),
            *(["segmentation"] if prompts else []),
        ]
    painters, strip = make_painters(pipeline, snapshot, channels, prompts)
    camera = _video_camera(snapshot.cameras[0], options.image_size)
    path = _path(options, pipeline, snapshot)
    with (
        common.progress_bar(options, len(path), "rendering", "frame") as bar,
        write_video(output, options.fps) if video else _folder(output) as write,
    ):
        for pose in path:
            tiles = [painters[name](camera, pose) for name in channels]
            write(
                _mosaic(tiles if len(tiles) == 1 else list(map(pictures.add_caption, tiles, channels)), strip)
            )
            bar.update()
    form = f" ({codec_name(output)})" if video else ""
    common.print_message(options, f"{output}: {len(path)} frames of {', '.join(channels)}{form}")
    return 0


def _check(options: argparse.Namespace, channels: list[str] | None, prompts: list[str]) -> None:
    for name in channels or ():
        if name not in CHANNELS:
            raise UserError(f"--channels {name}: choose from {', '.join(CHANNELS)}")
    if channels and ("segmentation" in channels) != bool(prompts):
        raise UserError("the channel segmentation and --prompts belong together: name what to segment")
    if options.frames < 1 or not 1 <= options.fps <= 240 or not 0 <= options.image_size <= _MAX_IMAGE_SIZE:
        raise UserError(f"--frames must be 1 or more, --fps 1 to 240, --image-size 0 to {_MAX_IMAGE_SIZE}")
    suffix = options.output.suffix.lower()
    if suffix and suffix not in VIDEO_SUFFIXES and not options.output.is_dir():
        raise UserError(
            f"{options.output}: a video ends in {' or '.join(VIDEO_SUFFIXES)}; give such a name, or a folder "
            "for pictures"
        )


def make_painters(
    pipeline: Ovs3d, snapshot: MapSnapshot, channels: list[str], prompts: list[str]
) -> tuple[dict[str, Painter], list[tuple[str, np.ndarray]]]:
    """A painter for each channel, and the entries of the legend."""

    def rgb(camera: Camera, pose: np.ndarray) -> np.ndarray:
        return pictures.to_uint8(pipeline.render(camera, pose, snapshot).rgb.cpu().numpy())

    painters: dict[str, Painter] = {"rgb": rgb}
    entries: list[tuple[str, np.ndarray]] = []
    if "depth" in channels:
        near, far = _depth_range(pipeline, snapshot)
        scale = np.linspace(near, far, _SCALE)
        entries += [
            (f"{z * snapshot.frame.unit:.2g} m", color)
            for z, color in zip(scale, pictures.color_depth(scale[None], near, far)[0], strict=True)
        ]

        def depth(camera: Camera, pose: np.ndarray) -> np.ndarray:
            view = pipeline.render(camera, pose, snapshot)
            return pictures.color_depth((view.depth * (view.alpha > 0.5)).cpu().numpy(), near, far)

        painters["depth"] = depth
    if "features" in channels:
        colors = pictures.FeatureColors.fit(snapshot.codes.cpu().numpy())

        def features(camera: Camera, pose: np.ndarray) -> np.ndarray:
            return colors.paint(pipeline.render_codes(camera, pose, snapshot).cpu().numpy())

        painters["features"] = features
    if "segmentation" in channels:
        result = pipeline.query(prompts, snapshot=snapshot)
        entries += legend(result)

        def segmentation(camera: Camera, pose: np.ndarray) -> np.ndarray:
            labels, _ = pipeline.render_labels(result, camera, pose, snapshot)
            return pictures.overlay(rgb(camera, pose), labels)

        painters["segmentation"] = segmentation
    return painters, entries


def _depth_range(pipeline: Ovs3d, snapshot: MapSnapshot) -> tuple[float, float]:
    chosen = evenly_spaced_indices(len(snapshot.cameras), _SAMPLES)
    views = [
        pipeline.render(snapshot.cameras[i].fitted(120), snapshot.camtoworlds[i], snapshot) for i in chosen
    ]
    return pictures.depth_range([(view.depth * (view.alpha > 0.5)).cpu().numpy() for view in views])


def _path(options: argparse.Namespace, pipeline: Ovs3d, snapshot: MapSnapshot) -> np.ndarray:
    if options.path == "keyframes":
        return keyframe_path(snapshot.camtoworlds, options.frames)
    near, far = _depth_range(pipeline, snapshot)
    return orbit_path(snapshot.camtoworlds, (near + far) / 2, options.frames)


def _video_camera(camera: Camera, image_size: int) -> Camera:
    """The camera with a longer side of `image_size` pixels (0: unchanged) and even sides, for video."""
    factor = image_size / max(camera.width, camera.height) if image_size else 1.0
    width, height = (max(1, round(side * factor)) for side in (camera.width, camera.height))
    return camera.scaled(width + width % 2, height + height % 2)


def _mosaic(tiles: list[np.ndarray], entries: list[tuple[str, np.ndarray]]) -> np.ndarray:
    """Arranges pictures in a full grid of nearly the shape of a screen, and puts the legend below."""
    height, width = tiles[0].shape[:2]
    full = [columns for columns in range(1, len(tiles) + 1) if len(tiles) % columns == 0]
    columns = min(full, key=lambda n: abs(math.log(width * n * n / (height * len(tiles)) / _SCREEN)))
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    picture = pictures.add_legend(np.concatenate(rows, axis=0), entries)
    odd = picture.shape[0] % 2
    return np.concatenate([picture, picture[-odd:]], axis=0) if odd else picture


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[Sink]:
    """A sink that writes RGB pictures as numbered PNGs into a folder and deletes surplus older ones.

    Raises:
        UserError: the folder cannot be written, or holds numbered pictures that this command did not write.
    """
    earlier = [old for old in path.iterdir() if _NUMBERED.fullmatch(old.name)]
    for old in earlier:
        if not _has_mark(old):
            raise UserError(
                f"{old}: not written by `ovs3d render`, which might overwrite it; choose another folder"
            )
    count, mark = 0, PngInfo()
    mark.add_text(*_MARK)

    def write(picture: np.ndarray) -> None:
        nonlocal count
        save_picture(path / f"{count:05d}.png", Image.fromarray(picture), mark)
        count += 1

    yield write
    for old in earlier:
        if int(old.stem) >= count:
            old.unlink(missing_ok=True)


def _has_mark(path: Path) -> bool:
    """Whether a picture carries the mark of this command."""
    try:
        with Image.open(path) as image:
            return image.info.get(_MARK[0]) == _MARK[1]
    except (OSError, SyntaxError):
        return False
