"""The folder `map.directory`: services read and write no other. Clients give file names, never paths."""

from __future__ import annotations

import os
from pathlib import Path

from ovs3d_ros.io.atomic import Destination, remove_leftovers
from ovs3d_ros.types import UserError

MAP_SUFFIX, PLY_SUFFIX = ".ovs3d", ".ply"
_MAX_NAME = 128  # bytes; file systems allow 255, and temporary names are longer


class MapFolder:
    """Turns file names from clients into paths inside the folder, and refuses names that lead elsewhere."""

    def __init__(self, directory: str):
        """Takes the folder; the first file that is written creates it. Removes what killed writers left."""
        self.path = Path(directory).expanduser().absolute()
        remove_leftovers(self.path)

    def source(self, name: str, suffix: str) -> Path:
        """The existing file of this name.

        Raises:
            UserError: the name is no plain file name with the suffix, the file does not exist, or it is a
                link out of the folder.
        """
        path = self._inside(name, suffix)
        if not path.is_file():
            existing = ", ".join(sorted(p.name for p in self.path.glob("[!.]*" + suffix))[:10]) or "none"
            raise UserError(f"{name}: no such file in {self.path}; existing files: {existing}")
        return path

    def target(self, name: str, suffix: str, overwrite: bool) -> Destination:
        """The file to write, with links followed once; creates the folder.

        Raises:
            UserError: the name is no plain file name with the suffix, it is a link out of the folder, it
                exists and may not be overwritten, or the folder cannot be created.
        """
        path = self._inside(name, suffix)
        if path.is_dir():
            raise UserError(f"{name}: is a folder in {self.path}; choose another name")
        if path.exists() and not overwrite:
            raise UserError(f"{name}: exists in {self.path}; choose another name or set overwrite")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"map.directory {self.path} cannot be created ({error.strerror})") from None
        status = os.stat(path.parent)
        return Destination(path.parent, path.name, (status.st_dev, status.st_ino))

    def _inside(self, name: str, suffix: str) -> Path:
        """The path of this name without links."""
        if not name.endswith(suffix) or name == suffix:
            raise UserError(f"name {name[:_MAX_NAME]!r}: give a file name that ends in {suffix}")
        if any(c in "/\\" or not c.isprintable() for c in name) or name.startswith("."):
            raise UserError(
                f"name {name[:_MAX_NAME]!r}: give a plain file name; paths and hidden files are refused, "
                f" all files are in {self.path}"
            )
        if len(name.encode("utf-8", "replace")) > _MAX_NAME:
            raise UserError(f"name {name[:20]!r}...: longer than {_MAX_NAME} bytes")
        path = self.path / name
        try:
            real, folder = path.resolve(), self.path.resolve()
        except (OSError, RuntimeError):  # a loop of links
            raise UserError(f"{name}: is a link that leads nowhere") from None
        if real.parent != folder:
            raise UserError(f"{name}: is a link out of {self.path}; no file outside that folder is opened")
        return real
