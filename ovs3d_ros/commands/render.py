"""`ovs3d render`: a flight through the map as a video or a folder of pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from PIL import Image

from ovs3d_ros import clouds, visualize
from ovs3d_ros.commands import common
from ovs3d_ros.commands.paths import keyframe_path, orbit_path
from ovs3d_ros.commands.query import legend, load_semantic_map
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query import check_prompts
from ovs3d_ros.types import Camera, MapSnapshot, UserError

CHANNELS = ("rgb", "depth", "features", "segmentation")
_SAMPLES = 8  # keyframes the range of depths is taken from

Painter = Callable[[Camera, np.ndarray], np.ndarray]  # camera and pose to an RGB picture of that size


def run(options: argparse.Namespace) -> int:
    """Renders the path.

    Raises:
        UserError: unknown channels or path, a map without what a channel needs, or an output that cannot be written.
    """
    values = common.settings(options)
    channels = [name.strip() for name in options.channels.split(",")] if options.channels else None
    prompts = check_prompts(options.prompts) if options.prompts else []
    _check(options, channels, prompts)
    video = options.output.suffix.lower() == ".mp4"
    output = common.check_output_file(options.output) if video else common.make_output_folder(options.output)
    semantic = prompts or (channels and "features" in channels)
    pipeline = (load_semantic_map(options.map, values) if semantic
                else Ovs3d.load(options.map, values, encode=channels is None))
    snapshot = pipeline.snapshot()
    if not len(snapshot.cameras):
        raise UserError(f"{options.map}: the map has no keyframes to make a path from")
    if channels is None:
        channels = ["rgb", "depth", *(["features"] if pipeline.clip else []), *(["segmentation"] if prompts else [])]
    painters, strip = make_painters(pipeline, snapshot, channels, prompts)
    camera = _video_camera(snapshot.cameras[0].fitted(options.image_size))
    path = _path(options, pipeline, snapshot)
    with common.progress(options, len(path), "rendering", "frame") as bar, \
            (_Video(output, options.fps) if video else _Folder(output)) as sink:
        for pose in path:
            tiles = [painters[name](camera, pose) for name in channels]
            sink.write(_mosaic(tiles if len(tiles) == 1 else list(map(visualize.add_caption, tiles, channels)), strip))
            bar.update()
    common.say(options, f"{output}: {len(path)} frames of {', '.join(channels)}")
    return 0


def _check(options: argparse.Namespace, channels: list[str] | None, prompts: list[str]) -> None:
    for name in channels or ():
        if name not in CHANNELS:
            raise UserError(f"--channels {name}: choose from {', '.join(CHANNELS)}")
    if channels and ("segmentation" in channels) != bool(prompts):
        raise UserError("the channel segmentation and --prompts belong together: name what to segment")
    if options.frames < 1 or not 1 <= options.fps <= 240 or options.image_size < 0:
        raise UserError("--frames must be 1 or more, --fps 1 to 240, --image-size 0 or more")
    if options.output.suffix and options.output.suffix.lower() != ".mp4" and not options.output.is_dir():
        raise UserError(f"{options.output}: give an .mp4 file, or a folder for pictures")


def make_painters(pipeline: Ovs3d, snapshot: MapSnapshot, channels: list[str],
                  prompts: list[str]) -> tuple[dict[str, Painter], list[tuple[str, np.ndarray]]]:
    """What paints each channel, and the entries of the legend that explains them."""
    def rgb(camera: Camera, pose: np.ndarray) -> np.ndarray:
        return visualize.to_uint8(pipeline.render(camera, pose, snapshot).rgb.cpu().numpy())

    painters: dict[str, Painter] = {"rgb": rgb}
    entries: list[tuple[str, np.ndarray]] = []
    if "depth" in channels:
        near, far = _depth_range(pipeline, snapshot)

        def depth(camera: Camera, pose: np.ndarray) -> np.ndarray:
            view = pipeline.render(camera, pose, snapshot)
            return visualize.color_depth((view.depth * (view.alpha > 0.5)).cpu().numpy(), near, far)

        painters["depth"] = depth
    if "features" in channels:
        colors = visualize.FeatureColors.fit(snapshot.codes.cpu().numpy())

        def features(camera: Camera, pose: np.ndarray) -> np.ndarray:
            return colors.paint(pipeline.render_codes(camera, pose, snapshot).cpu().numpy())

        painters["features"] = features
    if "segmentation" in channels:
        result = pipeline.query(prompts, snapshot=snapshot)
        entries = legend(result)

        def segmentation(camera: Camera, pose: np.ndarray) -> np.ndarray:
            labels, _ = pipeline.render_labels(result, camera, pose, snapshot)
            return visualize.overlay(rgb(camera, pose), labels)

        painters["segmentation"] = segmentation
    return painters, entries


def _depth_range(pipeline: Ovs3d, snapshot: MapSnapshot) -> tuple[float, float]:
    chosen = clouds.thin(np.arange(len(snapshot.cameras)), _SAMPLES)
    views = [pipeline.render(snapshot.cameras[i].fitted(120), snapshot.camtoworlds[i], snapshot) for i in chosen]
    return visualize.depth_range([(view.depth * (view.alpha > 0.5)).cpu().numpy() for view in views])


def _path(options: argparse.Namespace, pipeline: Ovs3d, snapshot: MapSnapshot) -> np.ndarray:
    if options.path == "keyframes":
        return keyframe_path(snapshot.camtoworlds, options.frames)
    near, far = _depth_range(pipeline, snapshot)
    return orbit_path(snapshot.camtoworlds, (near + far) / 2, options.frames)


def _video_camera(camera: Camera) -> Camera:
    """Even sides, as video coders want them."""
    return camera.scaled(camera.width + camera.width % 2, camera.height + camera.height % 2)


def _mosaic(tiles: list[np.ndarray], entries: list[tuple[str, np.ndarray]]) -> np.ndarray:
    """The pictures in one row, or two where there are more than two, with the legend below."""
    columns = len(tiles) if len(tiles) < 3 else 2
    tiles = tiles + [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i:i + columns], axis=1) for i in range(0, len(tiles), columns)]
    picture = visualize.add_legend(np.concatenate(rows, axis=0), entries)
    odd = picture.shape[0] % 2
    return np.concatenate([picture, picture[-odd:]], axis=0) if odd else picture


class _Video:
    """An MP4 file; complete only after a clean end."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> _Video:
        return self

    def write(self, picture: np.ndarray) -> None:
        """Appends an RGB picture; all must be of one size."""
        if self._writer is None:
            size = picture.shape[1], picture.shape[0]
            self._writer = cv2.VideoWriter(str(self._path), cv2.VideoWriter_fourcc(*"mp4v"), self._fps, size)
            if not self._writer.isOpened():
                raise UserError(f"{self._path}: OpenCV cannot write MP4 here; give a folder to get pictures")
        self._writer.write(np.ascontiguousarray(picture[..., ::-1]))

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.release()


class _Folder:
    """A folder of numbered PNG pictures."""

    def __init__(self, path: Path) -> None:
        self._path, self._count = path, 0

    def __enter__(self) -> _Folder:
        return self

    def write(self, picture: np.ndarray) -> None:
        """Writes the next picture."""
        Image.fromarray(picture).save(self._path / f"{self._count:05d}.png")
        self._count += 1

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass
