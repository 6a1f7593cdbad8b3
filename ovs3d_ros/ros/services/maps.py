"""Services that save, load, export and reset the map, and switch ingest and training.

The mapping thread copies or replaces the map, which is short. The service's thread reads and writes files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from ovs3d_interfaces.srv import ExportPly, LoadMap, SaveMap
from ovs3d_ros.config import Config
from ovs3d_ros.io.ply import write_ply
from ovs3d_ros.map_file import load_map, save_map
from ovs3d_ros.map_frame import params_to_world
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.ros.outputs.answers import AnswerStore
from ovs3d_ros.ros.services import responses
from ovs3d_ros.ros.services.map_folder import MAP_SUFFIX, PLY_SUFFIX, MapFolder
from ovs3d_ros.types import MapSnapshot, UserError
from ovs3d_ros.worker import MappingWorker

TIMEOUT = 60.0  # seconds to wait for the mapping thread


class MapServices:
    """Offers the services in their own callback group: one runs at a time, next to queries and inputs."""

    def __init__(
        self, node: Node, config: Config, pipeline: Ovs3d, worker: MappingWorker, answers: AnswerStore
    ):
        """Offers the services."""
        self._node = node
        self._config = config
        self._pipeline = pipeline
        self._worker = worker
        self._answers = answers
        self._folder = MapFolder(config.map.directory)
        group = MutuallyExclusiveCallbackGroup()
        responses.offer_service(node, SaveMap, "save_map", self._save, group)
        responses.offer_service(node, LoadMap, "load_map", self._load, group)
        responses.offer_service(node, ExportPly, "export_ply", self._export, group)
        switches = {
            "set_ingest": (SetBool, self._set_ingest),
            "set_training": (SetBool, self._set_training),
            "reset": (Trigger, self._reset),
        }
        for name, (service_type, callback) in switches.items():
            node.create_service(service_type, f"~/{name}", callback, callback_group=group)

    def _save(self, request: SaveMap.Request, response: SaveMap.Response) -> None:
        target = self._folder.target(request.name, MAP_SUFFIX, request.overwrite)
        responses.require_map(self._worker)
        params, snapshot = self._worker.run(self._pipeline.freeze, TIMEOUT)
        _write(save_map, target, params, snapshot)
        self._report(response, self._folder.path / request.name, snapshot.version, snapshot.num_gaussians)

    def _export(self, request: ExportPly.Request, response: ExportPly.Response) -> None:
        target = self._folder.target(request.name, PLY_SUFFIX, request.overwrite)
        responses.require_map(self._worker)
        params, snapshot = self._worker.run(self._pipeline.freeze, TIMEOUT)
        _write(write_ply, target, params_to_world(params, snapshot.frame))
        self._report(response, self._folder.path / request.name, snapshot.version, snapshot.num_gaussians)

    def _report(
        self, response: SaveMap.Response | ExportPly.Response, path: Path, version: int, count: int
    ) -> None:
        response.path, response.num_bytes = str(path), path.stat().st_size
        response.map_version, response.num_gaussians = version, count
        self._node.get_logger().info(f"wrote {path}: {count} Gaussians")

    def _load(self, request: LoadMap.Request, response: LoadMap.Response) -> None:
        path = self._folder.source(request.name, MAP_SUFFIX)
        params, loaded = load_map(path, training=True)
        check_world_frame(path, loaded, self._config, "start the node with input.world_frame={frame}")
        snapshot = self._replace(lambda: self._pipeline.restore(params, loaded, str(path)))
        response.map_version = snapshot.version if snapshot else 0
        response.num_gaussians = snapshot.num_gaussians if snapshot else 0
        response.num_keyframes = len(loaded.names)
        self._node.get_logger().info(f"loaded {path}: {response.num_gaussians} Gaussians")

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            self._replace(self._pipeline.reset)
        except (TimeoutError, RuntimeError) as error:
            return Trigger.Response(success=False, message=str(error))
        self._node.get_logger().info("reset: the map is empty")
        return Trigger.Response(success=True, message="the map is empty; new frames start a new map")

    def _replace(self, change: Callable[[], None]) -> MapSnapshot | None:
        """Replaces the map by `change` and discards all answers from the old map."""

        def job() -> None:
            change()
            # The mapping thread runs this job and has not published yet: its snapshot is of the old map.
            last = self._worker.snapshot
            self._answers.discard_map(last)

        return self._worker.replace_map(job, TIMEOUT)

    def _set_ingest(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._worker.ingest.set(request.data)
        return self._confirm("frames are mapped" if request.data else "frames are ignored and counted")

    def _set_training(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._worker.set_training(request.data)
        return self._confirm(
            "the map is optimised" if request.data else "frames are mapped but not optimised"
        )

    def _confirm(self, message: str) -> SetBool.Response:
        self._node.get_logger().info(f"on request: {message}")
        return SetBool.Response(success=True, message=message)


def check_world_frame(path: Path, loaded: MapSnapshot, config: Config, remedy: str) -> None:
    """Raises UserError unless a map file is in the node's `input.world_frame`.

    Args:
        path: the file.
        loaded: what it holds.
        config: of the node.
        remedy: what the error says to do; `{frame}` stands for the frame of the file.
    """
    frame = loaded.meta.get("config", {}).get("input.world_frame", config.input.world_frame)
    if frame.lstrip("/") != config.input.world_frame:
        raise UserError(
            f"{path}: the map is in frame '{frame}', this node maps in '{config.input.world_frame}'; "
            f"{remedy.format(frame=frame)}"
        )


def _write(write: Callable[..., None], *arguments: object) -> None:
    """Calls `write`, which writes a file.

    Raises:
        OperationFailed: the disk refuses.
    """
    try:
        write(*arguments)
    except (UserError, OSError) as error:
        raise responses.OperationFailed(str(error)) from None
