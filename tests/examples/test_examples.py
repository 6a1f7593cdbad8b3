"""Every example runs as its docstring says, on data small enough for a test."""

from __future__ import annotations

import ast
import json
import runpy
import sys
from pathlib import Path

import pytest
from helpers.box_scene import write_scene
from PIL import Image

from ovs3d_ros.demo.scene import SHIPPED

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MAX_LINES = 60
EVERY = 6  # frames of the demo scene that these maps are made of


def run_example(name: str, *arguments: object) -> None:
    """Runs `examples/name` as a script in this process, which has torch and the compiled kernels already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        patch.syspath_prepend(EXAMPLES)
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every sixth frame of the demo scene."""
    folder = tmp_path_factory.mktemp("scene")
    for part in ("images", "depth", "labels", "classes.txt"):
        (folder / part).symlink_to(SHIPPED / part)
    transforms = json.loads((SHIPPED / "transforms.json").read_text(encoding="utf-8"))
    transforms["frames"] = transforms["frames"][::EVERY]
    (folder / "transforms.json").write_text(json.dumps(transforms), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def room(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The map that the first example makes."""
    path = tmp_path_factory.mktemp("map") / "room.ovs3d"
    run_example("01_map_a_folder.py", data, "-o", path)
    return path


def test_every_example_is_short_and_says_how_to_run_it() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert [script.name[:3] for script in scripts] == [f"{i:02d}_" for i in range(1, len(scripts) + 1)]
    assert len(scripts) >= 6
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        assert len(text.splitlines()) < MAX_LINES, script.name
        assert f"python examples/{script.name}" in ast.get_docstring(ast.parse(text)), script.name


@pytest.mark.slow
def test_map_a_folder_then_ask_it(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_example("02_ask_it.py", room, "green teddy bear", "bicycle")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("green teddy bear: here")
    assert lines[1].startswith("    at (")
    assert "bicycle: not here" in "\n".join(lines)


@pytest.mark.slow
def test_render_it_writes_an_animation(room: Path, tmp_path: Path) -> None:
    run_example("03_render_it.py", room, "green teddy bear", "-o", tmp_path / "flight.webp")
    with Image.open(tmp_path / "flight.webp") as flight:
        assert flight.size == (960, 240)
        assert flight.n_frames >= 8


def test_your_own_encoder_finds_colors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_example("04_your_own_encoder.py", write_scene(tmp_path / "table", 8), "red", "green", "blue")
    found = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert sorted(set(found)) == ["blue", "green", "red"]


@pytest.mark.slow
def test_refine_for_a_vocabulary_runs_its_check(
    room: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = room.read_bytes()
    run_example("06_refine_for_a_vocabulary.py", room, data, "green teddy bear", "blue chair", "grey wall")
    printed = capsys.readouterr().out
    assert "done" in printed
    assert printed.splitlines()[-1]
    assert room.read_bytes() != before or "stay" in printed
