"""`from ovs3d_ros import ...`: what a user of the package sees first."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ovs3d_ros


def test_names_are_those_of_their_modules() -> None:
    from ovs3d_ros import Camera, Config, Frame, Ovs3d
    from ovs3d_ros.config import Config as ConfigThere
    from ovs3d_ros.pipeline import Ovs3d as Ovs3dThere
    from ovs3d_ros.types import Camera as CameraThere
    from ovs3d_ros.types import Frame as FrameThere

    assert (Camera, Config, Frame, Ovs3d) == (CameraThere, ConfigThere, FrameThere, Ovs3dThere)


def test_star_import_brings_exactly_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from ovs3d_ros import *", names)
    assert {name for name in names if not name.startswith("__")} == {"Camera", "Config", "Frame", "Ovs3d"}


def test_dir_lists_names_before_their_first_use() -> None:
    code = "import ovs3d_ros; print('Ovs3d' in dir(ovs3d_ros) and 'Ovs3d' not in vars(ovs3d_ros))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout == "True\n"


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Ovs4d'"):
        _ = ovs3d_ros.Ovs4d
    with pytest.raises(ImportError, match="Ovs4d"):
        exec("from ovs3d_ros import Ovs4d")


def test_type_checkers_see_every_public_name(repository: Path) -> None:
    tree = ast.parse((repository / "ovs3d_ros" / "__init__.py").read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {alias.name: line.module for line in block.body for alias in line.names}
    assert seen == ovs3d_ros._MODULE_OF
    assert sorted(seen) == ovs3d_ros.__all__
    assert (repository / "ovs3d_ros" / "py.typed").is_file()
