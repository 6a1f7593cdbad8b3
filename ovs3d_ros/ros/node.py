"""The mapping node: `ros2 run ovs3d_ros node`. Puts the parts together; each does its own work."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.diagnostics import Diagnostics
from ovs3d_ros.ros.inputs import Inputs
from ovs3d_ros.ros.map_services import MapServices
from ovs3d_ros.ros.params import declare_config
from ovs3d_ros.ros.publish import Outputs
from ovs3d_ros.ros.query_service import QueryServices
from ovs3d_ros.types import Frame, UserError
from ovs3d_ros.warm_up import warm_up
from ovs3d_ros.worker import MappingWorker

SPIN_PERIOD = 0.1  # seconds until a signal or a failure is noticed
WARM_UP_TIMEOUT = 600.0  # seconds; compiling takes a minute on a slow machine, under load more
STOP_TIMEOUT = 30.0  # seconds the mapping thread has to end


class MappingNode(Node):
    """Subscribes to posed images, maps them on a thread of its own, and answers text queries.

    Raises:
        UserError: a bad parameter, or a model that cannot be loaded.
    """

    def __init__(self, **options: Any):
        """Declares parameters, loads the models, warms up, starts mapping; `options` go to `rclpy.node.Node`."""
        super().__init__("ovs3d", automatically_declare_parameters_from_overrides=True, **options)
        self.config = declare_config(self)
        self.pipeline = Ovs3d(self.config)
        self.worker = MappingWorker(self.pipeline, self.config)
        self.outputs = Outputs(self, self.config, self.pipeline, self.worker)
        self.worker.start(prepare=self._warm_up)
        if not self.worker.wait_idle(WARM_UP_TIMEOUT) and self.worker.error is None:
            self.get_logger().warning("warming up takes long; the first frames will wait")
        self.queries = QueryServices(self, self.config, self.pipeline, self.worker, self.outputs)
        self.map_services = MapServices(self, self.config, self.pipeline, self.worker, self.outputs)
        self.inputs = Inputs(self, self.config, self._take)
        self.diagnostics = Diagnostics(self, self.config, self.inputs, self.worker)
        self.get_logger().info(
            f"ready: poses from {self.config.pose_source}, device {self.pipeline.device}, "
            f"text encoder {self.pipeline.clip.name}"
        )

    def _warm_up(self) -> None:
        """Compiles the kernels on the mapping thread; nothing is subscribed to before, so no frame waits for it."""
        self.get_logger().info("warming up: compiling kernels; the first start on a machine takes half a minute")
        started = time.monotonic()
        warm_up(self.pipeline)
        self.get_logger().info(f"warmed up in {time.monotonic() - started:.1f} s")

    def _take(self, frame: Frame, header: conversions.Header) -> None:
        self.worker.submit(frame)
        self.outputs.set_view(frame, header)

    def stop(self) -> None:
        """Ends the mapping thread and writes the map where `output.save_on_exit` says.

        Raises:
            UserError: the map cannot be written.
        """
        if not self.worker.stop(STOP_TIMEOUT):
            self.get_logger().error(f"the mapping thread did not end within {STOP_TIMEOUT:.0f} s")
            return
        path = self.config.output.save_on_exit
        if path and self.worker.snapshot is not None:
            self.pipeline.save(Path(path).expanduser())
            self.get_logger().info(f"map written to {path}")


def main(args: list[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM.

    Returns:
        0, 1 after a failure of the mapping thread, 2 for bad input.
    """
    logging.basicConfig(level=logging.INFO, format="[%(levelname)s] [%(name)s]: %(message)s")
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        return _run(stopping)
    except UserError as error:
        sys.stderr.write(f"ovs3d: {error}\n")
        return 2
    finally:
        rclpy.try_shutdown()


def _run(stopping: threading.Event) -> int:
    """Spins until told to stop or until the mapping thread fails."""
    node = MappingNode()
    executor = MultiThreadedExecutor(num_threads=5)  # inputs, queries, services, outputs, diagnostics
    executor.add_node(node)
    try:
        while not stopping.is_set() and node.worker.error is None:
            executor.spin_once(timeout_sec=SPIN_PERIOD)
        if node.worker.error is not None:
            node.diagnostics.publish()
            node.get_logger().fatal(f"the mapping thread failed: {node.worker.error}")
            return 1
        node.stop()
        return 0
    finally:
        executor.shutdown(timeout_sec=5.0)
        node.worker.stop(STOP_TIMEOUT)
        node.destroy_node()


if __name__ == "__main__":
    sys.exit(main())
