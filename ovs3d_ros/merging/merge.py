"""Merges two map files into one (docs/method.md, "Merging maps")."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ovs3d_ros.mapping.exposure import join_exposures
from ovs3d_ros.mapping.gaussians import PARAMETERS, move_params
from ovs3d_ros.merging.surfaces import choose_kept, make_surface, nearest_kept
from ovs3d_ros.packed_codes import PackedCodes
from ovs3d_ros.semantics.codec import CodecFitter, FeatureCodec
from ovs3d_ros.semantics.lift import no_codes, pack_levels
from ovs3d_ros.types import MapFrame, MapSnapshot, TrainingState, UserError

_SAME_UNIT = 1e-6  # relative difference

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class StoredMap:
    """A map as `load_map` reads it.

    Attributes:
        params: Gaussian parameters in the stored form, on the CPU.
        snapshot: everything else.
        name: how errors name the map.
    """

    params: Tensors
    snapshot: MapSnapshot
    name: str


@dataclass(frozen=True, slots=True)
class MergedMap:
    """A merged map, ready for `save_map`.

    Attributes:
        params: Gaussian parameters in the stored form.
        snapshot: everything else.
        figures: `gaussians`, `keyframes`, and `fused`: the Gaussians that gave their evidence to others;
            `refined_dropped` and `images_dropped`: whether a refined field, or the images of the keyframes of
            one map (`map.keep_keyframes`), were left out.
    """

    params: Tensors
    snapshot: MapSnapshot
    figures: dict[str, Any] = field(default_factory=dict)


def on_host(stored: StoredMap) -> StoredMap:
    """A map on any device with its Gaussians and features on the CPU, where maps are compared."""
    snapshot, levels = stored.snapshot, stored.snapshot.packed_levels
    codec = snapshot.codec
    moved = replace(
        snapshot,
        packed_levels=PackedCodes(levels.values.cpu(), levels.scales.cpu(), levels.steps.cpu()),
        weight=snapshot.weight.cpu(),
        views=snapshot.views.cpu(),
        selection=snapshot.selection.cpu(),
        codec=codec.to("cpu") if isinstance(codec, FeatureCodec) else codec,
    )
    return StoredMap({name: p.cpu() for name, p in stored.params.items()}, moved, stored.name)


def check_mergeable(first: StoredMap, second: StoredMap) -> None:
    """Raises UserError unless two maps have features of the same encoder and colours of the same degree."""
    pair = (first.snapshot, second.snapshot)
    both = f"{first.name} and {second.name}"
    if (pair[0].codec is None) != (pair[1].codec is None):
        plain = first.name if pair[0].codec is None else second.name
        raise UserError(
            f"{both}: {plain} holds colours only (map --no-clip), the other one language features"
        )
    if pair[0].codec is not None and pair[0].meta["clip"] != pair[1].meta["clip"]:
        raise UserError(
            f"{both}: made with different encoders, {pair[0].meta['clip']} and {pair[1].meta['clip']}; map "
            "one of them anew with the encoder of the other (clip.model, clip.pretrained)"
        )
    levels = [snapshot.packed_levels.scales.shape[1] for snapshot in pair]
    if levels[0] != levels[1]:
        raise UserError(
            f"{both}: their images were encoded at {levels[0]} and {levels[1]} levels (clip.mode)"
        )
    degrees = [stored.params["sh_rest"].shape[1] for stored in (first, second)]
    if degrees[0] != degrees[1]:
        raise UserError(f"{both}: their colours are of different map.sh_degree")


def same_frame_motion(first: StoredMap, second: StoredMap) -> np.ndarray:
    """The motion for two maps of one world frame: the identity [4, 4].

    Raises:
        UserError: their units differ, so that their worlds do.
    """
    units = first.snapshot.frame.unit, second.snapshot.frame.unit
    if abs(units[0] / units[1] - 1) > _SAME_UNIT:
        raise UserError(
            f"{first.name} and {second.name}: a unit is {units[0]:.4g} m in one and {units[1]:.4g} m in the "
            "other, so they are not in one frame: map both with the same map.unit, or give the "
            "transform between them"
        )
    return np.eye(4)


def move_map(stored: StoredMap, frame: MapFrame, motion: np.ndarray) -> StoredMap:
    """The map in the world and the map frame of another one.

    Args:
        stored: the map.
        frame: map frame of the other one.
        motion: [4, 4] rigid transform between their worlds, its translation in the other one's unit. Lengths
            are converted if the units differ.
    """
    snapshot, inner = stored.snapshot, motion_between_map_frames(stored.snapshot.frame, frame, motion)
    params = stored.params if np.array_equal(inner, np.eye(4)) else move_params(stored.params, inner)
    poses = np.array(snapshot.camtoworlds, np.float64)
    poses[:, :3, 3] *= snapshot.frame.unit / frame.unit
    training = snapshot.training
    if training is not None:
        keyframes = [replace(k, camtoworld=inner @ k.camtoworld) for k in training.keyframes]
        training = replace(training, keyframes=keyframes)
    moved = replace(snapshot, camtoworlds=motion @ poses, frame=frame, training=training)
    return StoredMap(params, moved, stored.name)


def merge_maps(first: StoredMap, second: StoredMap) -> MergedMap:
    """Puts the second map into the first one; both are in one map frame, see `move_map`.

    Evidence adds up: doubled surfaces are there once, and the Gaussians that go give their features, weights
    and views to those that stay. The result has the settings of the first map. A refined field is left out,
    for it belongs to the Gaussians of one map.

    Raises:
        UserError: the maps do not fit, see `check_mergeable`.
    """
    check_mergeable(first, second)
    a, b = first.snapshot, second.snapshot
    surfaces = make_surface(first.params, a.weight), make_surface(second.params, b.weight)
    kept = np.concatenate(choose_kept(*surfaces))
    params = {name: torch.cat([first.params[name], second.params[name]]) for name in PARAMETERS}
    points = np.concatenate([surface.points for surface in surfaces])
    features = _gather_evidence(_joint_features(a, b), kept, points)
    figures = dict(
        gaussians=int(kept.sum()),
        keyframes=len(a.names) + len(b.names),
        fused=int((~kept).sum()),
        refined_dropped=a.refined is not None or b.refined is not None,
        images_dropped=(a.training is None) != (b.training is None),
    )
    rows = torch.from_numpy(kept)
    snapshot = replace(
        a,
        version=max(a.version, b.version) + 1,
        refined=None,
        meta=_merged_meta(a.meta, b.meta, figures["gaussians"]),
        camtoworlds=np.concatenate([a.camtoworlds, b.camtoworlds]),
        stamps=np.concatenate([a.stamps, b.stamps]),
        cameras=[*a.cameras, *b.cameras],
        names=[*a.names, *b.names],
        training=_joint_training(a.training, b.training, rows),
        parked=(),
        **features,
    )
    return MergedMap({name: p[rows] for name, p in params.items()}, snapshot, figures)


def joint_codec(a: MapSnapshot, b: MapSnapshot) -> FeatureCodec | None:
    """The codec that loses least of both maps' features; each of their Gaussians counts once."""
    if not isinstance(a.codec, FeatureCodec) or not isinstance(b.codec, FeatureCodec):
        return None
    fitter = CodecFitter(len(a.codec.mean), max(a.codec.dim, b.codec.dim) - 1)
    for snapshot, codec in ((a, a.codec), (b, b.codec)):
        fitter.add_codes(snapshot.packed_levels.unpack().flatten(0, 1), codec)
    return fitter.fit()


def motion_between_map_frames(source: MapFrame, target: MapFrame, motion: np.ndarray) -> np.ndarray:
    """A motion between worlds, see `move_map`, as one between map frames: [4, 4], in metres."""
    inner = motion.copy()
    start = motion[:3, :3] @ (source.origin * source.unit)
    inner[:3, 3] = start + (motion[:3, 3] - target.origin) * target.unit
    return inner


def motion_between_worlds(source: MapFrame, target: MapFrame, motion: np.ndarray) -> np.ndarray:
    """The inverse of `motion_between_map_frames`."""
    outer = motion.copy()
    start = motion[:3, :3] @ (source.origin * source.unit)
    outer[:3, 3] = (motion[:3, 3] - start) / target.unit + target.origin
    return outer


def _joint_features(a: MapSnapshot, b: MapSnapshot) -> dict[str, Any]:
    """The fields of a snapshot that the lift fills, for both maps after each other, and `numerators`."""
    names = ("weight", "views", "selection")
    joint: dict[str, Any] = {name: torch.cat([getattr(a, name), getattr(b, name)]) for name in names}
    joint["codec"] = codec = joint_codec(a, b)
    joint["numerators"] = torch.cat([lifted_sums(snapshot, codec) for snapshot in (a, b)])
    return joint


def lifted_sums(snapshot: MapSnapshot, codec: FeatureCodec | None) -> torch.Tensor:
    """The lifted sums [N, S, d + 1] of a map in another codec."""
    level_codes = snapshot.packed_levels.unpack()
    if codec is None or not isinstance(snapshot.codec, FeatureCodec):
        return level_codes
    return level_codes * snapshot.weight[:, None, None] @ snapshot.codec.translation_to(codec).T


def _gather_evidence(joint: dict[str, Any], kept: np.ndarray, points: np.ndarray) -> dict[str, Any]:
    """The snapshot's features of the Gaussians that stay, with the evidence of those that go."""
    codec, selection = joint["codec"], joint["selection"][torch.from_numpy(kept)]
    evidence = bequeath({name: joint[name] for name in ("numerators", "weight", "views")}, kept, points)
    numerators = evidence.pop("numerators")
    codes = no_codes(len(selection), "cpu") if codec is None else pack_levels(numerators, selection, codec)
    return dict(codec=codec, selection=selection) | evidence | codes


def bequeath(evidence: Tensors, kept: np.ndarray, points: np.ndarray) -> Tensors:
    """The evidence of the Gaussians that stay, with that of those that go.

    Args:
        evidence: `numerators` [N, S, d + 1], `weight` [N] and `views` [N].
        kept: [N] bool.
        points: [N, 3] centres; the nearest one that stays inherits.
    """
    if not kept.all():
        gone = torch.from_numpy(~kept)
        heirs = torch.from_numpy(nearest_kept(points, kept))
        shares = torch.bincount(heirs, minlength=len(kept)).clamp_min(1)[heirs]
        shared = evidence["views"][gone] / shares
        left = {name: evidence[name][gone] for name in ("numerators", "weight")} | dict(views=shared)
        evidence = {name: evidence[name].index_add(0, heirs, part) for name, part in left.items()}
    rows = torch.from_numpy(kept)
    return {name: values[rows] for name, values in evidence.items()}


def _joint_training(
    a: TrainingState | None, b: TrainingState | None, rows: torch.Tensor
) -> TrainingState | None:
    """The keyframes of both maps, for the Gaussians `rows` [N] bool of both; None unless both have them."""
    if a is None or b is None:
        return None
    first = len(a.keyframes)
    moved = [replace(keyframe, index=first + keyframe.index) for keyframe in b.keyframes]
    return TrainingState(
        [*a.keyframes, *moved],
        [*a.visits, *b.visits],
        [*a.median_depths, *b.median_depths],
        join_exposures(a.exposures, b.exposures),
        torch.cat([a.owners, shift_owners(b.owners, first)])[rows],
    )


def shift_owners(owners: torch.Tensor, keyframes: int) -> torch.Tensor:
    """Owner numbers after so many keyframes were put before."""
    return torch.where(owners > 0, owners + keyframes, owners)


def _merged_meta(a: dict[str, Any], b: dict[str, Any], gaussians: int) -> dict[str, Any]:
    """The first map's meta with the counts of both, and room for all Gaussians."""
    counts = {key: a.get(key, 0) + b.get(key, 0) for key in ("frames", "steps")}
    config = dict(a.get("config", {}))
    caps = [meta.get("config", {}).get("map.max_gaussians", 0) for meta in (a, b)]
    if "map.max_gaussians" in config:
        config["map.max_gaussians"] = max(*caps, gaussians)
    return a | counts | dict(psnr=None, config=config)
