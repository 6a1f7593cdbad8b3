"""Finds the files that a pose file names, as other systems and other folders write their names."""

from __future__ import annotations

import logging
import os
from pathlib import Path, PurePosixPath

from ovs3d_ros.datasets.images import IMAGE_SUFFIXES
from ovs3d_ros.types import UserError

logger = logging.getLogger(__name__)

_FIRST_SUFFIXES = (".png", ".jpg", ".jpeg")  # tried first for names without a suffix


def find_file(folder: Path, name: str) -> Path | None:
    """The file `name` in `folder`, or None.

    Backslashes may separate folders, as on Windows. The suffix of an image may be missing, as in the Blender
    scenes of NeRF, and upper and lower case may differ if only one file fits.
    """
    for spelled in dict.fromkeys((name, name.replace("\\", "/"))):
        path = folder / spelled
        for candidate in (path, *(Path(f"{path}{suffix}") for suffix in _FIRST_SUFFIXES)):
            if os.path.isfile(candidate):  # is_file raises an error for very long names
                return candidate
    return _find_similar(folder / name.replace("\\", "/"))


def _find_similar(path: Path) -> Path | None:
    """The only file whose name differs from that of `path` by its case or a missing image suffix, or None."""
    if not os.path.isdir(path.parent):
        return None
    wanted = path.name.casefold()
    similar = [
        entry
        for entry in path.parent.iterdir()
        if entry.name.casefold() == wanted
        or (entry.stem.casefold() == wanted and entry.suffix.lower() in IMAGE_SUFFIXES)
    ]
    return similar[0] if len(similar) == 1 and similar[0].is_file() else None


class ImageFiles:
    """Finds the photographs of a pose file and counts those that are missing.

    Attributes:
        missing: the missing files, in order.
    """

    def __init__(self, pose_file: Path, folder: Path, images: Path | None, skip_missing: bool):
        """Takes where to look.

        Args:
            pose_file: the file that names the photographs, for errors.
            folder: the folder to which the names are relative.
            images: the folder that the user named instead, or None; it may lack leading folders of a name.
            skip_missing: leave out frames whose photograph is missing, instead of refusing the dataset.
        """
        self.missing: list[Path] = []
        self._pose_file = pose_file
        self._folder = folder
        self._images = images
        self._skip_missing = skip_missing
        self._names: dict[Path, str] = {}
        if images is not None and not images.is_dir():
            raise UserError(f"{images}: no such folder; give the folder of the photographs with --images")

    def find(self, name: str) -> Path | None:
        """The photograph, or None if it is missing.

        Raises:
            UserError: two names lead to one file in the folder that the user named.
        """
        if self._images is None:
            path = find_file(self._folder, name)
        else:
            parts = PurePosixPath(name.replace("\\", "/")).parts
            tails = ("/".join(parts[start:]).lstrip("/") for start in range(len(parts)))
            path = next(filter(None, (find_file(self._images, tail) for tail in tails if tail)), None)
            if path is not None and self._names.setdefault(path, name) != name:
                raise UserError(
                    f"{path}: {self._pose_file.name} means this file by {self._names[path]} and by {name}; "
                    "give the folder above with --images"
                )
        if path is None:
            self.missing.append((self._images or self._folder) / name)
        return path

    def check(self, count: int) -> None:
        """Reports the missing photographs among `count` frames.

        Raises:
            UserError: photographs are missing and may not be left out, or all are missing.
        """
        if not self.missing:
            return
        if len(self.missing) == count:
            remedy = "none of the images is there; give their folder with --images DIR"
        elif not self._skip_missing:
            remedy = (
                f"{len(self.missing)} of {count} images are missing; restore them, give their folder with "
                "--images DIR, or leave them out with --skip-missing"
            )
        else:
            logger.warning(
                "%s: %d of %d images are missing and left out, the first is %s",
                self._pose_file,
                len(self.missing),
                count,
                self.missing[0],
            )
            return
        raise UserError(f"{self.missing[0]}: no such file (named by {self._pose_file}); {remedy}")
