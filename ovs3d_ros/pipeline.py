"""`Ovs3d`, the whole system in one object: frames in, answers out. Reads like the algorithm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovs3d_ros.config import Config, override, resolve_device, resolve_rasterizer
from ovs3d_ros.config.stored import restore_config, stored_settings
from ovs3d_ros.encoders import ImageTextEncoder, encode_frame, make_clip
from ovs3d_ros.geometry import check_frame
from ovs3d_ros.io.ply import write_ply
from ovs3d_ros.map_file import load_map, save_map
from ovs3d_ros.mapping.keyframes import compress_crop_table, make_keyframe
from ovs3d_ros.mapping.mapper import Mapper, StepStats
from ovs3d_ros.mapping.rendering import RenderedView, render_view
from ovs3d_ros.query.engine import TextFeatures, answer_query
from ovs3d_ros.query.labelling import label_places, pixel_similarities
from ovs3d_ros.query.presence import Calibration, load_calibration
from ovs3d_ros.query.relevancy import relevancy
from ovs3d_ros.query.request import check_prompts, check_semantics, make_query, resolve_threshold
from ovs3d_ros.rasterize import make_rasterizer
from ovs3d_ros.semantics.class_field import SURFACE_ALPHA, render_channels
from ovs3d_ros.semantics.codec import FeatureCodec
from ovs3d_ros.semantics.lift import Lifter, check_num_levels, fuse_scales
from ovs3d_ros.semantics.refinement import Refinement
from ovs3d_ros.semantics.scale_selection import COMMON_NAMES, select_levels
from ovs3d_ros.types import Camera, Frame, MapSnapshot, Query, QueryResult, RefineStep, UserError

_TEXTS_KEPT = 10_000  # encoded prompts


class Ovs3d:
    """An open-vocabulary 3D Gaussian map.

    One thread adds frames and optimises. Snapshots are immutable, and `query` and the renders may be called from any
    thread with a snapshot in hand.

    Args:
        config: all parameters.
        encode: False builds an RGB map only and loads no models.
    """

    def __init__(self, config: Config, *, encode: bool = True) -> None:
        self.config = config
        self.device = resolve_device(config.compute)
        torch.set_num_threads(config.compute.torch_threads)
        self.rasterizer = make_rasterizer(resolve_rasterizer(config.compute), config.compute.threads)
        torch.manual_seed(config.compute.seed)
        self.clip: ImageTextEncoder | None = make_clip(config.clip, self.device) if encode else None
        self.calibration = Calibration(**((self.clip and self.clip.calibration) or {}).get("query", {}))
        if self.clip is not None and config.query.calibration:
            self.calibration = load_calibration(config.query.calibration, self.clip.name)
        self.refinement = Refinement(config, self.rasterizer, self.clip, self.encode_text, self.device)
        self._version = 0
        self._texts: dict[str, torch.Tensor] = {}
        self.reset()

    def configure(self, config: Config) -> None:
        """Takes new values of parameters that may change while a map grows (`Leaf.runtime`), from any thread."""
        self.config = self.mapper.config = config

    def reset(self) -> None:
        """Forgets the map; models, settings, and the versions counted so far stay."""
        self.mapper = Mapper(self.config, self.rasterizer, self.device)
        self.lifter = Lifter(self.config.lift, self.config.map.codec_dim)
        self.frames = 0
        self.refinement.field = None
        self._past: MapSnapshot | None = None  # views of a loaded map; its images are not in the file

    @classmethod
    def load(cls, path: str | Path, settings: dict | None = None, *, encode: bool = True) -> Ovs3d:
        """Opens a map with the settings stored in it, see `config.leaf.Policy`, and the defaults of all others.

        Args:
            path: a `*.ovs3d` file.
            settings: dotted parameters that go over the stored ones and the defaults, e.g. `{"compute.device": "cpu"}`.
            encode: False loads no models: enough for renders of colour and depth.

        Raises:
            UserError: the file cannot be used, or names another encoder than the settings.
        """
        params, past = load_map(path)
        config = override(restore_config(past.meta.get("config", {})), settings or {})
        pipeline = cls(config, encode=encode and past.codec is not None)
        pipeline.restore(params, past, str(path))
        return pipeline

    def restore(self, params: dict[str, torch.Tensor], past: MapSnapshot, name: str) -> None:
        """Replaces the map by the content of a map file, see `load_map`; versions go on from the greater one.

        Raises:
            UserError: it is of another encoder or another degree of colours than set; the map there was stays.
        """
        if self.clip is not None and self.clip.name != past.meta["clip"]:
            raise UserError(f"{name}: made with the encoder {past.meta['clip']}, but clip.model and clip.pretrained "
                            f"name {self.clip.name}; leave them unset to use the map's own")
        if params["sh_rest"].shape[1] != self.mapper.gaussians.params["sh_rest"].shape[1]:
            raise UserError(f"{name}: its colours are not of map.sh_degree {self.config.map.sh_degree}; leave that "
                            "setting unset")
        self.reset()
        g = self.mapper.gaussians
        self.mapper.load_params(params)
        if past.codec is not None:
            self.lifter.codec = past.codec.to(g.device)
            g.stats.update(numerators=(past.scale_codes * past.weight[:, None, None]).to(g.device),
                           weight=past.weight.to(g.device), views=past.views.to(g.device),
                           max_weight=torch.zeros_like(past.weight, device=g.device))
            if past.refined is not None:
                self.refinement.set_field(past.refined, g)
        self._past, self._version = past, max(self._version, past.version)
        self.frames, self.mapper.steps = past.meta.get("frames", 0), past.meta.get("steps", 0)

    def add_frame(self, frame: Frame) -> bool:
        """Takes a posed frame into account; returns whether it became a keyframe.

        Raises:
            UserError: the pose, the intrinsics, the image or the depth cannot be used. The map is unchanged.
        """
        check_frame(frame)
        self.frames += 1
        if not self.mapper.needs_keyframe(frame):
            return False
        keyframe = make_keyframe(frame, len(self.mapper.keyframes), self.config.map.image_size,
                                 self.config.seed.max_depth, self.device)
        if self.clip is not None:
            keyframe.crops = compress_crop_table(encode_frame(self.clip, frame))
            check_num_levels(keyframe.crops, self.mapper.gaussians)
        self.mapper.insert(keyframe)
        if self.clip is not None and len(self.mapper.gaussians):
            self.lifter.lift(keyframe, self.mapper.gaussians, self.rasterizer)
        return True

    def move_keyframes(self, camtoworlds: dict[int, np.ndarray]) -> int:
        """Corrects keyframe poses after a loop closure, see `Mapper.move_keyframes`; how many Gaussians moved along."""
        return self.mapper.move_keyframes(camtoworlds)

    def add_points(self, xyz: np.ndarray, rgb: np.ndarray) -> None:
        """Seeds the map from a point cloud: xyz [P, 3] metres, rgb [P, 3] uint8."""
        self.mapper.insert_points(xyz, rgb)

    def optimize(self, steps: int, on_step: Callable[[StepStats], None] | None = None,
                 horizon: int | None = None) -> None:
        """Optimises the RGB map.

        Args:
            steps: how many steps to take.
            on_step: called after each.
            horizon: number of steps over which the learning rates decay; None while the map still grows.

        Raises:
            UserError: there is nothing to optimise yet.
        """
        if not self.mapper.keyframes:
            raise UserError("the map has no keyframe yet: add posed frames first")
        for _ in range(steps if len(self.mapper.gaussians) else 0):
            stats = self.mapper.step(horizon)
            if on_step is not None:
                on_step(stats)

    def relift(self) -> Iterator[None]:
        """Lifts the features of all keyframes anew, into the Gaussians as they are now; yields after each keyframe.

        The new features take effect at the end. A loaded map keeps its own, because map files hold no images.
        """
        encoded = [k for k in self.mapper.keyframes if k.crops is not None]
        if encoded and len(self.mapper.gaussians) and self._past is None:
            if self.lifter.codec is None:
                self.lifter.lift(encoded[0], self.mapper.gaussians, self.rasterizer)
            yield from self.lifter.relift(encoded, self.mapper.gaussians, self.rasterizer)

    def refine(self, names: list[str], frames: Sequence[Frame] = ()) -> Iterator[RefineStep]:
        """Refines class distributions for names (docs/method.md, "Refinement"); yields its progress.

        Exhaust it for the result to take effect; closing it early cancels. The map may grow meanwhile.

        Args:
            names: what to tell apart.
            frames: views to check at: where it is no better there, what the map has stays. None: no check.

        Raises:
            UserError: bad names, an empty map, or a missing DINO.
        """
        snapshot = self.snapshot()
        check_semantics(snapshot, self.clip and self.clip.name)
        g = self.mapper.gaussians
        refined = yield from self.refinement.run(check_prompts(names, "class"), snapshot, g, frames)
        if refined is not None and g is self.mapper.gaussians:
            self.refinement.set_field(refined, g)

    def snapshot(self) -> MapSnapshot:
        """An immutable copy of the map as it is now."""
        self._version += 1
        mapper, g = self.mapper, self.mapper.gaussians
        count, codec = len(g), self.lifter.codec
        activated = {name: t.detach().clone() for name, t in g.activated().items()}
        if codec is None or "numerators" not in g.stats:
            shapes = (count, 1), (count, 0, 1), (count, 0), (count,), (count,)  # a map file must not share memory
            codes, scale_codes, selection, weight, views = (torch.zeros(s, device=g.device) for s in shapes)
        else:
            scale_codes = codec.normalize(g.stats["numerators"])
            selection = self._selection(scale_codes, codec)
            # With one level there is nothing to blend, and the same memory serves both.
            codes = scale_codes[:, 0] if scale_codes.shape[1] == 1 else fuse_scales(scale_codes, selection, codec)
            weight, views = g.stats["weight"].clone(), g.stats["views"].clone()
        keyframes, past = mapper.keyframes, self._past
        poses = [*(past.camtoworlds if past else []), *(k.camtoworld for k in keyframes)]
        stamps = [*(past.stamps if past else []), *(k.stamp for k in keyframes)]
        return MapSnapshot(
            version=self._version, gaussians=activated, codes=codes, scale_codes=scale_codes, weight=weight,
            views=views, selection=selection, codec=codec, camtoworlds=np.array(poses, np.float64).reshape(-1, 4, 4),
            stamps=np.array(stamps, np.float64),
            cameras=[*(past.cameras if past else []), *(k.camera for k in keyframes)],
            names=[*(past.names if past else []), *(k.name for k in keyframes)],
            refined=self.refinement.snapshot_field(g, codes, codec),
            meta=dict(clip=self.clip.name if self.clip else past and past.meta["clip"], steps=mapper.steps, frames=self.frames,
                      psnr=None if np.isnan(mapper.psnr) else mapper.psnr,
                      config=stored_settings(self.config)))

    def _selection(self, level_codes: torch.Tensor, codec: FeatureCodec) -> torch.Tensor:
        """Scale-selection logits [N, S]: zeros where there is nothing to select, or no encoder to name things."""
        if level_codes.shape[1] == 1 or self.clip is None:
            return torch.zeros(level_codes.shape[:2], device=level_codes.device)
        names = self.encode_text(list(self.calibration.distractors or COMMON_NAMES))
        return select_levels(level_codes, names, codec, self.config.lift.selection)

    def query(self, prompts: Sequence[str], *, negatives: Sequence[str] | None = None, mode: str = "relevancy",
              threshold: float | None = None, max_instances: int = 0, roi: np.ndarray | None = None,
              snapshot: MapSnapshot | None = None, refine: bool = False) -> QueryResult:
        """Finds things by name.

        Args:
            prompts: 1 to 64 names.
            negatives: names the prompts compete against; default `query.negatives`.
            mode: "relevancy" decides each prompt against the negatives; "argmax" gives every Gaussian the best
                prompt (3D-OVS).
            threshold: relevancy from which a Gaussian carries a label, 0..1; default `query.threshold`.
            max_instances: per prompt, 0 = all.
            roi: [2, 3] two opposite corners of a box in metres; nothing outside is labelled.
            snapshot: the map to search; default: the current one (only from the thread that maps).
            refine: refine the map for these prompts first, beside the names it is refined for; takes seconds.

        Raises:
            UserError: bad prompts, negatives, mode, threshold or roi, an empty map, or a map of another encoder.
        """
        query = self.make_query(prompts, negatives=negatives, mode=mode, threshold=threshold,
                                max_instances=max_instances, roi=roi, refine=refine)
        return self.answer(query, snapshot)

    def make_query(self, prompts: Sequence[str], **options: Any) -> Query:
        """Checks a query and fills in the defaults without answering it; arguments and errors as in `query`."""
        return make_query(prompts, self.config.query, self.calibration, **options)

    def answer(self, query: Query, snapshot: MapSnapshot | None = None) -> QueryResult:
        """Answers a query of `make_query` from a snapshot; default: the current map (only from the thread that maps).

        Raises:
            UserError: an empty map, or a map of another encoder.
        """
        started = time.perf_counter()
        snapshot = snapshot or self.snapshot()
        check_semantics(snapshot, self.clip and self.clip.name)
        texts = TextFeatures(*map(self.encode_text, (query.prompts, query.negatives, self.calibration.distractors)))
        field = self.refinement.refine_for_query(query.prompts, snapshot) if query.refine else snapshot.refined
        result = answer_query(query, texts, snapshot, field, self.calibration, self.config.query)
        return replace(result, latency_ms=1e3 * (time.perf_counter() - started))

    def label_threshold(self, threshold: float | None = None) -> float:
        """The relevancy from which a label is given: the argument, else `query.threshold`, else the calibrated one.

        Raises:
            UserError: the argument is not in 0..1.
        """
        return resolve_threshold(threshold, self.config.query, self.calibration)

    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """Unit text features [P, D]; cached by prompt."""
        known = self._texts if len(self._texts) < _TEXTS_KEPT else {}  # a robot is asked for months
        unknown = [p for p in dict.fromkeys(prompts) if p not in known]
        if unknown:
            known.update(zip(unknown, self.clip.encode_text(unknown), strict=True))
        self._texts = known
        return torch.stack([known[p] for p in prompts]) if prompts else torch.zeros(0, self.clip.dim)

    def render(self, camera: Camera, camtoworld: np.ndarray, snapshot: MapSnapshot | None = None) -> RenderedView:
        """Renders colour, depth and alpha of the map from a camera pose."""
        gaussians = (snapshot or self.snapshot()).gaussians
        return render_view(gaussians, camera, camtoworld, self.rasterizer)

    def render_codes(self, camera: Camera, camtoworld: np.ndarray, snapshot: MapSnapshot) -> torch.Tensor:
        """Renders the codes: [H, W, d + 1] of unit features, zero where the map is more transparent than solid."""
        codes, alpha = render_channels(snapshot.gaussians, snapshot.codes, camera, camtoworld, self.rasterizer)
        return snapshot.codec.normalize(codes * (alpha > SURFACE_ALPHA))

    def render_relevancy(self, prompts: Sequence[str], camera: Camera, camtoworld: np.ndarray, snapshot: MapSnapshot,
                         negatives: Sequence[str] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and relevancy of P prompts at every pixel, [H, W, P] each; 0 where the map is not."""
        z = self.render_codes(camera, camtoworld, snapshot)
        texts = self.encode_text([*prompts, *(negatives or self.config.query.negatives)])
        cosines, count = z @ snapshot.codec.directions(texts), len(prompts)
        scores = relevancy(cosines[..., :count], cosines[..., count:], self.calibration.temperature)
        return cosines[..., :count], scores * (z[..., -1:] != 0)

    def render_labels(
        self, result: QueryResult, camera: Camera, camtoworld: np.ndarray, snapshot: MapSnapshot
    ) -> tuple[np.ndarray, np.ndarray]:
        """Segments a view the way a query was answered.

        Args:
            result: the answer, which carries its query.
            camera: intrinsics of the view.
            camtoworld: [4, 4] pose of the view.
            snapshot: the map; the one that answered where `result.field` is set.

        Returns:
            labels [H, W] uint16, 0 = none, else 1 + prompt index; score [H, W] float32 relevancy of that prompt.
        """
        query = result.query
        cosines, scores = self.render_relevancy(query.prompts, camera, camtoworld, snapshot, query.negatives)
        places = pixel_similarities(result, cosines, scores, snapshot, (camera, camtoworld, self.rasterizer))
        labels, scores = label_places(query, result.found, places, self.calibration.threshold, 0)
        best = scores.gather(-1, (labels - 1).clamp_min(0)[..., None])[..., 0] * (labels > 0)
        return labels.cpu().numpy().astype(np.uint16), best.cpu().numpy().astype(np.float32)

    def freeze(self) -> tuple[dict[str, torch.Tensor], MapSnapshot]:
        """Copies of the stored parameters and a snapshot: what `save_map` takes, then on any thread."""
        return {name: t.detach().clone() for name, t in self.mapper.gaussians.params.items()}, self.snapshot()

    def save(self, path: str | Path) -> None:
        """Writes the map file."""
        save_map(path, *self.freeze())

    def export_ply(self, path: str | Path) -> None:
        """Writes the standard 3DGS PLY."""
        write_ply(path, self.mapper.gaussians.params)

    @property
    def stats(self) -> dict:
        """Running figures: frames, keyframes, steps, num_gaussians, psnr [dB]."""
        return dict(frames=self.frames, keyframes=len(self.mapper.keyframes), steps=self.mapper.steps,
                    num_gaussians=len(self.mapper.gaussians), psnr=self.mapper.psnr)
