"""Shared by the commands: settings, checks of outputs, progress bars, JSON and the parts that need ROS."""

from __future__ import annotations

import argparse
import codecs
import importlib
import json
import math
import resource
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ovs3d_ros.config import Config, override, yaml_io
from ovs3d_ros.io.atomic import check_target, check_writable, write_text
from ovs3d_ros.types import UserError

if TYPE_CHECKING:
    from tqdm import tqdm

STDOUT = "-"  # the argument of --json that means standard output
_PIP_ROS = "pip install 'ovs3d_ros[ros]' ./ovs3d_interfaces"


def read_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The `--set` parameters, validated.

    Raises:
        UserError: not key=value, an unknown parameter, or a value of a wrong type or out of range.
    """
    values = yaml_io.parse_assignments(options.set)
    override(Config(), values)
    return values


def read_config(options: argparse.Namespace) -> Config:
    """The configuration of the `--config` file, overridden by `--set`.

    Raises:
        UserError: as `read_settings`, or the file cannot be used.
    """
    base = yaml_io.load(options.config) if options.config else Config()
    return override(base, read_settings(options))


def check_output_file(path: Path, *used: Path) -> Path:
    """Returns the path if a file can be written there. Commands call it before any long work.

    Args:
        path: the file to write.
        used: other inputs and outputs of the command, which must not be overwritten.

    Raises:
        UserError: as `check_target`, or it is one of those files.
    """
    path = check_target(path)
    if path.resolve() in [other.expanduser().resolve() for other in used]:
        raise UserError(
            f"{path}: the command already uses this file as an input or another output; give another name"
        )
    return path


def make_output_folder(path: Path) -> Path:
    """Creates the folder unless it exists, and returns it.

    Raises:
        UserError: the path is a file, or the folder cannot be created or written to.
    """
    path = path.expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot create this folder ({error.strerror}); choose another") from None
    check_writable(path)
    return path


def check_json(target: str | None, *used: Path) -> None:
    """Raises UserError unless the target of `--json` can be written; `used` as for `check_output_file`."""
    if target not in (None, STDOUT):
        check_output_file(Path(target), *used)


def write_json(target: str | None, document: Any) -> None:
    """Writes a document to the file of `--json`, or to standard output for '-'. NaN and infinity become null.

    Files are in UTF-8. Standard output gets JSON escapes if its encoding is another one.
    """
    if target is None:
        return
    to_file = target != STDOUT
    is_utf8 = to_file or codecs.lookup(getattr(sys.stdout, "encoding", None) or "ascii").name == "utf-8"
    text = json.dumps(_to_json(document), indent=2, ensure_ascii=not is_utf8) + "\n"
    if to_file:
        write_text(Path(target).expanduser(), text)
    else:
        sys.stdout.write(text)


def _to_json(value: Any) -> Any:
    """Turns nested dicts, lists, arrays and numbers into JSON values; NaN and infinity become None."""
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def print_message(options: argparse.Namespace, text: str) -> None:
    """Prints a line on standard output, or on standard error if standard output is for JSON."""
    (sys.stderr if options.json == STDOUT else sys.stdout).write(text + "\n")


def progress_bar(options: argparse.Namespace, total: int, title: str, unit: str) -> tqdm:
    """A progress bar on standard error; hidden with --quiet and if standard error is no terminal."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=title,
        unit=unit,
        disable=True if options.quiet else None,
        dynamic_ncols=True,
        mininterval=0.3,
        leave=False,
    )


def import_ros(module: str, user: str) -> ModuleType:
    """A module of `ovs3d_ros.ros`, imported by name so that the command line works without ROS.

    Args:
        module: its name there.
        user: what needs it, for the error.

    Raises:
        UserError: ROS 2, or a message of these interfaces, is not installed.
    """
    try:
        return importlib.import_module(f"ovs3d_ros.ros.{module}")
    except ImportError as error:
        if (error.name or "").startswith("ovs3d_ros"):
            raise
        raise UserError(
            f"{user} needs ROS 2 and its interfaces ({error}): source a ROS distribution with these "
            f"packages built, or on x86-64 Linux `{_PIP_ROS}`"
        ) from None


def peak_memory_mib() -> float:
    """Peak memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
