"""Services that keep, replace and steer the map: save, load, export, reset, ingest and training.

What touches the map runs on the mapping thread and is short there; files are read and written on the service's own.
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
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.ros.outputs.publishers import Outputs
from ovs3d_ros.ros.services import responses
from ovs3d_ros.ros.services.map_folder import MAP_SUFFIX, PLY_SUFFIX, MapFolder
from ovs3d_ros.types import MapSnapshot, UserError
from ovs3d_ros.worker import MappingWorker

TIMEOUT = 60.0  # seconds the mapping thread may be busy with one piece of work


class MapServices:
    """One at a time, on a callback group of their own: queries and inputs go on meanwhile."""

    def __init__(self, node: Node, config: Config, pipeline: Ovs3d, worker: MappingWorker, outputs: Outputs):
        """Offers the services."""
        self._node = node
        self._config = config
        self._pipeline = pipeline
        self._worker = worker
        self._outputs = outputs
        self._folder = MapFolder(config.map.directory)
        group = MutuallyExclusiveCallbackGroup()
        filled = {
            "save_map": (SaveMap, self._save),
            "load_map": (LoadMap, self._load),
            "export_ply": (ExportPly, self._export),
        }
        steering = {
            "set_ingest": (SetBool, self._set_ingest),
            "set_training": (SetBool, self._set_training),
            "reset": (Trigger, self._reset),
        }
        for name, (kind, fill) in filled.items():
            node.create_service(kind, f"~/{name}", _answering(fill), callback_group=group)
        for name, (kind, callback) in steering.items():
            node.create_service(kind, f"~/{name}", callback, callback_group=group)

    def _save(self, request: SaveMap.Request, response: SaveMap.Response) -> None:
        path = self._folder.target(request.name, MAP_SUFFIX, request.overwrite)
        responses.need_map(self._worker, to_ask=False)
        params, snapshot = self._worker.run(self._pipeline.freeze, TIMEOUT)
        _write(lambda: save_map(path, params, snapshot))
        self._report(response, path, snapshot.version, snapshot.num_gaussians)

    def _export(self, request: ExportPly.Request, response: ExportPly.Response) -> None:
        path = self._folder.target(request.name, PLY_SUFFIX, request.overwrite)
        responses.need_map(self._worker, to_ask=False)
        params, snapshot = self._worker.run(self._pipeline.freeze, TIMEOUT)
        _write(lambda: write_ply(path, params))
        self._report(response, path, snapshot.version, snapshot.num_gaussians)

    def _report(
        self, response: SaveMap.Response | ExportPly.Response, path: Path, version: int, count: int
    ) -> None:
        response.path, response.num_bytes = str(path), path.stat().st_size
        response.map_version, response.num_gaussians = version, count
        self._node.get_logger().info(f"wrote {path}: {count} Gaussians")

    def _load(self, request: LoadMap.Request, response: LoadMap.Response) -> None:
        path = self._folder.source(request.name, MAP_SUFFIX)
        params, past = load_map(path)
        frame = past.meta.get("config", {}).get("input.world_frame", self._config.input.world_frame)
        if frame.lstrip("/") != self._config.input.world_frame:
            raise UserError(
                f"{path}: was made in frame '{frame}', this node maps in "
                f"'{self._config.input.world_frame}'; start it with input.world_frame={frame}"
            )
        snapshot = self._replace(lambda: self._pipeline.restore(params, past, str(path)))
        response.map_version = snapshot.version if snapshot else 0
        response.num_gaussians = snapshot.num_gaussians if snapshot else 0
        response.num_keyframes = len(past.names)
        self._node.get_logger().info(f"loaded {path}: {response.num_gaussians} Gaussians")

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            self._replace(self._pipeline.reset)
        except (TimeoutError, RuntimeError) as error:
            return Trigger.Response(success=False, message=str(error))
        self._node.get_logger().info("the map was emptied on request")
        return Trigger.Response(success=True, message="the map is empty; frames from now on make a new one")

    def _replace(self, change: Callable[[], None]) -> MapSnapshot | None:
        """Has `change` put another map in the place of this one; nothing of this one is shown any more."""

        def job() -> None:
            change()
            self._outputs.retire(
                self._worker.snapshot
            )  # the last one of the old map: this is the mapping thread

        return self._worker.replace_map(job, TIMEOUT)

    def _set_ingest(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._worker.set_ingest(request.data)
        return self._said("frames are taken in" if request.data else "frames are ignored and counted")

    def _set_training(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        (self._worker.resume if request.data else self._worker.pause)()
        return self._said("the map is optimised" if request.data else "frames are mapped but not optimised")

    def _said(self, message: str) -> SetBool.Response:
        self._node.get_logger().info(f"on request: {message}")
        return SetBool.Response(success=True, message=message)


def _answering(fill):
    return lambda request, response: responses.answer(fill, request, response)


def _write(write) -> None:
    """Runs what writes a file; raises Failed where the disk refuses."""
    try:
        write()
    except (UserError, OSError) as error:
        raise responses.Failed(str(error)) from None
