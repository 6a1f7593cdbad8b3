"""`costmap`: the ground on which the robot may stand, from nav2 or a map server."""

from __future__ import annotations

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile

from ovs3d_ros.config import Config
from ovs3d_ros.query.navigation import Grid
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.callbacks import Recurrences
from ovs3d_ros.ros.inputs.streams import Quality, Stream
from ovs3d_ros.types import UserError


class CostmapInput:
    """Keeps the newest costmap; any thread may read it.

    Attributes:
        grid: None until one has arrived.
    """

    def __init__(self, node: Node, config: Config):
        """Subscribes; publishers may be latched or not."""
        self.grid: Grid | None = None
        self._world_frame = config.input.world_frame
        self._log = node.get_logger()
        self._rejections = Recurrences()
        name, quality = "costmap", Quality(QoSProfile(depth=1), latched=True)
        group = MutuallyExclusiveCallbackGroup()
        kind = conversions.OccupancyGrid
        self._stream = Stream(node, name, kind, name, quality, group, self._receive, self._reject)
        self.topic = self._stream.topic
        self._stream.subscribe()

    def _receive(self, message: conversions.OccupancyGrid, stream: Stream) -> None:
        frame = message.header.frame_id.lstrip("/")
        if frame != self._world_frame:
            raise UserError(
                f"{stream.topic} is in frame '{frame}', the map is in '{self._world_frame}': goals ignore "
                "it; give the global costmap"
            )
        self.grid = conversions.from_grid(message, stream.topic)

    def _reject(self, error: UserError) -> None:
        if self._rejections.is_new(str(error)):
            self._log.warning(str(error))
