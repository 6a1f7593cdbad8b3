"""`~/mask`: where things of given names stand, as a mask for nav2's keepout filter."""

from __future__ import annotations

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from ovs3d_ros.config import Config
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.approach import keep_out_grid
from ovs3d_ros.query.navigation import Grid
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.callbacks import start_timer
from ovs3d_ros.ros.outputs.publishers import LATCHED, LatchedTopic
from ovs3d_ros.types import MapSnapshot
from ovs3d_ros.worker import MappingWorker

PERIOD = 1.0  # seconds between looks at the map
KEEPOUT_FILTER = 0  # type of the filter in nav2_msgs/CostmapFilterInfo; it wants base 0 and multiplier 1


class KeepOutMask:
    """Searches for the names whenever the map has changed; publishes a mask that differs, to subscribers."""

    def __init__(self, node: Node, config: Config, pipeline: Ovs3d, worker: MappingWorker):
        """Advertises the mask, and what nav2 must know about it."""
        self._config = config
        self._pipeline = pipeline
        self._worker = worker
        self._log = node.get_logger()
        self._searched: object = None  # what the grid depends on
        self._grid = keep_out_grid([], config.output.grid_resolution, 0.0)
        self._mask = LatchedTopic(node, conversions.OccupancyGrid, "~/mask", _build_mask)
        self._is_described = _publish_filter_info(node)
        self._explain()
        group = MutuallyExclusiveCallbackGroup()
        start_timer(node, PERIOD, self._update, "keep-out mask", group)

    def configure(self, config: Config) -> None:
        """Uses new values of the runtime parameters."""
        self._config = config
        self._explain()

    def _explain(self) -> None:
        """Says once what to do without nav2_msgs."""
        if self._config.navigation.keep_out and not self._is_described:
            self._is_described = True
            self._log.error(
                "nav2_msgs is not installed: no ~/mask/costmap_filter_info, without which nav2 does not read "
                "~/mask; install nav2_msgs, or run nav2's costmap_filter_info_server with this mask"
            )

    def _update(self) -> None:
        if not self._mask.has_subscribers:
            return
        snapshot, config = self._worker.snapshot, self._config
        version = None if snapshot is None else snapshot.version
        state = version, config.navigation, config.output.grid_resolution, config.query
        if state != self._searched:
            self._grid, self._searched = self._search(snapshot, config), state
        content = self._grid.cells.tobytes(), *self._grid.origin, self._grid.resolution
        self._mask.publish(content, self._grid, config)

    def _search(self, snapshot: MapSnapshot | None, config: Config) -> Grid:
        """The mask of a map; empty without names or without features to search."""
        names, objects = list(config.navigation.keep_out), []
        if names and snapshot is not None and snapshot.num_gaussians and snapshot.codec is not None:
            objects = self._pipeline.answer(self._pipeline.make_query(names), snapshot).objects
        margin = config.navigation.keep_out_margin
        return keep_out_grid(objects, config.output.grid_resolution, margin)


def _build_mask(grid: Grid, header: conversions.Header, config: Config) -> conversions.OccupancyGrid:
    return conversions.to_grid(grid, header)


def _publish_filter_info(node: Node) -> bool:
    """Publishes `~/mask/costmap_filter_info` once, latched; False if nav2_msgs is not installed."""
    try:
        from nav2_msgs.msg import CostmapFilterInfo
    except ImportError:
        return False
    topic = node.resolve_topic_name("~/mask")
    header = conversions.Header(stamp=node.get_clock().now().to_msg(), frame_id="")
    publisher = node.create_publisher(CostmapFilterInfo, "~/mask/costmap_filter_info", LATCHED)
    info = dict(type=KEEPOUT_FILTER, filter_mask_topic=topic, base=0.0, multiplier=1.0)
    publisher.publish(CostmapFilterInfo(header=header, **info))
    return True
