"""The one folder whose files the services may touch (`map.directory`); clients give names, never paths."""

from __future__ import annotations

from pathlib import Path

from ovs3d_ros.types import UserError

MAP_SUFFIX, PLY_SUFFIX = ".ovs3d", ".ply"
_MAX_NAME = 128  # bytes; file systems take 255, and temporary names are longer than the name


class MapFolder:
    """Turns the names clients give into paths inside the folder, and refuses all that leads elsewhere."""

    def __init__(self, directory: str):
        """Takes the folder; it is created with the first file that is written."""
        self.path = Path(directory).expanduser().absolute()

    def source(self, name: str, suffix: str) -> Path:
        """The existing file of this name.

        Raises:
            UserError: not a plain file name with the suffix, no such file, or a link out of the folder.
        """
        path = self._inside(name, suffix)
        if not path.is_file():
            there = ", ".join(sorted(p.name for p in self.path.glob("[!.]*" + suffix))[:10]) or "none"
            raise UserError(f"{name}: no such file in {self.path}; there are: {there}")
        return path

    def target(self, name: str, suffix: str, overwrite: bool) -> Path:
        """The path to write a file of this name to; creates the folder.

        Raises:
            UserError: not a plain file name with the suffix, a link out of the folder, something that is there
                already and must not or cannot be overwritten, or a folder that cannot be made.
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
        return path

    def _inside(self, name: str, suffix: str) -> Path:
        if not name.endswith(suffix) or name == suffix:
            raise UserError(f"name {name[:_MAX_NAME]!r}: give a file name that ends in {suffix}")
        if any(c in "/\\" or not c.isprintable() for c in name) or name.startswith("."):
            raise UserError(
                f"name {name[:_MAX_NAME]!r}: give a plain file name; paths and hidden files are refused, "
                f"all files lie in {self.path}"
            )
        if len(name.encode("utf-8", "replace")) > _MAX_NAME:
            raise UserError(f"name {name[:20]!r}...: longer than {_MAX_NAME} bytes")
        path = self.path / name
        try:
            real, folder = path.resolve(), self.path.resolve()
        except (OSError, RuntimeError):  # a loop of links
            raise UserError(f"{name}: is a link that leads nowhere") from None
        if real.parent != folder:
            raise UserError(f"{name}: is a link out of {self.path}; nothing outside of it is read or written")
        return path
