"""What the benchmarks share: where maps go, and how a result is printed."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


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
