"""The launch file, loaded with recording stand-ins for launch and launch_ros, of which there is no wheel."""

from __future__ import annotations

import importlib.util
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH_FILE = REPOSITORY / "launch" / "ovs3d.launch.py"


@dataclass
class Recorded:
    """Stands for a class of launch or launch_ros; keeps its arguments."""

    args: tuple
    options: dict

    def perform(self, context: dict) -> str:
        return context[self.args[0]]


def record(*args, **options) -> Recorded:
    return Recorded(args, options)


@pytest.fixture
def launch_file(monkeypatch):
    """The launch file as a module, with recording stand-ins: there is no wheel of launch_ros."""
    for name, members in {
        "launch": ["LaunchDescription"],
        "launch.actions": ["DeclareLaunchArgument", "OpaqueFunction"],
        "launch.conditions": ["IfCondition"],
        "launch.substitutions": ["LaunchConfiguration", "PathJoinSubstitution"],
        "launch_ros": [],
        "launch_ros.actions": ["Node"],
        "launch_ros.substitutions": ["FindPackageShare"],
    }.items():
        module = types.ModuleType(name)
        module.__dict__.update(dict.fromkeys(members, record))
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("ovs3d_launch", LAUNCH_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def launched(module, **given: str) -> dict[str, dict]:
    """The options of each process, by executable, for some arguments on the command line."""
    defaults = {name: default for name, (default, _) in module.ARGUMENTS.items()}
    defaults["params_file"] = str(REPOSITORY / "config/ovs3d.yaml")
    return {n.options["executable"]: n.options for n in module._make_nodes({**defaults, **given})}
