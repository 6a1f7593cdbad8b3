"""The rules of the code base, checked on the syntax tree of every file of the package."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "ovs3d_ros"

# A package (or a module beside them) imports only from above it in this list; inside it anything goes.
ORDER = (
    "packed_codes",
    "types",
    "geometry",
    "sampling",
    "map_frame",
    "config",
    "io",
    "rasterize",
    "encoders",
    "mapping",
    "semantics",
    "semantic_map",
    "intake",
    "map_repair",
    "map_values",
    "map_file",
    "merging",
    "query",
    "pipeline",
    "warm_up",
    "priority",
    "worker",
    "sensors",
    "datasets",
    "evaluation",
    "offline",
    "visualization",
    "fleet",
    "viewer",
    "agents",
    "ros",
    "demo",
    "commands",
    "cli",
)
ROS_PACKAGES = re.compile(
    r"(rclpy|rcl_interfaces|rosidl\w*|tf2\w*|launch|launch_ros|ament\w*|builtin_interfaces|action_msgs"
    r"|\w+_msgs|\w+_interfaces|std_srvs|message_filters|cv_bridge|rosbag2_py)$"
)
# Not installed with the core: imported inside the function that uses them.
OPTIONAL_PACKAGES = {"av", "gsplat", "argcomplete", "mcp", "viser", "rosbags", "mcap", "imageio", "ray"}
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 50
MAX_CLASS_LINES = 200
MAX_ARGUMENTS = 9
# Numba kernels take every array one by one.
MANY_ARGUMENTS = {"composite_backward", "lift_tiles", "shade_backward"}

FILES = sorted(PACKAGE.rglob("*.py"))
Function = (ast.FunctionDef, ast.AsyncFunctionDef)


def unit_of(path: Path) -> str:
    """The entry of ORDER that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported_modules(tree: ast.AST, path: Path) -> Iterator[tuple[int, str]]:
    """Yields line and absolute dotted name of every import; `from a import b` yields both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                folder = path.parent.relative_to(REPOSITORY).parts
                base = ".".join((*folder[: len(folder) - node.level + 1], *filter(None, [node.module])))
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def for_type_checkers(tree: ast.Module) -> ast.Module:
    """What stands below `if TYPE_CHECKING:`, which no interpreter runs."""
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return ast.Module([statement for block in blocks for statement in block.body], [])


def docstrings(tree: ast.Module) -> set[int]:
    """The ids of the constant nodes that are documentation: strings that stand as statements."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def upward_violations(path: Path, tree: ast.Module) -> list[str]:
    unit = unit_of(path)
    found = []
    face = set(imported_modules(for_type_checkers(tree), path)) if unit == "__init__" else set()
    for line, name in imported_modules(tree, path):
        if (line, name) in face:
            continue
        parts = name.split(".")
        if parts[0] != "ovs3d_ros" or len(parts) < 2 or parts[1] == unit or parts[1] not in ORDER:
            continue
        if unit == "__init__" or ORDER.index(parts[1]) > ORDER.index(unit):
            found.append(f"{path.name}:{line} imports {parts[1]}, which is not above it")
    return found


def ros_violations(path: Path, tree: ast.Module) -> list[str]:
    if unit_of(path) == "ros":
        return []
    return [
        f"{path.name}:{line} imports the ROS package {name}"
        for line, name in imported_modules(tree, path)
        if ROS_PACKAGES.match(name.split(".")[0])
    ]


def optional_violations(path: Path, tree: ast.Module) -> list[str]:
    """Optional packages imported when the module is, that is outside any function."""
    inside = {id(child) for node in ast.walk(tree) if isinstance(node, Function) for child in ast.walk(node)}
    top = ast.Module(
        [
            node
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in inside
        ],
        [],
    )
    return [
        f"{path.name}:{line} imports the optional {name} at import time"
        for line, name in imported_modules(top, path)
        if name.split(".")[0] in OPTIONAL_PACKAGES
    ]


def device_violations(path: Path, tree: ast.Module) -> list[str]:
    if unit_of(path) == "config":
        return []
    prose = docstrings(tree)
    return [
        f"{path.name}:{node.lineno} names the device {node.value!r}; take it from the configuration"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in prose
        and re.match(r"cuda(:\d*)?$", node.value)
    ]


def print_violations(path: Path, tree: ast.Module) -> list[str]:
    if unit_of(path) == "cli":
        return []
    return [
        f"{path.name}:{node.lineno} prints; use logging"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def state_violations(path: Path, tree: ast.Module) -> list[str]:
    return [
        f"{path.name}:{node.lineno} rebinds a module variable"
        for node in ast.walk(tree)
        if isinstance(node, ast.Global)
    ]


def silence_violations(path: Path, tree: ast.Module) -> list[str]:
    """Handlers that swallow every exception without a trace."""
    return [
        f"{path.name}:{node.lineno} swallows every exception"
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or getattr(node.type, "id", "") in ("Exception", "BaseException"))
        and all(isinstance(statement, (ast.Pass, ast.Continue)) for statement in node.body)
    ]


def size_violations(path: Path, tree: ast.Module) -> list[str]:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    found = [f"{path.name} has {lines} lines ({MAX_FILE_LINES})"] if lines > MAX_FILE_LINES else []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.end_lineno - node.lineno + 1 > MAX_CLASS_LINES:
            length = node.end_lineno - node.lineno + 1
            found.append(f"{path.name}:{node.lineno} {node.name} has {length} lines ({MAX_CLASS_LINES})")
        if not isinstance(node, Function):
            continue
        first = node.body[0]
        documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        length = (
            node.end_lineno - node.lineno + 1 - (first.end_lineno - first.lineno + 1 if documented else 0)
        )
        if length > MAX_FUNCTION_LINES:
            found.append(f"{path.name}:{node.lineno} {node.name} has {length} lines ({MAX_FUNCTION_LINES})")
        names = [a.arg for a in node.args.posonlyargs + node.args.args + node.args.kwonlyargs]
        arguments = len([name for name in names if name not in ("self", "cls")])
        if arguments > MAX_ARGUMENTS and node.name not in MANY_ARGUMENTS:
            found.append(
                f"{path.name}:{node.lineno} {node.name} takes {arguments} arguments ({MAX_ARGUMENTS})"
            )
    return found


RULES = (
    upward_violations,
    ros_violations,
    optional_violations,
    device_violations,
    print_violations,
    state_violations,
    silence_violations,
    size_violations,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__.removesuffix("_violations"))
def test_package_keeps_the_rule(rule) -> None:
    assert FILES, "no sources found"
    violations = [line for path in FILES for line in rule(path, parse(path))]
    assert not violations, "\n" + "\n".join(violations)


def test_every_module_has_a_place_in_the_order() -> None:
    units = {unit_of(path) for path in FILES} - {"__init__"}
    assert not units - set(ORDER), f"give {sorted(units - set(ORDER))} a place in ORDER"


BROKEN = {
    upward_violations: "from ovs3d_ros.cli import main",
    ros_violations: "def f():\n    from sensor_msgs.msg import Image",
    optional_violations: "try:\n    import gsplat\nexcept ImportError:\n    gsplat = None",
    device_violations: "def f(x):\n    return x.to(f'cuda:{x}')",
    print_violations: "def f():\n    print(1)",
    state_violations: "def f():\n    global x\n    x = 1",
    silence_violations: "try:\n    f()\nexcept Exception:\n    pass",
    size_violations: "def f():\n" + "    f()\n" * MAX_FUNCTION_LINES,
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__.removesuffix("_violations"))
def test_rule_catches_what_it_forbids(rule) -> None:
    path = PACKAGE / "geometry.py"
    assert rule(path, ast.parse(BROKEN[rule]))
    assert not rule(
        path, ast.parse('"""About cuda and print()."""\nimport numpy\nfrom ovs3d_ros import types\n')
    )


def test_long_class_is_found() -> None:
    path = PACKAGE / "geometry.py"
    assert size_violations(path, ast.parse("class A:\n" + "    x = 1\n" * MAX_CLASS_LINES))
    assert not size_violations(path, ast.parse("class A:\n" + "    x = 1\n" * (MAX_CLASS_LINES - 1)))


def test_relative_imports_are_seen() -> None:
    path = PACKAGE / "rasterize" / "cpu.py"
    assert not upward_violations(path, ast.parse("from . import kernels\nfrom .kernels import share"))
    assert upward_violations(path, ast.parse("from ..mapping import Mapper"))
    assert upward_violations(path, ast.parse("from .. import cli"))


def test_package_itself_imports_modules_for_type_checkers_only() -> None:
    face = PACKAGE / "__init__.py"
    assert not upward_violations(face, ast.parse("if TYPE_CHECKING:\n    from ovs3d_ros.types import Frame"))
    assert upward_violations(face, ast.parse("from ovs3d_ros.types import Frame"))


@pytest.mark.parametrize(
    "module, heavy",
    [
        ("ovs3d_ros", "numpy"),
        ("ovs3d_ros", "torch"),
        ("ovs3d_ros.config", "torch"),
        ("ovs3d_ros.datasets", "torch"),
        ("ovs3d_ros.sensors.messages", "torch"),
        ("ovs3d_ros.cli", "torch"),
        ("ovs3d_ros.commands.fleet", "ray"),
        ("ovs3d_ros.fleet.board", "numpy"),
    ],
)
def test_light_modules_stay_light(module: str, heavy: str) -> None:
    code = f"import {module}, sys; sys.exit('{heavy}' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=60).returncode == 0
