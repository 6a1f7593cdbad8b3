"""Writes PNG pictures atomically."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ovs3d_ros.io.atomic import atomic_write
from ovs3d_ros.types import UserError

if TYPE_CHECKING:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo


def save_picture(path: Path, image: Image.Image, notes: PngInfo | None = None) -> None:
    """Writes a PNG atomically, with notes in it if given.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with atomic_write(path) as file:
            image.save(file, format="PNG", pnginfo=notes)
    except OSError as error:
        raise UserError(
            f"{path}: cannot write this picture ({error.strerror}); free some space or choose another folder"
        ) from None
