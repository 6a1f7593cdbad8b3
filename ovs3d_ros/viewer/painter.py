"""Pictures of the map for pages without a graphics card. Imports no torch, and Numba when it is needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ovs3d_ros.geometry import invert_rigid
from ovs3d_ros.types import UserError
from ovs3d_ros.viewer.drawing import Drawn
from ovs3d_ros.viewer.views import camera_pose
from ovs3d_ros.visualization import pictures

if TYPE_CHECKING:
    from ovs3d_ros.rasterize.thread_pool import ThreadPool

# Whatever a page says of itself.
_MIN_SIDE, _MAX_SIDE = 16, 16384  # px
_FOVS = 0.01, 3.0  # radians
_FARTHEST = 1e6  # metres


class Look(NamedTuple):
    """From where a visitor looks, and the size of his page in pixels."""

    pose: np.ndarray  # [4, 4] camera to world
    fov: float  # vertical, radians
    width: int
    height: int


def read_look(camera: Any) -> Look | None:
    """From where a viser camera looks; None if a page says what no camera can be."""
    try:
        size = int(camera.image_width), int(camera.image_height)
        look = Look(camera_pose(camera.wxyz, camera.position), float(camera.fov), *size)
    except (TypeError, ValueError, OverflowError, UserError):
        return None
    is_sane = (np.abs(look.pose) < _FARTHEST).all() and _FOVS[0] < look.fov < _FOVS[1]
    return look if is_sane and all(0 < side <= _MAX_SIDE for side in size) else None


class Painter:
    """Renders pictures on one core, once its kernels are loaded or compiled, which another thread does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPool | None = None
        self._waiting: list[Callable[[], None]] | None = None  # None: nobody has asked for a picture yet

    def call_when_ready(self, action: Callable[[], None]) -> None:
        """Calls `action` as soon as pictures can be painted, on this thread or on another."""
        with self._lock:
            if self._pool is None:
                if self._waiting is None:
                    self._waiting = []
                    threading.Thread(target=self._prepare, name="painter", daemon=True).start()
                self._waiting.append(action)
                return
        action()

    def _prepare(self) -> None:
        from ovs3d_ros.rasterize.thread_pool import ThreadPool

        pool = ThreadPool(1)
        quat = np.array([[1, 0, 0, 0]], np.float32)
        center, size, color = (np.full((1, 3), value, np.float32) for value in (1.0, 0.1, 0.5))
        dot = Drawn(center, np.zeros((1, 3, 3), np.float32), color, color[:, :1], quat, size)
        _paint(pool, dot, Look(np.eye(4), 2.0, _MIN_SIDE, _MIN_SIDE), 1.0)
        with self._lock:
            self._pool, waiting = pool, self._waiting or []
        for action in waiting:
            action()

    def paint(self, drawn: Drawn, look: Look, pixels: int) -> np.ndarray:
        """A picture [H, W, 3] uint8 on white, of about `pixels` pixels at most. Needs `call_when_ready`."""
        assert self._pool is not None
        factor = min(1.0, (pixels / (look.width * look.height)) ** 0.5)
        return _paint(self._pool, drawn, look, factor)


def _paint(pool: ThreadPool, drawn: Drawn, look: Look, factor: float) -> np.ndarray:
    from ovs3d_ros.rasterize.cpu_picture import render_picture
    from ovs3d_ros.rasterize.cpu_view import SceneArrays
    from ovs3d_ros.rasterize.kernels_project import CameraArrays

    width, height = (int(np.clip(round(side * factor), _MIN_SIDE, _MAX_SIDE)) for side in look[2:])
    # The page stretches the picture, whose sides are whole pixels, over itself.
    tangent = np.tan(look.fov / 2)
    focal_x, focal_y = width / (2 * tangent * look.width / look.height), height / (2 * tangent)
    K = np.array([[focal_x, 0, width / 2], [0, focal_y, height / 2], [0, 0, 1]])
    columns = drawn.centers, drawn.quats, drawn.scales, drawn.opacities[:, 0], drawn.colors / np.float32(255)
    arrays = [np.ascontiguousarray(column, np.float32) for column in columns]
    scene = SceneArrays.from_arrays([*arrays, np.empty((len(arrays[0]), 0, 3), np.float32)])
    image, transmittance = render_picture(
        pool, scene, CameraArrays(invert_rigid(look.pose), K, width, height)
    )
    return pictures.to_uint8(image + transmittance[..., None])
