"""Training as tensors of a map file: keyframes as PNG, depth in 16 bits, embeddings in half precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch

from ovs3d_ros.types import Camera, CropTable, Keyframe, TrainingState, UserError

_STEPS = 65535  # of depth in 16 bits; at 10 m a step is 0.15 mm
_BYTES = ("keyframe_images", "keyframe_depths", "keyframe_masks")
_LARGEST_COUNT = 1 << 20  # levels of a pyramid, rows of a grid: far more than any has

Tensors = dict[str, torch.Tensor]


def pack_training(state: TrainingState) -> tuple[Tensors, dict[str, Any]]:
    """Tensors of a map file, and the entry of its header."""
    images, depths, masks = [], [], []
    tables: list[CropTable] = []
    entries: list[dict[str, Any]] = []
    for keyframe, visits, median_depth in zip(
        state.keyframes, state.visits, state.median_depths, strict=True
    ):
        images.append(_png(keyframe.image.cpu().numpy()[..., ::-1]))
        steps, scale = _quantize_depth(keyframe.depth)
        depths.append(_png(steps))
        masks.append(_png(None if keyframe.mask is None else keyframe.mask.cpu().numpy().astype(np.uint8)))
        if keyframe.crops is not None:
            tables.append(keyframe.crops)
        entries.append(
            dict(
                sensor=keyframe.sensor,
                sizes=[len(images[-1]), len(depths[-1]), len(masks[-1])],
                depth_scale=scale,
                crops=_describe_crops(keyframe.crops),
                visits=visits,
                median_depth=median_depth,
            )
        )
    tensors = {name: _join(parts) for name, parts in zip(_BYTES, (images, depths, masks), strict=True)}
    tensors |= dict(keyframe_exposures=state.exposures, keyframe_owners=state.owners.int())
    if tables:
        tensors |= dict(
            crop_embeddings=torch.cat([table.embeddings.half() for table in tables]),
            crop_boxes=torch.cat([table.boxes for table in tables]).float(),
            crop_levels=torch.cat([table.levels for table in tables]).int(),
        )
    return tensors, dict(keyframes=entries)


def unpack_training(
    tensors: Tensors, entry: dict[str, Any], views: Sequence[tuple[float, str, Camera, np.ndarray]]
) -> TrainingState:
    """The inverse of `pack_training`.

    Args:
        tensors: of the map file.
        entry: of its header.
        views: stamp, name, camera and pose [4, 4] in the map frame of each keyframe.

    Raises:
        UserError, KeyError, TypeError, ValueError, IndexError: the content is garbled.
    """
    entries, keyframes = entry["keyframes"], []
    blobs, crops = {name: tensors[name].numpy() for name in _BYTES}, 0
    ends = dict.fromkeys(_BYTES, 0)
    for item, view in zip(entries, views, strict=True):
        files = []
        for key, size in zip(_BYTES, item["sizes"], strict=True):
            files.append(blobs[key][ends[key] : ends[key] + size])
            ends[key] += size
        keyframe = _read_keyframe(len(keyframes), view, files, item)
        keyframe.crops, crops = _read_crops(tensors, item["crops"], crops)
        keyframes.append(keyframe)
    return TrainingState(
        keyframes,
        [int(item["visits"]) for item in entries],
        [float(item["median_depth"]) for item in entries],
        tensors["keyframe_exposures"].float(),
        tensors["keyframe_owners"].long(),
    )


def _read_keyframe(
    index: int,
    view: tuple[float, str, Camera, np.ndarray],
    files: list[np.ndarray],
    item: dict[str, Any],
) -> Keyframe:
    """A keyframe without features, from the PNG files of its image, depth and mask."""
    stamp, name, camera, pose = view
    image, steps, mask = (_decode(file, camera, index) for file in files)
    if image is None or image.shape[2:] != (3,):
        raise UserError(f"the image of keyframe {index} is garbled")
    depth = None if steps is None else steps.astype(np.float32) * np.float32(item["depth_scale"])
    return Keyframe(
        index,
        stamp,
        name,
        torch.from_numpy(np.ascontiguousarray(image[..., ::-1])),
        camera,
        pose,
        depth=None if depth is None else torch.from_numpy(depth),
        sensor=str(item["sensor"]),
        mask=None if mask is None else torch.from_numpy(mask > 0),
    )


def _png(image: np.ndarray | None) -> np.ndarray:
    """Bytes [B] uint8 of a PNG file; none for None."""
    if image is None:
        return np.zeros(0, np.uint8)
    return cv2.imencode(".png", np.ascontiguousarray(image))[1].ravel()


def _decode(content: np.ndarray, camera: Camera, index: int) -> np.ndarray | None:
    """The image of a PNG file, None for no bytes."""
    if not len(content):
        return None
    image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if image is None or image.shape[:2] != (camera.height, camera.width):
        raise UserError(f"an image of keyframe {index} is garbled")
    return image


def _quantize_depth(depth: torch.Tensor | None) -> tuple[np.ndarray | None, float]:
    """Depth in steps [H, W] uint16, and metres per step; what is there gets at least one step."""
    if depth is None:
        return None, 0.0
    values = depth.cpu().numpy()
    scale = max(float(values.max()), 1e-9) / _STEPS
    return np.where(values > 0, np.maximum(np.round(values / scale), 1), 0).astype(np.uint16), scale


def _join(parts: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts) if parts else np.zeros(0, np.uint8))


def _describe_crops(table: CropTable | None) -> dict[str, Any] | None:
    if table is None:
        return None
    return dict(count=len(table.boxes), num_levels=table.num_levels, grid=table.grid)


def _read_crops(tensors: Tensors, entry: dict[str, Any] | None, first: int) -> tuple[CropTable | None, int]:
    """The crop table whose rows begin at `first`, and where the next one begins."""
    if entry is None:
        return None, first
    count, levels = int(entry["count"]), int(entry["num_levels"])
    rows = slice(first, first + count)
    boxes, level = tensors["crop_boxes"][rows].float(), tensors["crop_levels"][rows].long()
    grid = None if entry["grid"] is None else (int(entry["grid"][0]), int(entry["grid"][1]))
    embeddings = tensors["crop_embeddings"][rows]
    fits = (
        len(boxes) == len(level) == len(embeddings) == count
        and boxes.shape[1:] == (4,)
        and 0 < levels < _LARGEST_COUNT
    )
    if not fits or not bool(((level >= 0) & (level < levels)).all()) or (grid and grid[0] * grid[1] != count):
        raise UserError("the features of a keyframe are garbled")
    return CropTable(boxes, level, embeddings.half(), levels, grid), first + count
