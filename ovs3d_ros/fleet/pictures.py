"""Pictures of what was found: each thing in a render of the keyframe that shows it best."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ovs3d_ros.fleet.hits import Hit
from ovs3d_ros.geometry import project
from ovs3d_ros.io.pictures import save_picture
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Camera
from ovs3d_ros.visualization.pictures import add_caption, label_colors, to_uint8

_MARGIN = 4  # px around a thing


def write_pictures(folder: Path, hits: Sequence[Hit], settings: dict[str, Any]) -> dict[int, str]:
    """Renders a picture for each hit that a keyframe shows; opens each map once.

    Args:
        folder: exists already.
        hits: the hits.
        settings: dotted parameters of the session, for the renderer.

    Returns:
        The name of the picture of each hit, by its index.

    Raises:
        UserError: a map cannot be used, or a picture not written.
    """
    names: dict[int, str] = {}
    for path in dict.fromkeys(hit.map for hit in hits):
        pipeline = Ovs3d.load(path, settings, encode=False)
        snapshot = pipeline.snapshot()
        for index, hit in enumerate(hits):
            if hit.map == path and hit.keyframe is not None:
                camera, pose = snapshot.cameras[hit.keyframe], snapshot.camtoworlds[hit.keyframe]
                picture = to_uint8(pipeline.render(camera, pose, snapshot).rgb.cpu().numpy())
                names[index] = f"{index + 1:03d}_{path.stem}.png"
                save_picture(folder / names[index], Image.fromarray(_mark(picture, hit, camera, pose)))
    return names


def _mark(picture: np.ndarray, hit: Hit, camera: Camera, pose: np.ndarray) -> np.ndarray:
    """The picture with a frame around the thing and a caption."""
    corners = hit.center + np.array(list(product((-0.5, 0.5), repeat=3))) * hit.size
    pixels, z = project(corners, camera, pose)
    image = Image.fromarray(picture)
    if (z > 0).all():
        limits = np.array([camera.width, camera.height]) - 1
        low = np.clip(pixels.min(axis=0) - _MARGIN, 0, limits).round()
        high = np.clip(pixels.max(axis=0) + _MARGIN, 0, limits).round()
        ImageDraw.Draw(image).rectangle((*low, *high), outline=tuple(label_colors(1)[1].tolist()), width=2)
    return add_caption(np.asarray(image), f"{hit.prompt}  {hit.presence:.2f}  {hit.map.stem}")
