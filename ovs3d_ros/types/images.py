"""Cameras, frames and keyframes, and the features of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # annotations only: reading datasets and messages needs no torch
    import torch


class UserError(ValueError):
    """Bad input. The message is one line that names what is wrong and says what to do about it."""


@dataclass(frozen=True, slots=True)
class Camera:
    """An undistorted pinhole camera.

    Attributes:
        K: [3, 3] float64 intrinsics in pixels; pixel centres lie at +0.5.
        width: image width in pixels.
        height: image height in pixels.
    """

    K: np.ndarray
    width: int
    height: int

    def scaled(self, width: int, height: int) -> Camera:
        """The same camera at another resolution (exact because pixel centres lie at +0.5)."""
        factors = np.array([width / self.width, height / self.height, 1.0])
        return Camera(self.K * factors[:, None], width, height)

    def fitted(self, max_side: int) -> Camera:
        """The same camera with its longer side at most `max_side` pixels (0: unchanged)."""
        factor = max_side / max(self.width, self.height) if max_side else 1.0
        if factor >= 1.0:
            return self
        return self.scaled(max(1, round(self.width * factor)), max(1, round(self.height * factor)))


@dataclass(frozen=True, slots=True)
class Annotation:
    """The pixels of one name in a frame; the masks of different names may overlap.

    Attributes:
        mask: [H, W] bool, the pixels of the named things.
        boxes: [H, W] bool, the pixels inside one of their bounding boxes.
    """

    mask: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True, slots=True)
class Frame:
    """One posed camera image, as read from a dataset or a robot.

    Attributes:
        stamp: seconds.
        image: [H, W, 3] uint8 RGB.
        camera: intrinsics of that image.
        camtoworld: [4, 4] float64, OpenCV camera axes, metres (else see `map.unit`).
        depth: [H, W] float32 z in the unit of `camtoworld`, 0 = none; or None.
        labels: [H, W] integer class index, 0 = unlabelled; or None. Never used for mapping.
        name: used in messages and file names.
        sensor: name of the camera, where there are several. Keyframes are chosen for each camera on its own.
        annotations: the annotated names of this frame; or None. Never used for mapping.
        mask: [H, W] bool, false at pixels that do not show the scene and take no part (people); or None.
    """

    stamp: float
    image: np.ndarray
    camera: Camera
    camtoworld: np.ndarray
    depth: np.ndarray | None = None
    labels: np.ndarray | None = None
    name: str = ""
    sensor: str = ""
    annotations: dict[str, Annotation] | None = None
    mask: np.ndarray | None = None


@dataclass(slots=True)
class CropTable:
    """CLIP embeddings of the crops of one image, or of the cells of a dense feature map.

    The table is about a thousand times smaller than the per-pixel features it replaces.

    Attributes:
        boxes: [M, 4] float32 left, top, right, bottom, as fractions of the image's width and height.
        levels: [M] int64 index of the pyramid level.
        embeddings: [M, D] float32, as the encoder gave them (not normalised).
        num_levels: number of pyramid levels.
        grid: (rows, columns) if the crops are the cells of one dense feature map in row-major order, else
            None. A dense map is interpolated between cell centres; crops are averaged over their pixels.
    """

    boxes: torch.Tensor
    levels: torch.Tensor
    embeddings: torch.Tensor
    num_levels: int
    grid: tuple[int, int] | None = None


@dataclass(slots=True)
class KeyframeView:
    """Where and when a keyframe was taken: all of it but its pixels and features.

    Attributes: those of `Keyframe`.
    """

    index: int
    stamp: float
    name: str
    camera: Camera
    camtoworld: np.ndarray
    sensor: str = ""


@dataclass(slots=True)
class Keyframe:
    """A frame the map is trained on, at the mapping resolution.

    Attributes:
        index: running number.
        stamp: seconds.
        name: the frame's name.
        image: [H, W, 3] uint8 RGB: a quarter of the memory of float32.
        camera: intrinsics of `image`.
        camtoworld: [4, 4] float64.
        depth: [H, W] float32 in the unit of `camtoworld`, 0 = none; or None.
        crops: CLIP crop table; None before the keyframe is encoded.
        sensor: name of the frame's camera.
        mask: [H, W] bool, false for pixels that take no part; None: all do.
    """

    index: int
    stamp: float
    name: str
    image: torch.Tensor
    camera: Camera
    camtoworld: np.ndarray
    depth: torch.Tensor | None = None
    crops: CropTable | None = None
    sensor: str = ""
    mask: torch.Tensor | None = None

    @property
    def rgb(self) -> torch.Tensor:
        """[H, W, 3] float32 RGB in 0..1."""
        return self.image.float() / 255
