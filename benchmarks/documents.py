"""What the benchmarks share: what is mapped, where maps go, and how a result is printed."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def scene_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of the scenes that a benchmark maps, and of the settings."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--every", type=int, default=5, help="hold out every n-th view; 0: none")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    parser.add_argument("--maps", type=Path, help="folder to keep the maps in")
    parser.add_argument("--json", type=Path, help="file for a copy of the output")
    return parser


@contextlib.contextmanager
def map_folder(kept: Path | None) -> Iterator[Path]:
    """The folder for maps: the one to keep, created if missing, or else one that is removed in the end."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def print_document(document: dict[str, Any], copy: Path | None) -> None:
    """Prints a result as JSON, and writes it to a file if one is given."""
    text = json.dumps(document, indent=1) + "\n"
    sys.stdout.write(text)
    if copy is not None:
        copy.write_text(text)
