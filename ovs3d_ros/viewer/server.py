"""`MapViewer`: serves a map to browsers, on a thread of its own."""

from __future__ import annotations

import gc
import logging
import threading
import time
from typing import Any

from ovs3d_ros.config import ViewerConfig
from ovs3d_ros.query.memo import SnapshotMemo
from ovs3d_ros.query.parts import find_map_parts
from ovs3d_ros.types import MapSnapshot
from ovs3d_ros.viewer import views
from ovs3d_ros.viewer.requests import run_and_log
from ovs3d_ros.viewer.source import MapSource, in_map_frame
from ovs3d_ros.viewer.splats import Splats, make_splats
from ovs3d_ros.viewer.stage import Stage
from ovs3d_ros.viewer.visitor import Visitor

log = logging.getLogger(__name__)

LIVE_PERIOD = 2.0  # seconds between two pictures of a growing map
_COLLECTION_PERIOD = 5.0  # seconds between two collections of what visitors have left behind
_LIVE_SHARE = 0.5  # of the time that the viewer may compute while the map grows
_EVERYBODY = -1  # number of a visitor that no page has
_STOP_TIMEOUT = 5.0  # seconds


class MapViewer:
    """Shows a map to visitors with browsers.

    One thread computes for all visitors, so that they do not take more than one processor core from the
    mapping. While nobody looks, it does nothing.
    """

    def __init__(
        self, source: MapSource, config: ViewerConfig, title: str, stage: Stage | None = None
    ) -> None:
        """Opens the port and starts the thread.

        Args:
            source: the map.
            config: port and host.
            title: of the panel.
            stage: the port, if it is open already, with the map of a source that is not live.

        Raises:
            UserError: viser is not installed, or the address cannot be used.
        """
        self._source = source
        self._config = config
        self._visitors: dict[int, Visitor] = {}
        self._lock = threading.Lock()  # guards the visitors
        self._garbage = False  # a visitor has left
        self._cache: tuple[int, MapSnapshot] | None = None  # version, and snapshot in the map frame
        self._splats: Splats | None = None
        self._find_parts = SnapshotMemo(lambda m: find_map_parts(m, self._source.pipeline.config.refine))
        self._shown: MapSnapshot | None = None  # the map that all visitors see
        self._stage = stage or Stage(config, title)
        self._server = self._stage.server
        self._requests = self._stage.thread.requests
        self.port: int = self._stage.port
        if not source.live:
            self._show_map()
        # Beside the first visitors, because compiling may take a minute. The node has warmed up already.
        self._warming = threading.Thread(target=run_and_log, args=(self._warm_up,), daemon=True)
        self._collection = self._growth = time.monotonic()  # when the next ones are due
        self._stage.hand_over(self._between)
        self._server.on_client_connect(self._welcome)
        self._server.on_client_disconnect(self._dismiss)
        if not source.live and source.ready:
            self._warming.start()

    def take_source(self, source: MapSource) -> None:
        """Goes on with the same map, now that its models are loaded (`MapSource.ready`); any thread."""
        self._requests.put(_EVERYBODY, "source", lambda: self._take_source(source))

    def _take_source(self, source: MapSource) -> None:
        self._source, self._cache, self._splats = source, None, None
        self._shown = self._newest()
        with self._lock:
            visitors = list(self._visitors.items())
        for number, visitor in visitors:
            self._requests.put(number, "source", visitor.take_source)
        self._warming.start()

    @property
    def address(self) -> str:
        """Where a browser finds the viewer."""
        return self._stage.address

    @property
    def num_visitors(self) -> int:
        """The number of open pages."""
        return len(self._visitors)

    def close(self) -> None:
        """Disconnects all visitors and ends the thread."""
        self._stage.close()
        if self._warming.is_alive():
            self._warming.join(_STOP_TIMEOUT)

    async def _welcome(self, client: Any) -> None:
        display = self._stage.display(client.client_id)
        if display is None:
            return
        visitor = Visitor(
            client,
            display,
            self._newest,
            lambda: self._source,
            self._make_splats,
            self._find_parts,
        )
        with self._lock:  # a source that comes now is told to the visitor, or is what it starts with
            visitor.start(
                lambda kind, action, delay: self._requests.put(client.client_id, kind, action, delay)
            )
            self._visitors[client.client_id] = visitor

    async def _dismiss(self, client: Any) -> None:
        with self._lock:
            visitor = self._visitors.pop(client.client_id, None)
        if visitor is not None:
            visitor.leave()
            self._garbage = True

    def _newest(self) -> MapSnapshot | None:
        """The newest map, in its own frame: a browser's float32 rounds far from the origin."""
        snapshot = self._source.newest()
        if snapshot is None:
            return None
        if self._cache is None or self._cache[0] != snapshot.version:
            self._cache = snapshot.version, in_map_frame(snapshot)
        return self._cache[1]

    def _make_splats(self, snapshot: MapSnapshot) -> Splats:
        if self._splats is None or self._splats.snapshot is not snapshot:
            self._splats = make_splats(snapshot, self._config.max_splats)
        return self._splats

    def _between(self, started: float) -> None:
        """Shows a map that has grown, and leaves time to mapping. The last request began at `started`."""
        if self._garbage and started >= self._collection:
            # A visitor lies in reference cycles of viser, and Python counts objects, not megabytes.
            self._garbage = False
            gc.collect()
            self._collection = time.monotonic() + _COLLECTION_PERIOD
        if self._source.live and self._visitors and started >= self._growth:
            run_and_log(self._show_growth)
            self._growth = time.monotonic() + LIVE_PERIOD
        if self._source.live:
            # Mapping comes first: however large the map and whatever visitors ask for, cores stay free.
            time.sleep((time.monotonic() - started) * (1 / _LIVE_SHARE - 1))

    def _warm_up(self) -> None:
        """Compiles and loads what the first answer and the first click would wait for."""
        snapshot, pipeline = self._newest(), self._source.pipeline
        if snapshot is None:
            return
        outlook = views.overview(snapshot)
        views.pick_point(pipeline, snapshot, outlook.eye, outlook.target - outlook.eye)
        if pipeline.clip is not None:
            pipeline.query(["object"], snapshot=snapshot)

    def _show_growth(self) -> None:
        """Shows the newest map to everybody, if it has changed."""
        if self._newest() is self._shown:
            return
        self._show_map()
        with self._lock:
            visitors = list(self._visitors.items())
        for number, visitor in visitors:
            self._requests.put(number, "refresh", visitor.ask)

    def _show_map(self) -> None:
        """Takes the newest map for shown; visitors are shown it one by one."""
        self._shown = snapshot = self._newest()
        if snapshot is None:
            self._splats = None
        else:
            self._stage.place_visitors(views.overview(snapshot))
