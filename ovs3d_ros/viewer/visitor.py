"""One visitor of the viewer: does what the panel asks for, on the viewer's thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ovs3d_ros.types import MapSnapshot, QueryResult, UserError
from ovs3d_ros.viewer import views
from ovs3d_ros.viewer.display import Display, Request
from ovs3d_ros.viewer.files import VisitorFiles
from ovs3d_ros.viewer.panel import Handlers, Panel
from ovs3d_ros.viewer.ruler import Ruler
from ovs3d_ros.viewer.scene import VisitorScene, place_camera, vertical_fov
from ovs3d_ros.viewer.source import MapSource
from ovs3d_ros.viewer.splats import Splats, mode_colors
from ovs3d_ros.visualization import pictures

_PHOTO_SIZE = 480  # px, longer side of photograph and render
_FLIGHT, _FLIGHT_STEPS = 0.5, 15  # seconds, and pictures of it
_CAMERA_PAUSE = 0.3  # seconds until a camera that moved counts as resting
_LOADING = "The models that read names are being loaded; the answer follows"


class Visitor:
    """The state of one visitor.

    Methods without underscore run on the viewer's thread. What the browser sends arrives on viser's event
    loop and becomes a request, see `RequestQueue`.
    """

    def __init__(
        self,
        client: Any,
        display: Display,
        newest: Callable[[], MapSnapshot | None],
        source: Callable[[], MapSource],
        make_splats: Callable[[MapSnapshot], Splats],
        find_parts: Callable[[MapSnapshot], np.ndarray],
    ) -> None:
        """Takes a visitor; `start` adds what it sees.

        Args:
            client: of viser.
            display: shows the map to the visitor.
            newest: the newest map, in its own frame.
            source: where it comes from, at present.
            make_splats: the drawn Gaussians of a map.
            find_parts: the part [N] of each Gaussian.
        """
        self._client = client
        self._display = display
        self._newest = newest
        self._get_source = source
        self._make_splats = make_splats
        self._find_parts = find_parts
        self._result: QueryResult | None = None
        self._answered: MapSnapshot | None = None  # the map that answered
        self._shown: tuple | None = None
        self._files = VisitorFiles(client)
        self._left = False

    def start(self, request: Request) -> None:
        """Adds panel and scene, on viser's event loop.

        Args:
            request: queues an action of a kind, to run after some seconds.
        """
        self._request = request
        self._scene = VisitorScene(
            self._client.scene, lambda index: request("stand", lambda: self.stand(index), 0.0)
        )
        handlers = Handlers(
            ask=lambda delay: request("ask", self.ask, delay),
            look=lambda: request("look", self.look, 0.0),
            fly=lambda index: request("fly", lambda: self.fly(index), 0.0),
            measure=lambda on: request("measure", lambda: self.measure(on), 0.0),
            save=lambda kind: request(("save", kind), lambda: self.save(kind), 0.0),
            keep_view=lambda: request("view", self.keep_view, 0.0),
        )
        source = self._get_source()
        self._panel = Panel(self._client.gui, handlers, source.searchable, source.pipeline.label_threshold())
        self._ruler = Ruler(self._client, self._scene, self._panel.show_distance)

        async def moved(_: Any) -> None:
            if self._panel.mode == "depth":
                request("look", self.look, _CAMERA_PAUSE)

        self._client.camera.on_update(moved)
        request("look", self.look, 0.0)

    def leave(self) -> None:
        """Ends what is under way: the page was closed."""
        self._left = True

    def take_source(self) -> None:
        """Goes on with a map that can answer: shows its calibrated threshold, and answers what was asked."""
        self._shown = None
        self._panel.set_usual_threshold(self._get_source().pipeline.label_threshold())
        self.ask()

    def ask(self) -> None:
        """Answers the panel's question in the newest map, and shows the answer."""
        if not self._get_source().ready:
            self._panel.show_problem(_LOADING)
            return
        try:
            names = self._panel.names
            snapshot = self._newest()
            if not names or snapshot is None:
                self._result = self._answered = None
            else:
                with self._get_source().claim():
                    self._result = self._get_source().pipeline.query(
                        names, snapshot=snapshot, threshold=self._panel.threshold
                    )
                self._answered = snapshot
        except UserError as error:
            self._result = self._answered = None
            self._panel.show_answer(None)
            self._panel.show_problem(str(error))
        else:
            self._panel.show_answer(self._result)
        self.look()

    def look(self) -> None:
        """Shows map, answer and keyframes as the panel says."""
        if self._left:
            return
        snapshot = self._answered or self._newest()
        panel, result = self._panel, self._result
        self._scene.show_keyframes(snapshot if panel.shows_keyframes else None)
        objects = result.objects if result is not None and panel.shows_boxes else []
        self._scene.show_objects(objects, result.prompts if result is not None else ())
        if snapshot is None:
            self._display.show(None)
            self._shown = None
            return
        eye = np.asarray(self._client.camera.position, float) if panel.mode == "depth" else None
        if panel.mode == "colour" and result is not None and not result.objects:
            result = None  # nothing to mark
        wish = snapshot.version, panel.mode, panel.opacity, id(result), None if eye is None else tuple(eye)
        if wish != self._shown:
            self._shown = wish
            splats = self._make_splats(snapshot)
            colors = mode_colors(panel.mode, splats, result, eye, self._find_parts)
            self._display.show(splats.drawn.tinted(colors, panel.opacity))

    def fly(self, index: int) -> None:
        """Moves the camera to an object of the answer."""
        if self._result is not None and self._answered is not None and index < len(self._result.objects):
            eye, target = views.object_view(self._result.objects[index], self._answered)
            self._move_camera(eye, target)

    def _move_camera(self, eye: np.ndarray, target: np.ndarray) -> None:
        """Moves the camera in a short flight, so that the visitor does not lose his bearings."""
        camera = self._client.camera
        old_eye, old_target = np.asarray(camera.position, float), np.asarray(camera.look_at, float)
        for step in range(1, _FLIGHT_STEPS + 1):
            if self._left:
                return
            share = step / _FLIGHT_STEPS
            smooth = share * share * (3 - 2 * share)
            with self._client.atomic():
                camera.position = old_eye + smooth * (eye - old_eye)
                camera.look_at = old_target + smooth * (target - old_target)
            self._client.flush()
            time.sleep(_FLIGHT / _FLIGHT_STEPS)

    def stand(self, index: int) -> None:
        """Puts the camera where a keyframe was taken, and shows its photograph beside the render."""
        snapshot = self._answered or self._newest()
        if snapshot is None or index >= len(snapshot.cameras):
            return  # the map was replaced meanwhile
        pose, camera = snapshot.camtoworlds[index], snapshot.cameras[index].fitted(_PHOTO_SIZE)
        place_camera(self._client, pose, vertical_fov(camera))
        rendered = pictures.to_uint8(
            self._get_source().pipeline.render(camera, pose, snapshot).rgb.cpu().numpy()
        )
        tiles, captions = [rendered], ["render"]
        photo = self._get_source().photo(snapshot, index)
        if photo is not None:
            tiles, captions = [photo, rendered], ["photograph", "render"]
        self._panel.show_keyframe(pictures.contact_sheet(tiles, captions, columns=2, width=_PHOTO_SIZE * 2))

    def measure(self, on: bool) -> None:
        """Starts or ends measuring: two clicks give a distance."""
        self._ruler.switch(on, lambda *ray: self._request("pick", lambda: self.pick(ray), 0.0))

    def pick(self, ray: tuple[np.ndarray, np.ndarray]) -> None:
        """Takes the point that was clicked, by the origin [3] and direction [3] of its ray."""
        snapshot = self._newest()
        if snapshot is not None:
            self._ruler.pick(self._get_source().pipeline, snapshot, ray)

    def keep_view(self) -> None:
        """Adds the present view to the camera path."""
        self._panel.count_views(self._files.keep_view())

    def save(self, kind: str) -> None:
        """Sends a file to the browser: the picture, the camera path or the answer."""
        if kind == "picture":
            self._files.save_picture()
        elif kind == "path":
            self._files.save_path(self._newest(), self._get_source().pipeline.map.frame)
        elif self._result is not None and self._answered is not None:
            pipeline = self._get_source().pipeline
            self._files.save_answer(self._result, self._answered, pipeline.config.query, pipeline.map.frame)
