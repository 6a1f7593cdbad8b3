"""The map file: `*.ovs3d` is one safetensors file; its header holds everything that is not a tensor, as JSON.

Writing goes to a temporary file in the same folder, which is then renamed: a crash never leaves half a map.
Loading validates everything before use and never unpickles.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovs3d_ros.io.atomic import Destination
from ovs3d_ros.io.git_lfs import check_no_lfs_pointer
from ovs3d_ros.io.keyframes import pack_training, unpack_training
from ovs3d_ros.io.tensors import read_tensors, write_tensors
from ovs3d_ros.map_frame import poses_to_map
from ovs3d_ros.map_repair import drop_unusable, usable_rows
from ovs3d_ros.map_values import (
    check_shapes,
    convert_values,
    to_camera,
    to_count,
    to_frame,
    to_poses,
    to_psnr,
    to_stamps,
)
from ovs3d_ros.mapping.gaussians import PARAMETERS
from ovs3d_ros.packed_codes import PackedCodes
from ovs3d_ros.semantics.codec import FeatureCodec, make_codec
from ovs3d_ros.semantics.lift import no_codes, pack_levels
from ovs3d_ros.types import MapSnapshot, RefinedField, TrainingState, UserError

FORMAT_VERSION = 3
HALF_VERSIONS = (1, 2)  # codes in half precision
REFINED_VERSION = 1  # of the refined field, which is optional and which older readers ignore
MAX_BYTES = 64 * 1024**3

Tensors = dict[str, torch.Tensor]


def save_map(path: str | Path | Destination, params: Tensors, snapshot: MapSnapshot) -> None:
    """Writes a map, without what `load_map` would refuse (see `map_repair.drop_unusable`).

    Args:
        path: file to write.
        params: Gaussian parameters in the stored form, see `gaussians.PARAMETERS`.
        snapshot: semantics, codec, keyframe poses and meta of the same map.

    Raises:
        UserError: the folder does not exist or cannot be written.
    """
    path = path if isinstance(path, Destination) else Path(path).expanduser()
    params, snapshot = drop_unusable(params, snapshot)
    tensors, header = _to_tensors(params, snapshot), _to_header(snapshot)
    if snapshot.training is not None:
        packed, header["training"] = pack_training(snapshot.training)
        tensors |= _to_host(packed)
    if isinstance(path, Path) and not path.parent.is_dir():
        raise UserError(f"{path}: cannot write there; create the folder {path.parent} first")
    try:
        write_tensors(path, tensors, json.dumps(header))
    except OSError as error:
        raise UserError(f"{path}: cannot write the map ({error.strerror or error})") from None


def load_map(path: str | Path, *, training: bool = False) -> tuple[Tensors, MapSnapshot]:
    """Reads and validates a map; the inverse of `save_map`.

    Args:
        path: file to read.
        training: whether the snapshot gets the keyframes that `map.keep_keyframes` put into the file.

    Returns:
        The parameters in the stored form, and a snapshot with empty `gaussians` (its owner activates them).

    Raises:
        UserError: the file is missing, truncated, of another version, or holds wrong shapes or values.
    """
    path = Path(path).expanduser()
    header, tensors = _read(path)
    if header.get("format_version") not in (*HALF_VERSIONS, FORMAT_VERSION):
        raise UserError(
            f"{path}: map format {header.get('format_version')}, this version reads up to {FORMAT_VERSION}"
        )
    try:
        params, snapshot = _assemble(path, header, tensors)
        if training and "training" in header:
            snapshot = replace(snapshot, training=_to_training(path, header, tensors, snapshot))
        return params, snapshot
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: the map lacks or garbles {error}; make it anew") from None


def _to_tensors(params: Tensors, snapshot: MapSnapshot) -> Tensors:
    tensors = {name: params[name] for name in PARAMETERS}
    tensors |= dict(
        weight=snapshot.weight,
        views=snapshot.views,
        camtoworlds=torch.from_numpy(snapshot.camtoworlds),
        stamps=torch.from_numpy(snapshot.stamps),
    )
    if snapshot.codec is not None:
        tensors |= dict(
            code_values=snapshot.packed_levels.values,
            code_scales=snapshot.packed_levels.scales,
            code_steps=snapshot.packed_levels.steps,
            selection=snapshot.selection.half(),
            codec_basis=snapshot.codec.basis,
            codec_mean=snapshot.codec.mean,
        )
    if snapshot.refined is not None:
        field = snapshot.refined
        tensors |= dict(refined_probabilities=field.probabilities.half(), refined_texts=field.texts)
    return _to_host(tensors)


def _to_host(tensors: Tensors) -> Tensors:
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


def _to_header(snapshot: MapSnapshot) -> dict[str, Any]:
    header = dict(
        format_version=FORMAT_VERSION,
        frame=dict(origin=snapshot.frame.origin.tolist(), unit=snapshot.frame.unit),
        map_version=snapshot.version,
        cameras=[dict(K=c.K.tolist(), width=c.width, height=c.height) for c in snapshot.cameras],
        names=snapshot.names,
        meta=snapshot.meta,
    )
    if snapshot.refined is not None:
        field = snapshot.refined
        header["refined"] = dict(
            version=REFINED_VERSION,
            names=field.names,
            background=field.background,
            temperature=field.temperature,
            summary=field.summary,
        )
    return header


def _read(path: Path) -> tuple[dict[str, Any], Tensors]:
    """The header and tensors of a file, as they stand there.

    Raises:
        UserError: the file is missing, too large, truncated, or not a map.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a map file, e.g. {path / 'room.ovs3d'}")
    if not path.is_file():
        raise UserError(f"{path}: no such map; `ovs3d map DATA -o {path.name}` makes one")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path}: {path.stat().st_size} bytes is larger than any map this version writes")
    try:
        tensors, text = read_tensors(path)
        header = json.loads(text or "null")
    except (ValueError, OSError, RecursionError) as error:
        check_no_lfs_pointer(path)
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable map, truncated or damaged ({reason})") from None
    if not isinstance(header, dict):
        raise UserError(f"{path}: a safetensors file, but not an ovs3d map")
    return header, tensors


def _assemble(path: Path, header: dict[str, Any], tensors: Tensors) -> tuple[Tensors, MapSnapshot]:
    """Parameters and snapshot of a file's content.

    Raises:
        UserError: shapes or values are wrong.
        KeyError, TypeError, ValueError, ...: something is missing or of another type.
    """
    convert_values(path, tensors)
    meta, names, frames = header["meta"], list(header["names"]), len(header["cameras"])
    named = len(names) == frames and all(isinstance(name, str) for name in names)
    if not isinstance(meta, dict) or not isinstance(meta.get("config", {}), dict) or not named:
        raise UserError(f"{path}: the header's meta or names are garbled; make the map anew")
    meta = meta | {key: to_count(path, meta[key], key) for key in ("frames", "steps") if key in meta}
    meta["psnr"] = to_psnr(path, meta.get("psnr"))
    codec, features = _to_features(path, meta, tensors, header["format_version"] in HALF_VERSIONS)
    params = {name: tensors[name] for name in PARAMETERS}
    count, coefficients = params["means"].shape[0], params["sh_rest"].shape[1]
    check_shapes(
        path,
        tensors,
        means=(count, 3),
        log_scales=(count, 3),
        quats=(count, 4),
        opacity_logits=(count,),
        sh_dc=(count, 3),
        sh_rest=(count, coefficients, 3),
        weight=(count,),
        views=(count,),
        camtoworlds=(frames, 4, 4),
        stamps=(frames,),
    )
    if not bool(usable_rows(params).all()):
        raise UserError(f"{path}: Gaussians lie too far away or are too large for float32; make the map anew")
    return params, MapSnapshot(
        version=to_count(path, header["map_version"], "map_version"),
        gaussians={},
        codec=codec,
        weight=tensors["weight"].float(),
        views=tensors["views"].float(),
        camtoworlds=to_poses(path, tensors["camtoworlds"]),
        stamps=to_stamps(path, tensors["stamps"]),
        cameras=[to_camera(path, entry) for entry in header["cameras"]],
        names=names,
        meta=meta,
        refined=_to_field(path, header, tensors, codec and codec.mean.shape[0]),
        frame=to_frame(path, header),
        **features,
    )


def _to_features(
    path: Path, meta: dict[str, Any], tensors: Tensors, in_half: bool
) -> tuple[FeatureCodec | None, dict[str, Any]]:
    """The codec (None for a map of colours only), and the codes and `selection` of the snapshot."""
    count = tensors["means"].shape[0]
    if "codec_basis" not in tensors:
        return None, no_codes(count, "cpu") | dict(selection=torch.zeros(count, 0))
    codec = make_codec(tensors["codec_basis"].float(), tensors["codec_mean"].float())
    if not isinstance(meta.get("clip"), str):
        raise UserError(f"{path}: the map does not say which encoder made its features; make it anew")
    level_codes = _half_codes(path, tensors, codec) if in_half else _packed_codes(path, tensors, codec)
    check_shapes(path, tensors, selection=tuple(level_codes.shape[:2]))
    selection = tensors["selection"].float()
    return codec, pack_levels(level_codes, selection, codec) | dict(selection=selection)


def _packed_codes(path: Path, tensors: Tensors, codec: FeatureCodec) -> torch.Tensor:
    """Unit codes [N, S, d + 1] of each level."""
    shape = len(tensors["means"]), tensors["code_scales"].shape[1]
    width = codec.dim - 1
    check_shapes(path, tensors, code_values=(*shape, width), code_scales=shape, code_steps=(width,))
    return PackedCodes(tensors["code_values"], tensors["code_scales"], tensors["code_steps"]).unpack()


def _half_codes(path: Path, tensors: Tensors, codec: FeatureCodec) -> torch.Tensor:
    """The same of a file of `HALF_VERSIONS`."""
    count, levels = len(tensors["means"]), tensors["scale_codes"].shape[1]
    check_shapes(path, tensors, scale_codes=(count, levels, codec.dim))
    return tensors["scale_codes"].float()


def _to_training(
    path: Path, header: dict[str, Any], tensors: Tensors, snapshot: MapSnapshot
) -> TrainingState:
    poses = poses_to_map(snapshot.camtoworlds, snapshot.frame)
    views = list(zip(snapshot.stamps.tolist(), snapshot.names, snapshot.cameras, poses, strict=True))
    owners, exposures = (len(tensors["means"]),), (len(views), 2, 3)
    check_shapes(path, tensors, keyframe_owners=owners, keyframe_exposures=exposures)
    try:
        state = unpack_training(tensors, header["training"], views)
    except UserError as error:
        raise UserError(f"{path}: {error}; make the map anew") from None
    for keyframe in state.keyframes:
        width = keyframe.crops and keyframe.crops.embeddings.shape[1]
        if width and (snapshot.codec is None or width != snapshot.codec.mean.shape[0]):
            raise UserError(
                f"{path}: the features of keyframe {keyframe.index} have another length than the map's"
            )
    return state


def _to_field(
    path: Path, header: dict[str, Any], tensors: Tensors, feature_dim: int | None
) -> RefinedField | None:
    """The refined field; None for a map without one.

    Raises:
        UserError: it is of another version, or its vocabulary, shapes or values are wrong.
    """
    entry = header.get("refined")
    if entry is None:
        return None
    if feature_dim is None or entry["version"] != REFINED_VERSION:
        raise UserError(
            f"{path}: refined field of version {entry['version']}, this version reads {REFINED_VERSION} and "
            "needs the language features beside it; make the map anew"
        )
    names, background = (tuple(str(name) for name in entry[key]) for key in ("names", "background"))
    size, temperature = len(names) + len(background), float(entry["temperature"])
    if (
        len(set(names + background)) != size
        or not 0 < np.float32(temperature) < np.inf
        or not isinstance(entry["summary"], dict)
    ):
        raise UserError(f"{path}: the refined field's vocabulary is garbled; refine the map anew")
    count = len(tensors["means"])
    check_shapes(path, tensors, refined_probabilities=(count, size), refined_texts=(size, feature_dim))
    probabilities, texts = tensors["refined_probabilities"].float(), tensors["refined_texts"].float()
    if bool((probabilities < 0).any()):
        raise UserError(f"{path}: the refined field has negative probabilities; refine the map anew")
    return RefinedField(names, background, texts, temperature, probabilities, entry["summary"])
