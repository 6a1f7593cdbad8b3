"""Masks beside photographs: which pixels show the scene, and which show the robot itself, people or the sky.

COLMAP reads `masks/IMAGE_NAME.png`, nerfstudio the `mask_path` of a frame: black pixels are left out.
instant-ngp reads `dynamic_mask_STEM.png` beside the photograph: black pixels are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ovs3d_ros.datasets.dataset import View
from ovs3d_ros.datasets.images import DYNAMIC_MASK
from ovs3d_ros.types import UserError

logger = logging.getLogger(__name__)

_FOLDER = "masks"


def attach_masks(root: Path, views: Sequence[View]) -> list[View]:
    """The views with their masks in `root/masks`, under the name of the photograph and `.png`, as in COLMAP.

    The folders of the photograph may stand before its name, and `.png` may replace its suffix.

    Raises:
        UserError: two photographs have the same mask.
    """
    folder = root / _FOLDER
    if not folder.is_dir():
        return list(views)
    found = [_find_mask(folder, view.image_path) for view in views]
    owners: dict[Path, Path] = {}
    for view, path in zip(views, found, strict=True):
        if path is not None and owners.setdefault(path, view.image_path) != view.image_path:
            raise UserError(
                f"{path}: is the mask of {owners[path]} and of {view.image_path}; put masks into folders as "
                "the photographs are"
            )
    if len(owners) < len(views):
        logger.warning(
            "%s: %d of %d images have a mask, and all pixels of the others are used; a mask is named %s.png",
            folder,
            len(owners),
            len(views),
            views[[path is None for path in found].index(True)].image_path.name,
        )
    return [replace(view, mask_path=path) for view, path in zip(views, found, strict=True)]


def dynamic_mask(photograph: Path) -> Path | None:
    """The mask of instant-ngp beside a photograph, or None."""
    path = photograph.with_name(f"{DYNAMIC_MASK}{photograph.stem}.png")
    return path if path.is_file() else None


def _find_mask(folder: Path, photograph: Path) -> Path | None:
    parts = photograph.parts
    for start in range(max(0, len(parts) - 4), len(parts)):
        name = folder.joinpath(*parts[start:])
        for path in (Path(f"{name}.png"), name.with_suffix(".png")):
            if path.is_file():
                return path
    return None
