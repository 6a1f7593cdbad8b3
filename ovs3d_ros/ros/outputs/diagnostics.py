"""Publishes /diagnostics at 1 Hz: one status of the inputs and one of the mapping."""

from __future__ import annotations

import math
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from ovs3d_ros.config import Config
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.callbacks import News, start_timer
from ovs3d_ros.ros.inputs.cameras import Inputs
from ovs3d_ros.worker import MappingWorker
from ovs3d_ros.worker.memory import describe_shortage

PERIOD = 1.0  # seconds
FULL_REMEDY = "raise map.max_gaussians, or save the map and reset it"
ENOUGH_KEYFRAMES = 5  # that a map is made from; the first one or two may lack overlap


class Diagnostics:
    """Publishes the two statuses; logs why there is no usable frame whenever the reason changes.

    Attributes:
        inputs: None unless the node is active.
        worker: None unless the node is configured.
        failure: why the last lifecycle transition failed; empty if it succeeded.
    """

    def __init__(self, node: Node, config: Config):
        """Advertises /diagnostics and starts the timers."""
        self.inputs: Inputs | None = None
        self.worker: MappingWorker | None = None
        self.failure = ""
        self._watched: Inputs | None = None
        self._silence = News()
        self._dropped = 0  # frames dropped until the last status
        self._evicted = 0  # Gaussians removed until then
        self._featureless = 0  # keyframes that could not be encoded until then
        self._namesake = ""  # what to do about another node of the same name; empty without one
        self._node = node
        self._publisher = node.create_publisher(conversions.DiagnosticArray, "/diagnostics", 10)
        group = MutuallyExclusiveCallbackGroup()
        for period, report in ((PERIOD, self.publish), (config.input.silence, self._report_silence)):
            start_timer(node, period, report, "diagnostics", group)

    def _report_silence(self) -> None:
        inputs, watched = self.inputs, self._watched
        self._watched = inputs
        if inputs is None or inputs is not watched:
            return  # the first report follows after a whole period
        log, silence = self._node.get_logger(), inputs.report_silence()
        if silence and self._silence.is_news(silence):
            log.warning(f"no usable frame: {silence}")
        elif not silence and self._silence.is_news(""):
            log.info("usable frames arrive")

    def publish(self) -> None:
        """Publishes both statuses."""
        inputs, worker = self.inputs, self.worker
        if inputs is not None:
            inputs.update_rates()
        self._watch_name()
        name = self._node.get_fully_qualified_name().lstrip("/")
        statuses = [
            conversions.to_diagnostic(f"{name}: input", *self._input_state(inputs)),
            conversions.to_diagnostic(f"{name}: mapping", *self._mapping_state(worker)),
        ]
        now = self._node.get_clock().now().to_msg()
        self._publisher.publish(conversions.to_diagnostics(now, statuses))

    def _watch_name(self) -> None:
        """Logs when another node of this name comes or goes; both would answer every call."""
        node, name = self._node, self._node.get_fully_qualified_name()
        count = node.get_node_names_and_namespaces().count((node.get_name(), node.get_namespace()))
        if count > 1 and not self._namesake:
            self._namesake = (
                f"another node is called {name}: both answer every call, each from its own map; end "
                "one, or start it with -r __node:=NAME or -r __ns:=/ROBOT (a killed node stays listed for "
                "half a minute)"
            )
            node.get_logger().error(self._namesake)
        elif count <= 1 and self._namesake:
            self._namesake = ""
            node.get_logger().info(f"no other node is called {name} any more")

    def _input_state(self, inputs: Inputs | None) -> tuple[str, str, dict[str, object]]:
        if inputs is None:
            return "ok", f"not active: no inputs are subscribed; {self._remedy('activate')}", {}
        level, message = "ok", f"{inputs.frames} frames"
        if inputs.lost_images:
            message += f", {inputs.lost_images} images were sent but lost; use shared memory, raise "
            message += "qos.depth or send fewer"
        if inputs.silence:
            level, message = "warn", f"no usable frame: {inputs.silence}"
        elif inputs.problem:
            level, message = "warn", f"rejected: {inputs.problem}"
        elif inputs.losses:
            level, message = "warn", f"{message}; {inputs.losses}"
        elif inputs.frames == 0:
            message = "waiting for the first frame"
        return level, message, inputs.diagnostic_values()

    def _mapping_state(self, worker: MappingWorker | None) -> tuple[str, str, dict[str, object]]:
        if self.failure:
            return "error", self.failure, {}
        if worker is None and self._namesake:
            return "error", self._namesake, {}
        if worker is None:
            return "ok", f"not configured: no models are loaded; {self._remedy('configure')}", {}
        stats: dict[str, Any] = {key: _readable(value) for key, value in worker.stats().items()}
        if worker.error is not None:
            error = worker.error
            return "error", f"the mapping thread failed: {type(error).__name__}: {error}", stats
        if self._namesake:
            return "error", self._namesake, stats
        if stats["pause_reason"]:
            return "warn", f"frames are ignored: {stats['pause_reason']}", stats
        dropped, self._dropped = stats["frames_dropped"] - self._dropped, stats["frames_dropped"]
        if dropped > 0:
            return (
                "warn",
                f"{dropped} frames dropped since the last report: mapping is slower than the camera",
                stats,
            )
        switched_off = [f"{name} off" for name in ("ingest", "training") if not stats[name]]
        evicted, self._evicted = stats["evicted"] - self._evicted, stats["evicted"]
        if evicted > 0:
            return (
                "warn",
                f"the map is full: {evicted} Gaussians made room for new ones; {FULL_REMEDY}",
                stats,
            )
        featureless, self._featureless = (
            stats["frames_featureless"] - self._featureless,
            stats["frames_featureless"],
        )
        if featureless > 0:
            reason = f"{featureless} keyframes cannot be found by name: {stats['last_rejection']}"
            return "warn", reason, stats
        if shortage := describe_shortage(stats):
            return "warn", shortage, stats
        size = f"{stats['keyframes']} keyframes, {stats['num_gaussians']} Gaussians"
        if doubt := stats["depth_doubt"] or _describe_emptiness(stats):
            return "warn", f"{size}: {doubt}", stats
        return "ok", ", ".join([size, *switched_off]), stats

    def _remedy(self, transition: str) -> str:
        return f"ros2 lifecycle set {self._node.get_fully_qualified_name()} {transition}"


def _describe_emptiness(stats: dict[str, Any]) -> str:
    """Why a map with several keyframes is still empty; "" if it is not."""
    if stats["num_gaussians"] or stats["keyframes"] < ENOUGH_KEYFRAMES:
        return ""
    return "nothing could be seeded; give depth, or overlapping views from different places"


def _readable(value: object) -> object:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 3)
    return value
