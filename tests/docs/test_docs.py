"""The documentation: it builds without a warning, and says what the code says."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from test_architecture import ORDER

from ovs3d_ros.config import leaves

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md"))
BUILDERS = ("sphinx", "myst_parser", "furo")


@pytest.mark.slow
def test_docs_build_without_warnings(tmp_path):
    missing = [name for name in BUILDERS if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; pip install -e '.[docs]'")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-b",
        "html",
        "-W",
        "--keep-going",
        "-q",
        str(DOCS),
        str(tmp_path),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    page = (tmp_path / "parameters.html").read_text(encoding="utf-8")
    assert [spec.path for spec, _ in leaves() if f">{spec.path}<" not in page] == []


@pytest.mark.parametrize("page", [*PAGES, REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"])
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


def test_troubleshooting_quotes_messages_of_the_code():
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    quotes = re.findall(r"^### `(.+)`$", text, re.MULTILINE)
    quotes += re.findall(r"^\| `(.+?)` \|", text, re.MULTILINE)
    assert len(quotes) > 20
    messages = string_literals(REPOSITORY / "ovs3d_ros")
    assert [quote for quote in quotes if not any(quote in message for message in messages)] == []


def string_literals(folder: Path) -> list[str]:
    """All strings of the code below a folder; the gaps of f-strings are empty."""
    found = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(v.value) for v in node.values if isinstance(v, ast.Constant)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_architecture_page_lists_packages_in_import_order():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    table = re.search(r"^\| package \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)[1]
    cells = [line.split(" | ")[0] for line in table.splitlines()]
    assert tuple(name for cell in cells for name in re.findall(r"`(\w+)(?:/|\.py)`", cell)) == ORDER


def test_security_policy_covers_the_ros_interface():
    text = (DOCS / "ros_interface.md").read_text(encoding="utf-8")
    documented = set()
    for heading in ("input", "output", "service", "action"):
        rows = re.search(rf"^\| {heading} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)[1]
        for row in rows.splitlines():
            documented |= set(re.findall(r"`([~/\w]+)`", row.split(" | ")[0]))
    profile = ElementTree.parse(REPOSITORY / "config/sros2_policy.xml").getroot().find(".//profile")
    allowed = {entry.text for group in profile for entry in group}
    assert documented <= allowed
    theirs = re.compile(
        r"~/\w*(parameter|state|transition|type_description)\w*$|/(clock|rosout|parameter_events)$"
    )
    assert {name for name in allowed - documented if not theirs.match(name)} == set()
