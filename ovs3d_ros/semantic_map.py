"""`SemanticMap`: Gaussians with language features, the keyframes behind them, and snapshots of both."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from ovs3d_ros.config import Config
from ovs3d_ros.config.stored import stored_settings
from ovs3d_ros.encoders import ImageTextEncoder
from ovs3d_ros.geometry import check_pose
from ovs3d_ros.map_frame import (
    frame_to_map,
    keyframe_to_world,
    poses_to_map,
    poses_to_world,
)
from ovs3d_ros.mapping.keyframe_store import Keyframes, KeyframeStore
from ovs3d_ros.mapping.keyframes import hide_masked
from ovs3d_ros.mapping.mapper import Mapper, StepStats
from ovs3d_ros.mapping.training_state import capture_training, restore_training
from ovs3d_ros.rasterize import Rasterizer
from ovs3d_ros.semantics.codec import FeatureCodec
from ovs3d_ros.semantics.kept_snapshot import KeptSnapshot, mark_map
from ovs3d_ros.semantics.lift import Lifter
from ovs3d_ros.semantics.publication import Publisher
from ovs3d_ros.semantics.refinement import Refinement
from ovs3d_ros.semantics.scale_selection import select_levels
from ovs3d_ros.types import (
    Frame,
    Keyframe,
    MapFrame,
    MapSnapshot,
    RefineStep,
    TrainingState,
    UserError,
)

logger = logging.getLogger(__name__)


class Texts(Protocol):
    """The part of `query.engine.QueryEngine` that a map needs."""

    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """Unit text features [P, D]."""
        ...

    def common_names(self) -> Sequence[str]:
        """Names between which `lift.selection` judges the levels of an image pyramid."""
        ...


class SemanticMap:
    """The state of a map that grows. One thread changes it; snapshots are immutable.

    Args:
        config: all parameters.
        rasterizer: renders and lifts.
        clip: encodes keyframes; None: the map holds colours only.
        texts: encodes names.
        device: of the tensors.

    Attributes:
        mapper: the Gaussians and keyframes.
        lifter: lifts the features of keyframes into the Gaussians.
        refinement: the refined field.
        frames: frames the map was given.
        frame: the map frame, see `map_frame`; the mapper and its keyframes are in it.
    """

    def __init__(
        self, config: Config, rasterizer: Rasterizer, clip: ImageTextEncoder | None, texts: Texts, device: str
    ) -> None:
        self._config, self._rasterizer, self._clip, self._texts = config, rasterizer, clip, texts
        self._device, self._version = device, 0
        self.refinement = Refinement(config, rasterizer, clip, texts.encode_text, device)
        self.reset()

    def configure(self, config: Config) -> None:
        """Takes new values of runtime parameters, from any thread."""
        self._config = self.mapper.config = config

    def reset(self) -> None:
        """Empties the map; versions go on counting."""
        self.mapper = Mapper(self._config, self._rasterizer, self._device)
        self._publisher = Publisher(self.mapper.gaussians, self.mapper.blocks, partial(_select, self))
        self._kept = KeptSnapshot()
        self.lifter = Lifter(self._config.lift, self._config.map.codec_dim)
        self.refinement.clear()
        self.frames, self.frame = 0, MapFrame()
        self._loaded: MapSnapshot | None = None  # a map file, with the views of keyframes without images

    def restore(self, params: dict[str, torch.Tensor], loaded: MapSnapshot, name: str) -> None:
        """Replaces the map by that of a file; versions go on from the greater one.

        Args:
            params: Gaussian parameters of `load_map`.
            loaded: snapshot of `load_map`.
            name: how errors name the file.

        Raises:
            UserError: the file is of another encoder or another `map.sh_degree`. The map is unchanged.
        """
        _check_fits(params, loaded, name, self._clip, self._config.map.sh_degree)
        self.reset()
        g = self.mapper.gaussians
        self.mapper.load_params(params)
        if loaded.codec is not None:
            self.lifter.load(loaded, g)
            if loaded.refined is not None:
                self.refinement.set_field(loaded.refined, self.mapper.blocks)
        if loaded.training is not None:
            restore_training(self.mapper, loaded.training)
            self.lifter.learn(self.mapper.keyframes)
            loaded = _without_views(loaded)
        self._loaded, self._version = loaded, max(self._version, loaded.version)
        self.frame = loaded.frame
        self.frames = loaded.meta.get("frames", 0)
        self.mapper.resume(loaded.meta.get("steps", 0), loaded.meta.get("psnr"))

    def lift(self, keyframe: Keyframe) -> None:
        """Adds the features of an encoded keyframe to the Gaussians."""
        self.lifter.lift(keyframe, self.mapper.gaussians, self._rasterizer)

    def move_keyframes(self, camtoworlds: dict[int, np.ndarray]) -> int:
        """Corrects keyframe poses after a loop closure, see `Mapper.move_keyframes`."""
        poses = {i: check_pose(pose, f"pose of keyframe {i}") for i, pose in camtoworlds.items()}
        return self.mapper.move_keyframes({i: poses_to_map(pose, self.frame) for i, pose in poses.items()})

    def optimize(self, steps: int, on_step: Callable[[StepStats], None] | None, horizon: int | None) -> None:
        """Optimises the colours, see `Ovs3d.optimize`."""
        if not self.mapper.keyframes:
            raise UserError("the map has no keyframe yet: add posed frames first")
        for _ in range(steps if len(self.mapper.gaussians) else 0):
            stats = self.mapper.step(horizon)
            if on_step is not None:
                on_step(stats)

    def relift(self) -> Iterator[None]:
        """Lifts the features of all keyframes into the present Gaussians; yields after each keyframe.

        Exhaust it for the result to take effect; snapshots hold the old features until then. A map from a
        file without keyframes keeps its features.
        """
        blocks, g = self.mapper.blocks, self.mapper.gaussians
        encoded, cap = self.mapper.keyframes.encoded(), self._config.map.max_gaussians
        if encoded and len(g) and not self.lacks_images:
            if self.lifter.codec is None:
                self.lift(encoded[0])
            yield from self.lifter.relift(encoded, g, self._rasterizer, blocks, cap)

    def refine(
        self, names: list[str], snapshot: MapSnapshot, frames: Sequence[Frame]
    ) -> Iterator[RefineStep]:
        """Refines class distributions, see `Ovs3d.refine`; does not touch a map that came meanwhile."""
        blocks, views = self.mapper.blocks, [hide_masked(frame_to_map(f, snapshot.frame)) for f in frames]
        kept = self.mapper.keyframes.frozen()
        refined = yield from self.refinement.run(names, snapshot, blocks, views, kept)
        if refined is not None and blocks is self.mapper.blocks:
            self.refinement.set_field(refined, blocks)

    @property
    def is_empty(self) -> bool:
        """Whether the map has no place in the world yet."""
        return not (self.mapper.keyframes or len(self.mapper.gaussians) or self._loaded)

    @property
    def lacks_images(self) -> bool:
        """Whether some keyframes came from a map file without images."""
        return self._loaded is not None and bool(self._loaded.names)

    def discard_refinement(self) -> None:
        """Frees what a refinement that raised left in the map; the thread that owns the map calls it."""
        self.refinement.discard(self.mapper.blocks)

    @property
    def keyframes(self) -> Keyframes:
        """The keyframes that were added, with world poses; those of a loaded map are not among them."""
        kept, place = self.mapper.keyframes, self.frame
        views = [replace(v, camtoworld=poses_to_world(v.camtoworld, place)) for v in kept.views]
        return Keyframes(lambda index: keyframe_to_world(kept[index], place), views)

    @property
    def stats(self) -> dict:
        """Running figures: frames, and those of `Mapper.stats`."""
        stats = dict(frames=self.frames) | self.mapper.stats
        shown = self._publisher.file.size / (1 << 20)
        return stats | dict(parked_disk_mib=round(stats["parked_disk_mib"] + shown, 3))

    def params(self) -> dict[str, torch.Tensor]:
        """The Gaussian parameters in the stored form, see `gaussians.PARAMETERS`."""
        return self.mapper.params()

    def snapshot(self) -> MapSnapshot:
        """The map as it is now, an immutable copy; the same one until something changes."""
        parts = self.lifter.codec, self.refinement.field, self.frame, self._loaded, self._config
        marks = mark_map(self.mapper, (*parts, self._texts.common_names()), self.frames)
        return self._kept.get(marks if self._publisher.is_settled else None, self._publish)

    def _publish(self) -> MapSnapshot:
        self._version += 1
        fields = self._publisher.fields(self.lifter.codec)
        codec, blocks = fields["codec"], self.mapper.blocks
        clip = self._clip.name if self._clip else self._loaded and self._loaded.meta["clip"]
        return MapSnapshot(
            version=self._version,
            refined=self.refinement.snapshot_field(blocks, fields["packed_codes"], codec),
            meta=_make_meta(clip, self.stats, self._config),
            frame=self.frame,
            **fields,
            **_keyframe_views(self._loaded, self.mapper.keyframes, self.frame),
        )


def _select(room: SemanticMap, sums: torch.Tensor, codec: FeatureCodec) -> torch.Tensor:
    """Scale-selection logits [N, S] of lifted sums: zeros for a single level, or without an encoder."""
    if sums.shape[1] == 1 or room._clip is None:
        return torch.zeros(1, 1, device=sums.device).expand(sums.shape[:2])
    names = room._texts.encode_text(room._texts.common_names())
    return select_levels(codec.normalize(sums), names, codec, room._config.lift.selection)


def keep_training(room: SemanticMap, config: Config) -> TrainingState | None:
    """What `map.keep_keyframes` puts into a map file; None if it is off or cannot be done."""
    if not config.map.keep_keyframes:
        return None
    if room.lacks_images:
        logger.warning("keyframes are not saved: some came from a map file without their images")
        return None
    return capture_training(room.mapper)


def add_views(room: SemanticMap, loaded: MapSnapshot) -> None:
    """Puts the views of another map's keyframes, whose images are not there, before all other views."""
    known = room._loaded
    if known is not None:
        loaded = replace(
            loaded,
            camtoworlds=np.concatenate([loaded.camtoworlds, known.camtoworlds]),
            stamps=np.concatenate([loaded.stamps, known.stamps]),
            cameras=[*loaded.cameras, *known.cameras],
            names=[*loaded.names, *known.names],
        )
    room._loaded = replace(loaded, training=None)


def _without_views(loaded: MapSnapshot) -> MapSnapshot:
    """The snapshot without the views of keyframes, which the mapper has."""
    none = np.zeros((0, 4, 4)), np.zeros(0)
    return replace(loaded, camtoworlds=none[0], stamps=none[1], cameras=[], names=[], training=None)


def _make_meta(clip: str | None, stats: dict, config: Config) -> dict[str, Any]:
    """Encoder, statistics and settings for the map file's header."""
    psnr = None if np.isnan(stats["psnr"]) else stats["psnr"]
    figures = dict(clip=clip, steps=stats["steps"], frames=stats["frames"], psnr=psnr)
    return figures | dict(config=stored_settings(config))


def _check_fits(
    params: dict[str, torch.Tensor],
    loaded: MapSnapshot,
    name: str,
    clip: ImageTextEncoder | None,
    degree: int,
) -> None:
    """Raises UserError unless a map file fits the loaded encoder, if any, and the degree of colours."""
    if clip is not None and clip.name != loaded.meta["clip"]:
        raise UserError(
            f"{name}: made with the encoder {loaded.meta['clip']}, but clip.model and clip.pretrained "
            f"name {clip.name}; leave them unset to use the map's own"
        )
    if params["sh_rest"].shape[1] != (degree + 1) ** 2 - 1:
        raise UserError(f"{name}: its colours are not of map.sh_degree {degree}; leave that setting unset")


def _keyframe_views(loaded: MapSnapshot | None, keyframes: KeyframeStore, place: MapFrame) -> dict[str, Any]:
    """The fields of a snapshot that describe keyframes: those of a loaded map, then those that were added."""
    # Whole lists are copied: an entry at a time, thousands of them took as long as all else of a snapshot.
    poses, stamps = poses_to_world(keyframes.poses, place), keyframes.stamps
    return dict(
        camtoworlds=np.concatenate([loaded.camtoworlds, poses]) if loaded else poses.copy(),
        stamps=np.concatenate([loaded.stamps, stamps]) if loaded else stamps.copy(),
        cameras=[*(loaded.cameras if loaded else []), *keyframes.cameras],
        names=[*(loaded.names if loaded else []), *keyframes.names],
    )
