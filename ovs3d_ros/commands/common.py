"""What the commands share: settings, output checks, files whole or not at all, progress, JSON."""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovs3d_ros.config import Config, override, yaml_io
from ovs3d_ros.io.atomic import atomic_write, check_target, check_writable, write_text
from ovs3d_ros.types import UserError

if TYPE_CHECKING:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo
    from tqdm import tqdm

STDOUT = "-"  # as the argument of --json


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """The `--set` parameters, validated.

    Raises:
        UserError: not key=value, unknown, of the wrong type or out of range.
    """
    values = yaml_io.parse_assignments(options.set)
    override(Config(), values)
    return values


def read_config(options: argparse.Namespace) -> Config:
    """The configuration of `--config`, with `--set` over it.

    Raises:
        UserError: as `settings`, or the file cannot be used.
    """
    base = yaml_io.load(options.config) if options.config else Config()
    return override(base, settings(options))


def check_output_file(path: Path, *used: Path) -> Path:
    """Returns the path if a file can be written there; nothing long starts before.

    Args:
        path: the file to write.
        used: files of this command that must not be overwritten: what it reads, and its other outputs.

    Raises:
        UserError: as `check_target`, or it is one of those files.
    """
    path = check_target(path)
    if path.resolve() in [other.expanduser().resolve() for other in used]:
        raise UserError(
            f"{path}: this command uses the file otherwise and would overwrite it; give another name"
        )
    return path


def make_output_folder(path: Path) -> Path:
    """Creates the folder if need be and returns it.

    Raises:
        UserError: it is a file, or cannot be created or written to.
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
    """Writes a document to the file `--json` named, or to standard output for '-'; numbers that are not are null."""
    if target is None:
        return
    text = json.dumps(_plain(document), indent=2, ensure_ascii=False) + "\n"
    if target == STDOUT:
        sys.stdout.write(text)
        return
    write_text(Path(target).expanduser(), text)


def save_picture(path: Path, image: Image.Image, notes: PngInfo | None = None) -> None:
    """Writes a PNG, with notes in it if given, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with atomic_write(path) as temporary:
            image.save(temporary, format="PNG", pnginfo=notes)
    except OSError as error:
        raise UserError(f"{path}: cannot write this picture ({error.strerror})") from None


def _plain(value: Any) -> Any:
    """JSON values of nested dicts, lists, arrays and numbers; NaN and infinity become None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def say(options: argparse.Namespace, text: str) -> None:
    """Tells the user something: on standard output, unless that is for JSON."""
    (sys.stderr if options.json == STDOUT else sys.stdout).write(text + "\n")


def progress(options: argparse.Namespace, total: int, what: str, unit: str) -> tqdm:
    """A progress bar on standard error; none with --quiet, nor where nobody watches."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        disable=True if options.quiet else None,
        dynamic_ncols=True,
        mininterval=0.3,
        leave=False,
    )


def peak_memory_mib() -> float:
    """The most memory this process has held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
