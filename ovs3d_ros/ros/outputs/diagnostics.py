"""/diagnostics at 1 Hz: what comes in, what is missing, how the map does."""

from __future__ import annotations

import math

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from ovs3d_ros.config import Config
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.callback_errors import guarded
from ovs3d_ros.ros.inputs.cameras import Inputs
from ovs3d_ros.worker import MappingWorker

PERIOD = 1.0  # seconds


class Diagnostics:
    """Publishes two statuses, inputs and mapping, and logs one line whenever the inputs fall silent.

    Attributes:
        inputs: while the node is active.
        worker: while it is configured.
        failure: why the last transition of the lifecycle failed; empty if it did not.
    """

    def __init__(self, node: Node, config: Config):
        """Advertises /diagnostics and starts the timers."""
        self.inputs: Inputs | None = None
        self.worker: MappingWorker | None = None
        self.failure = ""
        self._watched: Inputs | None = None
        self._dropped = 0  # frames, at the last report
        self._node = node
        self._publisher = node.create_publisher(conversions.DiagnosticArray, "/diagnostics", 10)
        group = MutuallyExclusiveCallbackGroup()
        # Steady: with use_sim_time, the time of the node stands still until /clock comes.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        for period, report in ((PERIOD, self.publish), (config.input.silence, self._report_silence)):
            node.create_timer(period, guarded(report, "diagnostics"), callback_group=group, clock=steady)

    def _report_silence(self) -> None:
        inputs, known = self.inputs, self._watched
        self._watched = inputs
        if inputs is None or inputs is not known:
            return  # a whole period has to pass first
        silence = inputs.report_silence()
        if silence:
            self._node.get_logger().warning(f"no usable frame: {silence}")

    def publish(self) -> None:
        """Publishes the current state."""
        inputs, worker = self.inputs, self.worker
        if inputs is not None:
            inputs.measure()
        name = self._node.get_fully_qualified_name().lstrip("/")
        statuses = [
            conversions.to_diagnostic(f"{name}: input", *self._input_state(inputs)),
            conversions.to_diagnostic(f"{name}: mapping", *self._mapping_state(worker)),
        ]
        now = self._node.get_clock().now().to_msg()
        self._publisher.publish(conversions.to_diagnostics(now, statuses))

    def _input_state(self, inputs: Inputs | None) -> tuple[str, str, dict[str, object]]:
        if inputs is None:
            return "ok", f"not active, nothing is subscribed to; {self._remedy('activate')}", {}
        level, message = "ok", f"{inputs.frames} frames"
        if inputs.lost:
            message += f", {inputs.lost} images were sent but never taken; raise qos.depth or send fewer"
        if inputs.silence:
            level, message = "warn", f"no usable frame: {inputs.silence}"
        elif inputs.problem:
            level, message = "warn", f"rejected: {inputs.problem}"
        elif inputs.frames == 0:
            message = "waiting for the first frame"
        return level, message, inputs.values()

    def _mapping_state(self, worker: MappingWorker | None) -> tuple[str, str, dict[str, object]]:
        if self.failure:
            return "error", self.failure, {}
        if worker is None:
            return "ok", f"not configured, no models are loaded; {self._remedy('configure')}", {}
        stats = {key: _readable(value) for key, value in worker.stats().items()}
        if worker.error is not None:
            error = worker.error
            return "error", f"the mapping thread failed: {type(error).__name__}: {error}", stats
        dropped, self._dropped = stats["frames_dropped"] - self._dropped, stats["frames_dropped"]
        if dropped > 0:
            return (
                "warn",
                f"{dropped} frames dropped since the last report: mapping is slower than the camera",
                stats,
            )
        paused = [f"{name} off" for name in ("ingest", "training") if not stats[name]]
        what = [f"{stats['keyframes']} keyframes, {stats['num_gaussians']} Gaussians", *paused]
        return "ok", ", ".join(what), stats

    def _remedy(self, transition: str) -> str:
        return f"ros2 lifecycle set {self._node.get_fully_qualified_name()} {transition}"


def _readable(value: object) -> object:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 3)
    return value
