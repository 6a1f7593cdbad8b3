"""Sphinx extension: fills the page of parameters from the configuration, so that nobody writes it by hand."""

from __future__ import annotations

from typing import Any

from ovs3d_ros.config.leaf import MACHINE
from ovs3d_ros.config.schema import group_descriptions, leaves

PAGE = "parameters"
MARK = "<!-- parameters -->"


def markdown() -> str:
    """A heading, a description and a table for each group of parameters."""
    lines, group = [], None
    for spec, value in leaves():
        name = spec.path.rpartition(".")[0]
        if name != group:
            group = name
            lines += ["", f"## {group or 'Top level'}", "", group_descriptions().get(group, ""), ""]
            lines += ["| parameter | default | values | meaning |", "|---|---|---|---|"]
        notes = "".join([" **Runtime.**" * spec.runtime, " **This machine.**" * (MACHINE in spec.policy)])
        default = list(value) if isinstance(value, tuple) else value
        values = " ".join(filter(None, (spec.allowed, spec.unit)))
        cells = (f"`{spec.path}`", f"`{default!r}`", values, spec.doc + notes)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def fill(app: Any, name: str, source: list[str]) -> None:
    """Replaces the mark on the page of parameters by the tables."""
    if name == PAGE:
        source[0] = source[0].replace(MARK, markdown())


def setup(app: Any) -> dict[str, bool]:
    """Registers the extension."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True}
