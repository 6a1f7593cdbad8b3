"""Merges a map file into a map that grows (docs/method.md, "Merging maps").

The slow parts, `prepare`, run on any thread. `merge_into` changes the map, on the thread that owns it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ovs3d_ros.config import Config
from ovs3d_ros.mapping.gaussians import PARAMETERS
from ovs3d_ros.mapping.keyframes import to_device
from ovs3d_ros.mapping.loop_closure import owners
from ovs3d_ros.mapping.mapper import parking_cap
from ovs3d_ros.mapping.training_state import put_keyframes_first
from ovs3d_ros.merging.merge import (
    StoredMap,
    bequeath,
    check_mergeable,
    lifted_sums,
    move_map,
    shift_owners,
)
from ovs3d_ros.merging.settle import RenderedKeyframe, render_keyframes
from ovs3d_ros.merging.surfaces import Surface, choose_kept, make_surface
from ovs3d_ros.rasterize import Rasterizer
from ovs3d_ros.semantic_map import SemanticMap, add_views
from ovs3d_ros.semantics.codec import CodecFitter, FeatureCodec
from ovs3d_ros.types import Keyframe, UserError

_MAX_VIEWS = 64  # rendered; each takes 1 to 2 MB

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class PreparedMap:
    """A map file in the frame of the map that it will be put into.

    Attributes:
        stored: the map.
        surface: its Gaussians.
        features: of its Gaussians; None: it holds colours only.
        rendered: what it shows from its keyframes, or from some of them, where it has no images of them.
        images_dropped: whether the file holds such images, and they cannot be used.
    """

    stored: StoredMap
    surface: Surface
    features: CodecFitter | None
    rendered: list[Keyframe]
    images_dropped: bool


def prepare(
    live: StoredMap, other: StoredMap, motion: np.ndarray, rasterizer: Rasterizer, lacks_images: bool
) -> PreparedMap:
    """What can be done about a merge without the thread that owns the map.

    Args:
        live: a copy of the map that grows.
        other: the map file, as `load_map` reads it with `training`.
        motion: [4, 4] from the file's world to the live one, see `merge.move_map`.
        rasterizer: renders.
        lacks_images: see `SemanticMap.lacks_images`, of the map that grows.

    Raises:
        UserError: the maps do not fit, see `merge.check_mergeable`.
    """
    check_mergeable(live, other)
    images_dropped = lacks_images and other.snapshot.training is not None
    if lacks_images:
        other = replace(other, snapshot=replace(other.snapshot, training=None))
    moved = move_map(other, live.snapshot.frame, motion)
    codec, features = moved.snapshot.codec, None
    if isinstance(codec, FeatureCodec):
        features = CodecFitter(len(codec.mean), codec.dim - 1)
        features.add_codes(moved.snapshot.packed_levels.unpack().flatten(0, 1), codec)
    views = render_keyframes(moved, rasterizer, _MAX_VIEWS) if moved.snapshot.training is None else []
    surface = make_surface(moved.params, moved.snapshot.weight)
    return PreparedMap(moved, surface, features, [_to_keyframe(view) for view in views], images_dropped)


def merge_into(room: SemanticMap, other: PreparedMap, config: Config) -> dict[str, Any]:
    """Puts a prepared map into a map that grows; doubled surfaces are fused and evidence adds up.

    The map keeps its frame, its refined field and the state of its optimiser. The keyframes of the file come
    before its own: with their images if both maps have those, else as views only.

    Args:
        room: the map.
        other: the map file.
        config: how many Gaussians the map may hold, or else hold active.

    Returns:
        `fused`: the Gaussians that gave their evidence to others; `refined_dropped` and `images_dropped`:
        whether a refined field or the images of keyframes in the file were left out.

    Raises:
        UserError: both hold more than `map.max_gaussians`, and none may be parked. The map is unchanged.
    """
    g, blocks, moved = room.mapper.gaussians, room.mapper.blocks, other.stored
    blocks.codec = room.lifter.codec
    blocks.wake_all()
    params = {name: g.params[name].detach().cpu() for name in PARAMETERS}
    weight = g.stats.get("weight", torch.zeros(len(g))).cpu()
    surface = make_surface(params, weight)
    keep_own, keep_other = choose_kept(surface, other.surface)
    total = int(keep_own.sum() + keep_other.sum())
    if not config.map.memory_limit_mib and total > config.map.max_gaussians:
        raise UserError(
            f"{moved.name}: both maps together hold {total} Gaussians, and map.max_gaussians is "
            f"{config.map.max_gaussians}: raise it, so that nothing is lost"
        )
    kept = np.concatenate([keep_own, keep_other])
    points = np.concatenate([surface.points, other.surface.points])
    both = None if other.features is None else room.lifter.prepare_merge(other.features, g)
    evidence = {} if both is None else bequeath(_evidence(room, moved, both[1]), kept, points)
    training = moved.snapshot.training
    if training is not None:
        numbers = torch.cat([shift_owners(owners(g).cpu(), len(training.keyframes)), training.owners])
        training = replace(training, owners=numbers[torch.from_numpy(kept)])

    rows = torch.from_numpy(keep_other)
    room.mapper.merge_params(
        torch.from_numpy(keep_own).to(g.device), {name: p[rows] for name, p in moved.params.items()}
    )
    keyframes = 0 if training is None else len(training.keyframes)
    if both is not None:
        room.lifter.finish_merge(both, evidence, g, keyframes)
    if training is not None:
        put_keyframes_first(room.mapper, training)
    else:
        add_views(room, moved.snapshot)
        room.mapper.log.rendered += [to_device(view, g.device) for view in other.rendered]
    blocks.codec = room.lifter.codec
    blocks.make_room(0, parking_cap(config))
    room.frames += moved.snapshot.meta.get("frames", 0)
    return dict(
        fused=int((~kept).sum()),
        refined_dropped=moved.snapshot.refined is not None,
        images_dropped=other.images_dropped,
    )


def _evidence(room: SemanticMap, moved: StoredMap, codec: FeatureCodec) -> Tensors:
    """The evidence of all Gaussians of a map and then of another one, in a new codec."""
    stats, snapshot, old = room.mapper.gaussians.stats, moved.snapshot, room.lifter.codec
    assert old is not None, "a map of colours has no evidence"
    own = (stats["numerators"] @ old.translation_to(codec).T).cpu()
    sums = lifted_sums(snapshot, codec.to("cpu"))
    joint = {name: torch.cat([stats[name].cpu(), getattr(snapshot, name)]) for name in ("weight", "views")}
    return joint | dict(numerators=torch.cat([own, sums]))


def _to_keyframe(view: RenderedKeyframe) -> Keyframe:
    image = (255 * view.image).round().clamp(0, 255).byte()
    return Keyframe(-1, 0.0, "", image, view.camera, view.camtoworld, depth=view.depth, mask=view.mask)
