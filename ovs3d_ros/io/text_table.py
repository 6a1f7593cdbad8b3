"""Text tables for terminals, also with wide characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def display_width(text: str) -> int:
    """Columns of a text in a terminal: East Asian characters and emoji take two, combining marks none."""
    return sum(
        0
        if unicodedata.category(character) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in text
    )


def pad(text: str, width: int) -> str:
    """The text with blanks behind it, so that it takes `width` columns of a terminal."""
    return text + " " * (width - display_width(text))


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length as lines with aligned columns, without blanks at their ends."""
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(pad, row, widths)).rstrip() for row in rows)
