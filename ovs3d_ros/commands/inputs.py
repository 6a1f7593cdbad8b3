"""Checks of a command's arguments that need no torch, so that a slip of the keyboard is reported at once."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from pathlib import Path

from ovs3d_ros.commands import common
from ovs3d_ros.config import leaves
from ovs3d_ros.types import UserError

EXPORT_SUFFIXES = (".ply", ".splat", ".spz")
# Of files that are no maps. A map may have any other name, like room.v2.
_FOREIGN = re.compile(
    r"\.(ply|splat|ksplat|spz|sog|pcd|las|laz|obj|glb|gltf|usdz?|json|ya?ml|txt|csv"
    r"|png|jpe?g|mp4|webm|webp|gif|db3|mcap|bag|zip)"
)
_MAX_NAMES = 1000  # of a folder, among which a similar name is looked for


def repeat_set(arguments: list[str]) -> list[str]:
    """Puts `--set` before each further `key=value` that follows one: `--set a.b=1 a.c=2`.

    Only words that begin with a known group and have an equals sign count: file names and prompts may follow.
    """
    groups = {spec.path.partition(".")[0] for spec, _ in leaves()}
    assignment = re.compile(rf"({'|'.join(sorted(groups))})(\.\w+)*=", re.ASCII)
    repeated: list[str] = []
    for index, word in enumerate(arguments):
        follows = index > 1 and repeated[-2] == "--set" and arguments[index - 1] != "--set"
        repeated += ["--set", word] if follows and assignment.match(word) else [word]
    return repeated


def check_inputs(options: argparse.Namespace) -> None:
    """Checks the settings of a command, the suffix of its output, and that its input files exist.

    Raises:
        UserError: as `common.read_settings`, the suffix names a format that the command does not write, or an
            input does not exist.
    """
    if hasattr(options, "set"):
        common.read_settings(options)
    _check_output_suffix(options)
    if config := getattr(options, "config", None):
        _check_exists(config, f"no such file; `ovs3d config > {config}` writes a template")
    for path in (getattr(options, name, None) for name in ("map", "other")):
        if path:
            _check_exists(path, f"no such map; `ovs3d map DATA -o {path.name}` makes one")
    data = getattr(options, "data", None) or ()
    for path in (data,) if isinstance(data, Path) else data:
        _check_exists(path, "no such file or folder")


def _check_output_suffix(options: argparse.Namespace) -> None:
    output: Path | None = getattr(options, "output", None)
    if output is None:
        return
    suffix = output.suffix.lower()
    if options.command == "export" and suffix not in EXPORT_SUFFIXES:
        raise UserError(
            f"{output}: the suffix is the format; give a name that ends in .ply (3DGS, for most "
            "viewers), .splat or .spz (for web viewers)"
        )
    if options.command in ("map", "merge", "refine") and _FOREIGN.fullmatch(suffix):
        name = output.with_suffix(".ovs3d").name
        remedy = f"; afterwards `ovs3d export {name} -o {output.name}`" if suffix in EXPORT_SUFFIXES else ""
        raise UserError(f"{output}: {options.command} writes a map, not {suffix}; give -o {name}{remedy}")
    if options.command == "calibrate" and suffix not in ("", ".json"):
        raise UserError(f"{output}: calibrate writes JSON; give -o {output.with_suffix('.json').name}")


def _check_exists(path: Path, problem: str) -> None:
    path = path.expanduser()
    if os.path.exists(path):  # false too for names that the system refuses
        return
    names = []
    if os.path.isdir(path.parent) and os.access(path.parent, os.R_OK):
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry, _ in zip(entries, range(_MAX_NAMES), strict=False)]
    close = difflib.get_close_matches(path.name, names, n=1)
    hint = f". Did you mean {path.parent / close[0]}?" if close else ""
    raise UserError(f"{path}: {problem}{hint}")
