"""Removes everything from a map that a map file must not hold, so a map rescued after an error loads."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import torch

from ovs3d_ros.geometry import check_camera, check_pose, check_stamp
from ovs3d_ros.mapping.gaussians import PARAMETERS
from ovs3d_ros.types import MapSnapshot, UserError

MAX_MEAN = 1e10  # metres from the origin: above, squares of distances leave the range of float32
MAX_LOG_SCALE = 23.0  # 1e10 m, as logarithm

_log = logging.getLogger(__name__)
Tensors = dict[str, torch.Tensor]


def drop_unusable(params: Tensors, snapshot: MapSnapshot) -> tuple[Tensors, MapSnapshot]:
    """The map without Gaussians, keyframes and features that `load_map` refuses; logs how many went.

    A map without such parts is returned as it is.

    Args:
        params: Gaussian parameters in the stored form, see `gaussians.PARAMETERS`.
        snapshot: semantics, codec and keyframes of the same map.
    """
    if snapshot.codec is not None and not _is_finite(snapshot.codec.basis, snapshot.codec.mean):
        _log.warning(
            "the feature codec has NaN or infinite values: the map is saved without language features"
        )
        snapshot = replace(snapshot, codec=None, refined=None)
    if snapshot.refined is not None and not _is_finite(snapshot.refined.texts):
        _log.warning("the refined field has NaN or infinite values: the map is saved without it")
        snapshot = replace(snapshot, refined=None)
    training = snapshot.training
    if training is not None and not _is_finite(training.exposures):
        _log.warning(
            "the exposures have NaN or infinite values: the map is saved without its keyframes' images"
        )
        snapshot = replace(snapshot, training=None)
    rows = usable_rows(_row_tensors(params, snapshot))
    if not bool(rows.all()):
        _log.warning(
            "%d of %d Gaussians have NaN, infinite or huge values: the map is saved without them",
            int((~rows).sum()),
            len(rows),
        )
        params, snapshot = {name: p[rows] for name, p in params.items()}, _keep_rows(snapshot, rows)
    return params, _drop_unusable_keyframes(snapshot)


def usable_rows(tensors: Tensors) -> torch.Tensor:
    """Which Gaussians can be rendered: [N] bool.

    Args:
        tensors: parameters and other tensors [N, ...] by name, at least `means` and `log_scales`.
    """
    rows = (tensors["means"].abs() <= MAX_MEAN).all(-1) & (tensors["log_scales"] <= MAX_LOG_SCALE).all(-1)
    for tensor in tensors.values():
        rows = rows & torch.isfinite(tensor[:, None].flatten(1)).all(-1)
    return rows


def _row_tensors(params: Tensors, snapshot: MapSnapshot) -> Tensors:
    tensors = {name: params[name].detach() for name in PARAMETERS}
    tensors |= dict(weight=snapshot.weight, views=snapshot.views)
    if snapshot.codec is not None:
        tensors |= dict(codes=snapshot.packed_levels.scales, selection=snapshot.selection)
    if snapshot.refined is not None:
        tensors["refined"] = snapshot.refined.probabilities
    return tensors


def _keep_rows(snapshot: MapSnapshot, rows: torch.Tensor) -> MapSnapshot:
    names = ("packed_codes", "packed_levels", "weight", "views", "selection")
    refined = snapshot.refined and replace(
        snapshot.refined, probabilities=snapshot.refined.probabilities[rows]
    )
    gaussians = {name: tensor[rows] for name, tensor in snapshot.gaussians.items()}
    training = snapshot.training and replace(snapshot.training, owners=snapshot.training.owners[rows])
    kept = {name: getattr(snapshot, name)[rows] for name in names} | dict(training=training, parked=())
    return replace(snapshot, gaussians=gaussians, refined=refined, **kept)


def _drop_unusable_keyframes(snapshot: MapSnapshot) -> MapSnapshot:
    indices = [index for index in range(len(snapshot.names)) if _is_usable_keyframe(snapshot, index)]
    if len(indices) == len(snapshot.names):
        return snapshot
    _log.warning(
        "%d of %d keyframes have an unusable pose, camera or stamp: the map is saved without them",
        len(snapshot.names) - len(indices),
        len(snapshot.names),
    )
    if snapshot.training is not None:
        _log.warning("the images of the keyframes are not saved either, as Gaussians count on their numbers")
    return replace(
        snapshot,
        training=None,
        camtoworlds=snapshot.camtoworlds[indices],
        stamps=snapshot.stamps[indices],
        cameras=[snapshot.cameras[index] for index in indices],
        names=[snapshot.names[index] for index in indices],
    )


def _is_usable_keyframe(snapshot: MapSnapshot, index: int) -> bool:
    try:
        check_pose(np.asarray(snapshot.camtoworlds[index]), "keyframe")
        check_camera(snapshot.cameras[index], "keyframe")
        check_stamp(float(snapshot.stamps[index]), "keyframe")
    except UserError:
        return False
    return True


def _is_finite(*tensors: torch.Tensor) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
