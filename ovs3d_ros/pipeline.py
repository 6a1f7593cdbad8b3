"""`Ovs3d`, the whole system in one object: frames in, answers out. Reads like the algorithm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ovs3d_ros.config import Config, override, resolve_device, resolve_rasterizer
from ovs3d_ros.config.stored import restore_config
from ovs3d_ros.encoders import ImageTextEncoder, make_clip
from ovs3d_ros.intake import Intake
from ovs3d_ros.io.atomic import Destination
from ovs3d_ros.io.ply import write_ply
from ovs3d_ros.map_file import load_map, save_map
from ovs3d_ros.map_frame import params_to_world
from ovs3d_ros.mapping.keyframe_store import Keyframes
from ovs3d_ros.mapping.mapper import RenderedView, StepStats
from ovs3d_ros.query.engine import QueryEngine
from ovs3d_ros.query.presence import PresenceCalibration
from ovs3d_ros.query.related import plain_names
from ovs3d_ros.query.rendering import MapRenderer
from ovs3d_ros.query.request import QueryOptions, check_prompts
from ovs3d_ros.rasterize import make_rasterizer
from ovs3d_ros.semantic_map import SemanticMap, keep_training
from ovs3d_ros.types import Camera, Frame, MapSnapshot, Query, QueryResult, RefineStep

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Ovs3d:
    """An open-vocabulary 3D Gaussian map.

    One thread adds frames and optimises. Snapshots are immutable: any thread may query and render one.

    Args:
        config: all parameters.
        encode: False builds a map of colours only and loads no models.
        clip: an encoder of one's own, instead of the one `clip.model` names.
    """

    def __init__(self, config: Config, *, encode: bool = True, clip: ImageTextEncoder | None = None) -> None:
        self.config = config
        self.device = resolve_device(config.compute)
        torch.set_num_threads(config.compute.torch_threads)
        rasterizer = make_rasterizer(resolve_rasterizer(config.compute), config.compute.threads)
        torch.manual_seed(config.compute.seed)
        self.clip = make_clip(config.clip, self.device) if clip is None and encode else clip
        self.queries = QueryEngine(self.clip, config.query)
        self.map = SemanticMap(config, rasterizer, self.clip, self.queries, self.device)
        self.intake = Intake(self.map, self.clip, config.compute, self.device)
        self.renderer = MapRenderer(rasterizer, self.queries)

    @classmethod
    def load(
        cls, path: str | Path, settings: dict | None = None, *, encode: bool = True, training: bool = False
    ) -> Ovs3d:
        """Opens a map with the settings stored in it (`config.leaf.Policy`) and defaults for all others.

        Args:
            path: a `*.ovs3d` file.
            settings: dotted parameters that override both, e.g. `{"compute.device": "cpu"}`.
            encode: False loads no models: enough for renders of colour and depth.
            training: also loads keyframes (`map.keep_keyframes`), to train on and to save them again.

        Raises UserError if the file cannot be used, or if the settings name another encoder.
        """
        params, loaded = load_map(path, training=training)
        config = override(restore_config(loaded.meta.get("config", {})), settings or {})
        pipeline = cls(config, encode=encode and loaded.codec is not None)
        pipeline.restore(params, loaded, str(path))
        return pipeline

    def configure(self, config: Config) -> None:
        """Takes new values of runtime parameters (`Leaf.runtime`), from any thread."""
        self.config = config
        self.map.configure(config)
        self.queries.configure(config.query)

    def reset(self) -> None:
        """Empties the map; models and settings stay, and versions go on counting."""
        self.map.reset()

    def restore(self, params: dict[str, torch.Tensor], loaded: MapSnapshot, name: str) -> None:
        """Replaces the map by the content of `load_map`, see `SemanticMap.restore`."""
        self.map.restore(params, loaded, name)

    def add_frame(self, frame: Frame) -> bool:
        """Takes in a posed frame; returns whether it became a keyframe. Raises UserError for a bad frame."""
        return self.intake.add_frame(frame)

    def add_points(self, xyz: np.ndarray, rgb: np.ndarray, centers: np.ndarray | None = None) -> None:
        """Seeds the map from a point cloud, see `Mapper.insert_points`."""
        self.intake.add_points(xyz, rgb, centers)

    def move_keyframes(self, camtoworlds: dict[int, np.ndarray]) -> int:
        """Corrects keyframe poses [4, 4] after a loop closure; returns how many Gaussians moved."""
        return self.map.move_keyframes(camtoworlds)

    def optimize(
        self, steps: int, on_step: Callable[[StepStats], None] | None = None, horizon: int | None = None
    ) -> None:
        """Takes optimisation steps and calls `on_step` after each; raises UserError if there is no keyframe.

        The learning rates decay over `horizon` steps; they are constant for None, while the map still grows.
        """
        self.map.optimize(steps, on_step, horizon)

    def relift(self) -> Iterator[None]:
        """Lifts the features of all keyframes anew; exhaust the iterator for the result to take effect."""
        return self.map.relift()

    def refine(self, names: list[str], frames: Sequence[Frame] = ()) -> Iterator[RefineStep]:
        """Refines class distributions for names (docs/method.md, "Refinement"); yields its progress.

        Exhaust it for the result to take effect; closing it early cancels. The map may grow meanwhile.

        Args:
            names: the names to tell apart.
            frames: views for the check: a field that is no better there is discarded. None: no check.

        Raises:
            UserError: bad names, an empty map, or a missing DINO.
        """
        snapshot = self.snapshot()
        self.queries.check(snapshot)
        yield from self.map.refine(check_prompts(names, "class"), snapshot, frames)

    def prepare_check(self) -> None:
        """Loads, in seconds, the model that checks a refinement. Raises UserError if it is missing."""
        self.map.refinement.prepare()

    def snapshot(self) -> MapSnapshot:
        """An immutable copy of the map as it is now; the same one as before if nothing changed since."""
        return self.map.snapshot()

    def query(
        self, prompts: Sequence[str], *, snapshot: MapSnapshot | None = None, **options: Unpack[QueryOptions]
    ) -> QueryResult:
        """Finds things by name.

        Args:
            prompts: 1 to 128 names, also with a place: "mug on the table".
            snapshot: the map to search; default: `snapshot()`, only from the thread that maps.
            **options: of `request.make_query`: negatives, mode, threshold, max_instances, roi, refine.

        Raises UserError: bad prompts or options, an empty map, or a map of another encoder.
        """
        return self.answer(self.make_query(prompts, **options), snapshot)

    def make_query(self, prompts: Sequence[str], **options: Unpack[QueryOptions]) -> Query:
        """Checks a query and fills in the defaults without answering it; same arguments as `query`."""
        return self.queries.make_query(prompts, **options)

    def answer(self, query: Query, snapshot: MapSnapshot | None = None) -> QueryResult:
        """Answers a query of `make_query`; arguments and errors as in `query`."""
        started = time.perf_counter()
        snapshot = snapshot or self.snapshot()
        self.queries.check(snapshot)
        refine = self.map.refinement.refine_for_query
        field = refine(plain_names(query), snapshot) if query.refine else snapshot.refined
        result = self.queries.answer(query, snapshot, field)
        return replace(result, latency_ms=1e3 * (time.perf_counter() - started))

    def label_threshold(self, threshold: float | None = None) -> float:
        """The relevancy from which a label is given: argument, else `query.threshold`, else calibrated."""
        return self.queries.label_threshold(threshold)

    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """Unit text features [P, D]; cached by prompt."""
        return self.queries.encode_text(prompts)

    def render(
        self, camera: Camera, camtoworld: np.ndarray, snapshot: MapSnapshot | None = None
    ) -> RenderedView:
        """Renders colour, depth and alpha of the map from a camera pose."""
        return self.renderer.view(camera, camtoworld, snapshot or self.snapshot())

    def render_codes(self, camera: Camera, camtoworld: np.ndarray, snapshot: MapSnapshot) -> torch.Tensor:
        """Renders unit features as codes [H, W, d + 1], zero where the map is mostly transparent."""
        return self.renderer.codes(camera, camtoworld, snapshot)

    def render_relevancy(
        self,
        prompts: Sequence[str],
        camera: Camera,
        camtoworld: np.ndarray,
        snapshot: MapSnapshot,
        negatives: Sequence[str] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Renders cosine and relevancy of P prompts, [H, W, P] each; 0 where the map is not."""
        return self.renderer.relevancy(prompts, camera, camtoworld, snapshot, negatives)

    def render_labels(
        self, result: QueryResult, camera: Camera, camtoworld: np.ndarray, snapshot: MapSnapshot
    ) -> tuple[np.ndarray, np.ndarray]:
        """Segments a view by a query's answer: labels [H, W] uint16, score [H, W] float32."""
        return self.renderer.labels(result, camera, camtoworld, snapshot)

    def freeze(self) -> tuple[dict[str, torch.Tensor], MapSnapshot]:
        """Copies of the stored parameters and a snapshot; `save_map` takes both, on any thread."""
        params = {name: t.detach().clone() for name, t in self.map.params().items()}
        return params, replace(self.snapshot(), training=keep_training(self.map, self.config))

    def save(self, path: str | Path | Destination) -> None:
        """Writes the map file."""
        save_map(path, *self.freeze())

    def export_ply(self, path: str | Path) -> None:
        """Writes the standard 3DGS PLY."""
        write_ply(path, params_to_world(self.map.params(), self.map.frame))

    def recalibrate(self, **changes: Any) -> None:
        """Replaces fields of the encoder's calibration, which then decides; see `PresenceCalibration`."""
        self.queries.calibrate(replace(self.queries.calibration, **changes))

    @property
    def calibration(self) -> PresenceCalibration:
        """How the encoder's cosines read."""
        return self.queries.calibration

    @property
    def keyframes(self) -> Keyframes:
        """The keyframes that were added; those of a loaded map are not among them."""
        return self.map.keyframes

    @property
    def stats(self) -> dict:
        """Running figures: frames, keyframes, steps, num_gaussians, psnr [dB], and more, see `Mapper`."""
        return self.map.stats
