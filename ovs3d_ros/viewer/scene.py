"""What one visitor sees in the map: boxes and names, keyframes, and a measured line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ovs3d_ros.geometry import box_corners, matrix_to_quat
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.types import Camera, MapSnapshot, SemanticObject
from ovs3d_ros.visualization import pictures

MAX_FRUSTUMS = 150
MAX_BOXES = 100
_EDGES = np.array([(a, b) for a in range(8) for b in range(a) if a ^ b in (1, 2, 4)])  # of `box_corners`
_FRUSTUM_COLOR, _RULER_COLOR = (25, 160, 110), (255, 0, 255)


def box_edges(item: SemanticObject) -> np.ndarray:
    """The edges [12, 2, 3] of an object's box, metres."""
    return box_corners(item.center, item.size, item.quat)[_EDGES]


def box_top(item: SemanticObject) -> np.ndarray:
    """The middle [3] of the upper side of an object's box."""
    return np.array([*item.center[:2], box_edges(item)[..., 2].max()])


def vertical_fov(camera: Camera) -> float:
    """The vertical field of view in radians."""
    return float(2 * np.arctan(camera.height / (2 * camera.K[1, 1])))


def place_camera(client: Any, pose: np.ndarray, fov: float) -> None:
    """Puts the camera of a viser client at a pose [4, 4], with a vertical field of view in radians."""
    with client.atomic():
        client.camera.up_direction = -pose[:3, 1]
        client.camera.position = pose[:3, 3]
        client.camera.look_at = pose[:3, 3] + pose[:3, 2]
        client.camera.fov = fov


class VisitorScene:
    """The nodes of one visitor; only one thread changes them."""

    def __init__(self, scene: Any, on_keyframe: Callable[[int], None]) -> None:
        """Starts empty.

        Args:
            scene: of a viser client.
            on_keyframe: called on the event loop with the index of a keyframe that was clicked.
        """
        self._scene = scene
        self._on_keyframe = on_keyframe
        self._answer: list[Any] = []
        self._ruler: list[Any] = []
        self._frustums: dict[int, tuple[Any, np.ndarray]] = {}

    def show_objects(self, objects: list[SemanticObject], prompts: tuple[str, ...]) -> None:
        """Shows boxes and names, instead of the earlier ones."""
        for node in self._answer:
            node.remove()
        self._answer = []
        shown = sorted(objects, key=lambda item: -item.score)[:MAX_BOXES]
        if not shown:
            return
        colors = pictures.label_colors(len(prompts))
        for label in sorted({item.label for item in shown}):
            edges = np.concatenate([box_edges(item) for item in shown if item.label == label])
            self._answer.append(
                self._scene.add_line_segments(
                    f"/answer/boxes/{label}",
                    edges.astype(np.float32),
                    tuple(colors[label].tolist()),
                    thickness=2.0,
                    thickness_units="screen",
                )
            )
        for item in shown:
            name = f"/answer/names/{item.instance}"
            text = f"{item.prompt} {item.score:.2f}"
            self._answer.append(
                self._scene.add_label(name, text, position=box_top(item), anchor="bottom-center")
            )

    def show_keyframes(self, snapshot: MapSnapshot | None) -> None:
        """Shows the frustums of the keyframes, evenly thinned; None hides them."""
        count = len(snapshot.cameras) if snapshot is not None else 0
        chosen = set(evenly_spaced_indices(count, MAX_FRUSTUMS).tolist())
        for index in set(self._frustums) - chosen:
            self._frustums.pop(index)[0].remove()
        for index in sorted(chosen):
            assert snapshot is not None
            pose = snapshot.camtoworlds[index]
            if index in self._frustums and np.array_equal(self._frustums[index][1], pose):
                continue
            self._frustums[index] = (self._add_frustum(index, snapshot.cameras[index], pose), pose.copy())

    def _add_frustum(self, index: int, camera: Camera, pose: np.ndarray) -> Any:
        frustum = self._scene.add_camera_frustum(
            f"/keyframes/{index}",
            fov=vertical_fov(camera),
            aspect=camera.width / camera.height,
            scale=0.05,
            thickness=1.5,
            thickness_units="screen",
            color=_FRUSTUM_COLOR,
            wxyz=matrix_to_quat(pose[:3, :3]),
            position=pose[:3, 3],
        )

        async def react(_: Any) -> None:
            self._on_keyframe(index)

        frustum.on_click(react)
        return frustum

    def show_ruler(self, points: list[np.ndarray]) -> None:
        """Shows the points [3] that were clicked, and the distance if there are two."""
        for node in self._ruler:
            node.remove()
        self._ruler = [
            self._scene.add_icosphere(f"/ruler/{i}", radius=0.015, color=_RULER_COLOR, position=point)
            for i, point in enumerate(points)
        ]
        if len(points) == 2:
            line = np.stack(points)[None].astype(np.float32)
            self._ruler += [
                self._scene.add_line_segments(
                    "/ruler/line", line, _RULER_COLOR, thickness=3.0, thickness_units="screen"
                ),
                self._scene.add_label(
                    "/ruler/text", f"{np.linalg.norm(points[1] - points[0]):.2f} m", position=line[0].mean(0)
                ),
            ]
