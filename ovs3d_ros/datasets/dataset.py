"""Datasets as sequences of frames, whose pixels are read on access."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovs3d_ros.datasets import images
from ovs3d_ros.datasets.lerf import AnnotatedImage
from ovs3d_ros.sensors import undistortion
from ovs3d_ros.types import Annotation, Camera, Frame, UserError

TRAINING, HELD_OUT, LEFT_OUT = "training", "held out", "left out"  # values of `View.split`


_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # how Python spells other bytes in file names


@dataclass(frozen=True, slots=True)
class View:
    """The files and the camera of one frame, without pixels.

    Attributes:
        stamp: seconds.
        image_path: the photograph.
        camera: intrinsics of the photograph at its own resolution.
        camtoworld: [4, 4] float64, OpenCV camera axes.
        distortion: lens distortion of the photograph.
        depth_path: z-depth image, or None.
        depth_unit_m: metres per stored depth unit; None: integers are millimetres, floats are metres.
        depth_camera: intrinsics of the depth image, if they are not those of the photograph at its size.
        label_path: index PNG, or None.
        class_masks: (class index, mask file) pairs that make up the labels; a later mask covers earlier ones.
        mask_path: image that tells which pixels show the scene, see `masks`; None: all do.
        annotated: annotations of named objects, or None.
        split: TRAINING, HELD_OUT or LEFT_OUT if the dataset divides its frames itself; else None.
    """

    stamp: float
    image_path: Path
    camera: Camera
    camtoworld: np.ndarray
    distortion: undistortion.Distortion = undistortion.NO_DISTORTION
    depth_path: Path | None = None
    depth_unit_m: float | None = None
    depth_camera: Camera | None = None
    label_path: Path | None = None
    class_masks: tuple[tuple[int, Path], ...] = ()
    mask_path: Path | None = None
    annotated: AnnotatedImage | None = None
    split: str | None = None


class Dataset:
    """Posed frames in order; the pixels of a frame are read on access.

    Attributes:
        name: name of the folder.
        format: one of `FORMATS`.
        cameras: the N pinhole cameras of the frames (undistorted, at the reading resolution).
        camtoworlds: [N, 4, 4] float64.
        stamps: [N] float64 seconds.
        names: the N frame names, unique and usable as file names.
        has_depth: whether any frame has depth.
        has_labels: whether any frame has labels.
        masked: number of frames with a mask.
        annotated: indices of the frames that have annotations.
        classes: class name per label index, `classes[0] == ""` for unlabelled; None without labels.
        points: sparse points (xyz [P, 3] float64 in the world frame, rgb [P, 3] uint8), or None.
        splits: TRAINING, HELD_OUT or LEFT_OUT per frame if the dataset divides its frames itself; else None.
    """

    def __init__(
        self,
        *,
        name: str,
        format: str,
        cameras: list[Camera],
        max_image_size: int,
        camtoworlds: np.ndarray,
        stamps: np.ndarray,
        names: list[str],
        has_depth: bool,
    ) -> None:
        """Sets the attributes of the same names; readers with labels or points set those afterwards.

        `cameras` are those at full resolution, `max_image_size` is as for `open_dataset`.
        """
        self.name = name
        self.format = format
        self._full_cameras = cameras
        self.cameras = [camera.fitted(max_image_size) for camera in cameras]
        self.camtoworlds = camtoworlds
        self.stamps = stamps
        self.names = names
        self.has_depth = has_depth
        self.has_labels = False
        self.masked = 0
        self.annotated: list[int] = []
        self.classes: list[str] | None = None
        self.points: tuple[np.ndarray, np.ndarray] | None = None
        self.splits: list[str] | None = None

    def resized(self, max_image_size: int) -> Dataset:
        """The same frames, read at another size; `max_image_size` as for `open_dataset`."""
        other = copy.copy(self)
        other.cameras = [camera.fitted(max_image_size) for camera in self._full_cameras]
        return other

    @property
    def class_names(self) -> list[str]:
        """The names of `classes` without those of unlabelled pixels; empty without labels."""
        return [name for name in self.classes or () if name]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Frame:
        """Reads frame `index` (negative counts from the end)."""
        raise NotImplementedError


class FileDataset(Dataset):
    """Frames whose photographs, depth and labels are files.

    Attributes:
        image_paths: the N photographs.
    """

    def __init__(
        self,
        name: str,
        format: str,
        views: list[View],
        classes: list[str] | None,
        points: tuple[np.ndarray, np.ndarray] | None,
        max_image_size: int,
    ):
        """Makes the dataset of the views that a reader found.

        Args:
            name: name of the dataset.
            format: format of the reader.
            views: at least one view, in order.
            classes: class names by label index, or None.
            points: sparse points, or None.
            max_image_size: longest image side in pixels; larger images are shrunk. 0: no limit.

        Raises:
            UserError: there are no views, or a distortion cannot be undone.
        """
        if not views:
            raise UserError(f"{name}: the dataset has no frames; check that its pose file lists images")
        self.image_paths = [view.image_path for view in views]
        self._views = views
        self._pinholes = _pinhole_cameras(views)
        self._maps_key: tuple | None = None
        self._maps: tuple[np.ndarray, np.ndarray] | None = None
        super().__init__(
            name=name,
            format=format,
            cameras=self._pinholes,
            max_image_size=max_image_size,
            camtoworlds=np.stack([view.camtoworld for view in views]),
            stamps=np.array([view.stamp for view in views], dtype=np.float64),
            names=_frame_names(self.image_paths),
            has_depth=any(view.depth_path is not None for view in views),
        )
        self.classes = classes
        self.points = points
        splits = [view.split for view in views if view.split is not None]
        self.splits = splits if splits else None
        self.has_labels = any(view.label_path is not None or view.class_masks for view in views)
        self.masked = sum(view.mask_path is not None for view in views)
        self.annotated = [index for index, view in enumerate(views) if view.annotated is not None]

    def __getitem__(self, index: int) -> Frame:
        """Reads, undistorts and resizes frame `index` (negative counts from the end).

        Raises:
            IndexError: there is no such frame.
            UserError: a file of the frame is missing, truncated, of the wrong kind or of another size.
        """
        view, camera = self._views[index], self.cameras[index]
        photograph = images.read_rgb(view.image_path)
        if photograph.shape[:2] != (view.camera.height, view.camera.width):
            raise UserError(
                f"{view.image_path}: the image changed size since the dataset was opened; open it again"
            )
        depth = None if view.depth_path is None else images.read_depth(view.depth_path, view.depth_unit_m)
        labels = self._read_labels(view)
        mask = self._read_mask(index)
        if view.distortion:
            photograph = undistortion.remap_color(photograph, self._undistortion_maps(index))
        return Frame(
            stamp=view.stamp,
            image=images.resize_rgb(photograph, camera.width, camera.height),
            camera=camera,
            camtoworld=view.camtoworld.copy(),
            depth=self._resample_depth(depth, index),
            labels=_visible(self._resample(labels, index, view.label_path or view.image_path), mask),
            name=self.names[index],
            annotations=self._annotations(index, mask),
            mask=mask,
        )

    def _read_mask(self, index: int) -> np.ndarray | None:
        """The pixels [H, W] of frame `index` that show the scene, or None."""
        path = self._views[index].mask_path
        if path is None:
            return None
        mask = self._undistorted(images.read_scene_mask(path), index, path)
        return images.resize_mask(mask, self.cameras[index].width, self.cameras[index].height)

    def _annotations(self, index: int, mask: np.ndarray | None) -> dict[str, Annotation] | None:
        """The annotations of frame `index`, resampled for its camera, where `mask` shows the scene."""
        annotated = self._views[index].annotated
        if annotated is None:
            return None
        return {
            name: Annotation(
                *(_visible(self._resample(p, index, annotated.path), mask) for p in (drawn.mask, drawn.boxes))
            )
            for name, drawn in annotated.draw().items()
        }

    def _read_labels(self, view: View) -> np.ndarray | None:
        if view.label_path is not None:
            return images.read_labels(view.label_path, self.classes)
        if not view.class_masks:
            return None
        labels: np.ndarray | None = None
        for index, path in view.class_masks:
            mask = images.read_mask(path)
            if labels is None:
                labels = np.zeros(mask.shape, dtype=images.label_dtype(self.classes))
            if mask.shape != labels.shape:
                raise UserError(
                    f"{path}: mask is {mask.shape[1]}x{mask.shape[0]}, the view's other masks are "
                    f"{labels.shape[1]}x{labels.shape[0]}; give all of one view the same size"
                )
            labels[mask] = index
        return labels

    def _resample(self, array: np.ndarray | None, index: int, path: Path | None) -> np.ndarray | None:
        """Resamples depth or labels [h, w] for the camera of frame `index`, by nearest neighbour."""
        if array is None:
            return None
        camera = self.cameras[index]
        return images.resize_nearest(self._undistorted(array, index, path), camera.width, camera.height)

    def _undistorted(self, array: np.ndarray, index: int, path: Path | None) -> np.ndarray:
        """Depth, labels or a mask [h, w] without the lens distortion of frame `index`; any size."""
        view = self._views[index]
        size, photograph = (array.shape[1], array.shape[0]), (view.camera.width, view.camera.height)
        if not images.same_aspect(size, photograph):
            raise UserError(
                f"{path}: {size[0]}x{size[1]} does not match its image {view.image_path.name} of "
                f"{photograph[0]}x{photograph[1]}; give both the same field of view"
            )
        if view.distortion:
            return undistortion.remap_nearest(
                images.resize_nearest(array, *photograph), self._undistortion_maps(index)
            )
        return array

    def _resample_depth(self, depth: np.ndarray | None, index: int) -> np.ndarray | None:
        """Resamples depth [h, w] for the camera of frame `index`, by nearest neighbour.

        A depth camera of its own sits where the colour camera sits, so that only the rays count.
        """
        view, camera = self._views[index], self.cameras[index]
        if depth is None or view.depth_camera is None:
            return self._resample(depth, index, view.depth_path)
        if depth.shape != (view.depth_camera.height, view.depth_camera.width):
            raise UserError(
                f"{view.depth_path}: {depth.shape[1]}x{depth.shape[0]}, but its camera is for "
                f"{view.depth_camera.width}x{view.depth_camera.height}"
            )
        x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
        across = view.depth_camera.K @ np.linalg.inv(camera.K)  # between pixels of one ray
        maps = tuple(
            (across[axis, 0] * x + across[axis, 1] * y + across[axis, 2] - 0.5).astype(np.float32)
            for axis in (0, 1)
        )
        return undistortion.remap_nearest(depth, maps)

    def _undistortion_maps(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The maps of frame `index`; the last maps are cached, since most frames share one calibration."""
        view = self._views[index]
        key = _calibration_key(view)
        if self._maps is None or key != self._maps_key:
            self._maps = undistortion.undistortion_maps(view.camera, view.distortion, self._pinholes[index])
            self._maps_key = key
        return self._maps


def _visible(array: np.ndarray | None, mask: np.ndarray | None) -> np.ndarray | None:
    """Labels or annotated pixels [H, W] where `mask` shows the scene, else 0."""
    return array if array is None or mask is None else np.where(mask, array, array.dtype.type(0))


def _calibration_key(view: View) -> tuple:
    return view.camera.K.tobytes(), view.camera.width, view.camera.height, view.distortion


def _pinhole_cameras(views: list[View]) -> list[Camera]:
    """The undistorted camera of each view, computed once per calibration."""
    known: dict[tuple, Camera] = {}
    for view in views:
        key = _calibration_key(view)
        if key not in known:
            known[key] = _pinhole_camera(view)
    return [known[_calibration_key(view)] for view in views]


def _pinhole_camera(view: View) -> Camera:
    target = undistortion.undistorted_camera(view.camera, view.distortion, str(view.image_path))
    if view.distortion and not undistortion.is_invertible(view.camera, view.distortion, target):
        coefficients = [round(k, 4) for k in view.distortion.coefficients]
        raise UserError(
            f"{view.image_path}: distortion {coefficients} cannot be undone over the whole image; undistort "
            "the images first (e.g. colmap image_undistorter)"
        )
    return target


def _frame_names(paths: list[Path]) -> list[str]:
    """File stems, with the folder's name if stems repeat, or the index if those repeat too."""
    stems, parents = (
        [_printable(name) for name in names]
        for names in ([path.stem for path in paths], [path.parent.name for path in paths])
    )
    for names in (stems, [f"{parent}_{stem}" for parent, stem in zip(parents, stems, strict=True)]):
        if len(set(names)) == len(names):
            return names
    return [f"{i:05d}_{stem}" for i, stem in enumerate(stems)]


def _printable(name: str) -> str:
    """The name with "_" for bytes that are not UTF-8: it is written to files and screens."""
    return _NOT_UTF8.sub("_", name)
