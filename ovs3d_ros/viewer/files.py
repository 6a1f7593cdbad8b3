"""The files that a visitor saves: a picture, an answer, a camera path."""

from __future__ import annotations

import io
import json
import logging
import threading
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.map_frame import object_to_world, poses_to_world
from ovs3d_ros.query.description import describe
from ovs3d_ros.types import MapFrame, MapSnapshot, QueryResult
from ovs3d_ros.viewer import views

log = logging.getLogger(__name__)

MAX_VIEWS = 1000  # of a camera path
_PICTURE_TIMEOUT = 10.0  # seconds a browser has to send what it shows
_MAX_PICTURE = 1920  # px


class VisitorFiles:
    """Sends files to one visitor, and keeps the views of his camera path."""

    def __init__(self, client: Any) -> None:
        """Takes a viser client."""
        self._client = client
        self._path: list[tuple[np.ndarray, float]] = []
        self._saving = threading.Lock()

    def keep_view(self) -> int:
        """Adds the present view to the camera path; returns how many it has."""
        camera = self._client.camera
        if len(self._path) < MAX_VIEWS:
            self._path.append((views.camera_pose(camera.wxyz, camera.position), float(camera.fov)))
        return len(self._path)

    def save_path(self, snapshot: MapSnapshot | None, place: MapFrame) -> None:
        """Sends the camera path in the world, unless it is empty; `place` is the frame that is drawn."""
        if self._path:
            up = views.up_direction(snapshot.camtoworlds if snapshot is not None else np.empty((0, 4, 4)))
            path = [(poses_to_world(pose, place), angle) for pose, angle in self._path]
            text = views.camera_path(path, float(self._client.camera.aspect), up)
            self.send("camera_path.json", text.encode())

    def save_answer(
        self, result: QueryResult, snapshot: MapSnapshot, config: QueryConfig, place: MapFrame
    ) -> None:
        """Sends an answer as objects.json, in the world.

        Args:
            result: the answer.
            snapshot: the map that answered, as if its frame were the world.
            config: settings of the answer.
            place: its frame.
        """
        objects = [object_to_world(item, place) for item in result.objects]
        document = describe(replace(result, objects=objects), replace(snapshot, frame=place), config)
        self.send("objects.json", json.dumps(document, indent=2, default=np.ndarray.tolist).encode())

    def save_picture(self) -> None:
        """Asks the browser for what it shows and sends it back as a file, on a thread that may wait."""
        threading.Thread(target=self._save_picture, daemon=True).start()

    def _save_picture(self) -> None:
        if not self._saving.acquire(blocking=False):
            return  # the last picture is still on its way
        try:
            camera = self._client.camera
            factor = min(1.0, _MAX_PICTURE / max(camera.image_width, camera.image_height))
            size = max(1, round(camera.image_height * factor)), max(1, round(camera.image_width * factor))
            picture = self._client.get_render(*size, transport_format="png", timeout=_PICTURE_TIMEOUT)
            image, file = Image.fromarray(picture).convert("RGBA"), io.BytesIO()
            paper = Image.new("RGBA", image.size, "white")
            Image.alpha_composite(paper, image).convert("RGB").save(file, "PNG")
            self.send("view.png", file.getvalue())
        except (RuntimeError, TimeoutError) as error:  # the browser left, or its page sleeps
            log.info("no picture for a visitor: %s", error)
        finally:
            self._saving.release()

    def send(self, name: str, content: bytes) -> None:
        """Makes the browser save a file."""
        self._client.send_file_download(name, content, save_immediately=True)
