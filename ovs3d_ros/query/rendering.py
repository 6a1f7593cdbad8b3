"""Renders snapshots from camera poses: colours, feature codes, relevancy and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ovs3d_ros.map_frame import depth_to_world, poses_to_map
from ovs3d_ros.mapping.mapper import RenderedView, render_view
from ovs3d_ros.query.engine import QueryEngine
from ovs3d_ros.query.labelling import label_pixels
from ovs3d_ros.rasterize import Rasterizer, Splats, Views
from ovs3d_ros.semantics.class_field import SURFACE_ALPHA, render_channels
from ovs3d_ros.types import Camera, MapSnapshot, QueryResult


class MapRenderer:
    """Renders snapshots, from any thread.

    Args:
        rasterizer: of the Gaussians.
        queries: scores and labels pixels.
    """

    def __init__(self, rasterizer: Rasterizer, queries: QueryEngine) -> None:
        self._rasterizer = rasterizer
        self._queries = queries

    def view(self, camera: Camera, camtoworld: np.ndarray, snapshot: MapSnapshot) -> RenderedView:
        """Colour, depth and alpha."""
        pose = poses_to_map(camtoworld, snapshot.frame)
        view = render_view(snapshot.gaussians, camera, pose, self._rasterizer)
        return replace(view, depth=depth_to_world(view.depth, snapshot.frame))

    def channels(
        self, values: torch.Tensor, camera: Camera, camtoworld: np.ndarray, snapshot: MapSnapshot
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Blends values [N, C] of the Gaussians: [H, W, C], and alpha [H, W, 1]."""
        pose = poses_to_map(camtoworld, snapshot.frame)
        return render_channels(snapshot.gaussians, values, camera, pose, self._rasterizer)

    def lift(
        self, values: torch.Tensor, camera: Camera, camtoworld: np.ndarray, snapshot: MapSnapshot
    ) -> torch.Tensor:
        """Sums values [H, W, C] of the pixels over each Gaussian's blending weights: [N, C]."""
        views = Views.from_camera(camera, poses_to_map(camtoworld, snapshot.frame), snapshot.weight.device)
        targets = values.to(snapshot.weight.device)[None].contiguous()
        return self._rasterizer.lift(Splats.from_dict(snapshot.gaussians), targets, views)[0]

    def codes(self, camera: Camera, camtoworld: np.ndarray, snapshot: MapSnapshot) -> torch.Tensor:
        """Codes [H, W, d + 1] of unit features; zero where the map is more transparent than solid."""
        assert snapshot.codec is not None, "the map has no language features"
        codes, alpha = self.channels(snapshot.codes, camera, camtoworld, snapshot)
        return snapshot.codec.normalize(codes * (alpha > SURFACE_ALPHA))

    def relevancy(
        self,
        prompts: Sequence[str],
        camera: Camera,
        camtoworld: np.ndarray,
        snapshot: MapSnapshot,
        negatives: Sequence[str] | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and relevancy of P prompts, [H, W, P] each; 0 where the map is not."""
        codes = self.codes(camera, camtoworld, snapshot)
        return self._queries.score(codes, snapshot, prompts, negatives)

    def labels(
        self, result: QueryResult, camera: Camera, camtoworld: np.ndarray, snapshot: MapSnapshot
    ) -> tuple[np.ndarray, np.ndarray]:
        """Segments a view by the labels of the Gaussians that it shows.

        Labels are cheaper to blend than codes, and a mask agrees with the labelled cloud.

        Args:
            result: the answer to a query.
            camera: intrinsics of the view.
            camtoworld: [4, 4] pose of the view.
            snapshot: the map. Where `result.field` is set, it must be the snapshot that answered.

        Returns:
            labels [H, W] uint16, 0 = none, else 1 + prompt index; score [H, W] float32, their relevancy.
        """
        device = snapshot.weight.device
        labels, scores = (column.to(device) for column in self._queries.label_map(result, snapshot))
        if not bool(labels.any()):
            shape = camera.height, camera.width
            return np.zeros(shape, np.uint16), np.zeros(shape, np.float32)
        views = Views.from_camera(camera, poses_to_map(camtoworld, snapshot.frame), device)
        splats = Splats.from_dict(snapshot.gaussians)
        (shown,), (relevancy,) = label_pixels(self._rasterizer.share_labels(splats, labels, scores, views))
        return shown.astype(np.uint16), relevancy
