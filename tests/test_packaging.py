"""What is installed: metadata that agrees, a complete wheel, interfaces that are what they promise."""

from __future__ import annotations

import ast
import email
import os
import re
import runpy
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import ovs3d_ros

DISTRIBUTION_OF = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "open_clip": "open_clip_torch",
    "tf2_ros": "tf2_ros_py",
}
OUTPUT_FOLDERS = ("build", "*.egg-info", "__pycache__", ".git", ".venv*", "out", "dist", "install", "log")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="session")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the checkout, so that no build folder is left in it or taken from it."""
    work = tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        repository, work / "source", ignore=shutil.ignore_patterns(*OUTPUT_FOLDERS), symlinks=True
    )
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            str(work),
            str(work / "source"),
        ],
        check=True,
        timeout=300,
    )
    return next(work.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix into which pip installed the wheel alone."""
    prefix = tmp_path_factory.mktemp("prefix")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--ignore-installed",
            "--no-warn-script-location",
            "--prefix",
            str(prefix),
            str(wheel),
        ],
        check=True,
        timeout=300,
    )
    return prefix


def wheel_metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def package_xml(folder: Path) -> ElementTree.Element:
    return ElementTree.parse(folder / "package.xml").getroot()


def third_party_imports(folder: Path) -> dict[str, str]:
    """Top-level names imported anywhere below `folder`, standard library apart, with a file that does."""
    found = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in (n.split(".")[0] for n in names):
                if name not in sys.stdlib_module_names and name != "ovs3d_ros":
                    found.setdefault(name, str(path.relative_to(folder)))
    return found


def test_versions_agree(repository: Path, wheel: Path) -> None:
    interfaces = repository / "ovs3d_interfaces"
    versions = {
        "ovs3d_ros/__init__.py": ovs3d_ros.__version__,
        "wheel": wheel_metadata(wheel)["Version"],
        "package.xml": package_xml(repository).findtext("version"),
        "ovs3d_interfaces/package.xml": package_xml(interfaces).findtext("version"),
        "ovs3d_interfaces/setup.py": re.search(r'VERSION = "(.+)"', (interfaces / "setup.py").read_text())[1],
    }
    assert len(set(versions.values())) == 1, versions


@pytest.fixture
def ros_wheels(repository: Path, monkeypatch: pytest.MonkeyPatch):
    """The module with the pins, on a machine that says nothing about the distribution."""
    monkeypatch.delenv("ROS_WHEELS", raising=False)
    return SimpleNamespace(**runpy.run_path(str(repository / "ovs3d_interfaces/ros_wheels.py")))


def test_versions_of_ros_wheels_stand_in_one_place(repository: Path, ros_wheels) -> None:
    assert ros_wheels.VERSIONS["kilted"].keys() == ros_wheels.VERSIONS["jazzy"].keys()
    assert {*ros_wheels.RUNTIME, *ros_wheels.BUILD} == set(ros_wheels.VERSIONS["kilted"])
    files = [p for pattern in ("setup.py", "pyproject.toml") for p in repository.glob(f"**/{pattern}")]
    files = [p for p in files if not any(part.startswith((".venv", "build")) for part in p.parts)]
    assert [str(p) for p in files if re.search(r"ros-[a-z-]+(\[\w+\])?[=<>]", p.read_text())] == []


def test_wheels_of_another_distribution_are_never_replaced(ros_wheels, tmp_path, monkeypatch) -> None:
    assert ros_wheels.distribution(str(tmp_path)) == "kilted"
    (tmp_path / "ros_rclpy-7.1.6.dist-info").mkdir()
    assert ros_wheels.distribution(str(tmp_path)) == "jazzy"
    monkeypatch.setenv("ROS_WHEELS", "kilted")
    with pytest.raises(SystemExit, match="those of jazzy, which pip would replace"):
        ros_wheels.distribution(str(tmp_path))
    assert ros_wheels.distribution(str(tmp_path / "empty")) == "kilted"
    monkeypatch.setenv("ROS_WHEELS", "iron")
    with pytest.raises(SystemExit, match="kilted and jazzy only"):
        ros_wheels.distribution(str(tmp_path))


def test_build_backend_asks_for_the_wheels_of_the_distribution(ros_wheels, monkeypatch, repository) -> None:
    monkeypatch.setenv("ROS_WHEELS", "")
    ours = ros_wheels.get_requires_for_build_wheel()
    assert "ros-rclpy[fastrtps]==" in " ".join(ours) and "ninja" in ours
    for folder in ("tests/tf2_msgs", "tests/vision_msgs", "tests/nav2_msgs"):
        theirs = runpy.run_path(str(repository / folder / "ros_wheels.py"))
        assert theirs["__file__"] == str(repository / folder / "ros_wheels.py")  # pip checks it
        assert theirs["get_requires_for_build_wheel"]() == ours
        assert (repository / folder / "pyproject.toml").read_text().splitlines()[1:] == (
            repository / "ovs3d_interfaces/pyproject.toml"
        ).read_text().splitlines()[1:]


def test_linters_are_pinned_alike(repository: Path) -> None:
    hooks = yaml.safe_load((repository / ".pre-commit-config.yaml").read_text())["repos"]
    hooked = {repo["repo"].rpartition("/")[2].split("-")[0]: repo["rev"].lstrip("v") for repo in hooks}
    installed = dict(re.findall(r'"([a-z]+)(?:\[\w+\])?==([\d.]+)"', (repository / "setup.py").read_text()))
    assert hooked == {name: installed[name] for name in ("ruff", "codespell", "pyright")}


def test_wheel_holds_package_data_and_ros_files(repository: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    data = f"ovs3d_ros-{ovs3d_ros.__version__}.data/data"
    expected = {
        f"{data}/share/ament_index/resource_index/packages/ovs3d_ros",
        f"{data}/share/ovs3d_ros/package.xml",
    }
    for folder, pattern in (("launch", "*.py"), ("config", "*.*")):
        expected |= {f"{data}/share/ovs3d_ros/{folder}/{p.name}" for p in (repository / folder).glob(pattern)}
    expected |= {
        str(p.relative_to(repository))
        for p in (repository / "ovs3d_ros").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert expected - names == set()
    assert not [n for n in names if n.startswith(("tests/", "tools/", "benchmarks/", "ovs3d_interfaces/"))]


def test_pip_puts_the_command_in_bin_and_ros_executables_in_lib(installed: Path) -> None:
    assert os.access(installed / "bin" / "ovs3d", os.X_OK)
    assert sorted(p.name for p in (installed / "bin").iterdir()) == ["ovs3d"]
    executables = installed / "lib" / "ovs3d_ros"
    assert sorted(p.name for p in executables.iterdir()) == ["ask", "node", "play"]
    for path in executables.iterdir():
        assert os.access(path, os.X_OK) and path.read_text().startswith("#!/usr/bin/env python3\n")


def test_every_import_is_declared(repository: Path, wheel: Path) -> None:
    requirements = wheel_metadata(wheel).get_all("Requires-Dist")
    declared = {canonical(re.match(r"[\w.-]+", line)[0]) for line in requirements}
    ros = {child.text for child in package_xml(repository) if child.tag in ("depend", "exec_depend")}
    undeclared = {}
    for name, where in third_party_imports(repository / "ovs3d_ros").items():
        if where.startswith("ros/") and DISTRIBUTION_OF.get(name, name) in ros:
            continue
        if canonical(DISTRIBUTION_OF.get(name, name)) not in declared:
            undeclared[name] = where
    assert not undeclared, "declare in setup.py, or in package.xml for ROS packages"


def test_interface_build_lists_every_definition(repository: Path) -> None:
    folder = repository / "ovs3d_interfaces"
    listed = set(re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', (folder / "CMakeLists.txt").read_text()))
    present = {
        f"{p.parent.name}/{p.name}" for p in folder.glob("*/*") if p.suffix in (".msg", ".srv", ".action")
    }
    assert listed == present != set()


def test_make_reuses_the_environment(repository: Path, tmp_path: Path) -> None:
    # The tests themselves may have been started by make, whose state an inner make would inherit.
    environment = {
        key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }

    def planned(target: str) -> str:
        run = subprocess.run(
            ["make", "-n", target, f"VENV={tmp_path}"],
            cwd=repository,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return run.stdout

    assert "pip install" in planned("test")
    for stamp in (".created", ".interfaces", ".core", ".docs", ".photos"):
        (tmp_path / stamp).touch()
    pytest_words = ["-m", "pytest", "--numprocesses", "2", "--dist", "loadfile", "tests"]
    assert planned("test").split() == [f"{tmp_path}/bin/python", *pytest_words]


def test_make_without_wheels_installs_the_core_alone_and_says_so(repository: Path, tmp_path: Path) -> None:
    fake = tmp_path / "uname"
    fake.write_text("#!/bin/sh\necho Darwin arm64\n")
    fake.chmod(0o755)
    env = dict(os.environ, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    run = subprocess.run(
        ["make", "-n", "demo", f"VENV={tmp_path}"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=env,
    )
    assert "ovs3d demo --no-ros" in run.stdout and "there are no rclpy wheels" in run.stdout
    assert "ovs3d_interfaces" not in run.stdout and ",ros]" not in run.stdout


@pytest.mark.ros
def test_query_text_is_the_documented_service() -> None:
    from ovs3d_interfaces.srv import QueryText

    request, response = QueryText.Request, QueryText.Response
    assert request.get_fields_and_field_types() == {
        "prompts": "sequence<string>",
        "negatives": "sequence<string>",
        "mode": "uint8",
        "threshold": "float",
        "max_instances": "uint32",
        "refine": "boolean",
        "roi_min": "geometry_msgs/Point",
        "roi_max": "geometry_msgs/Point",
        "mask_stamps": "sequence<builtin_interfaces/Time>",
        "cloud": "boolean",
        "masks": "boolean",
    }
    assert response.get_fields_and_field_types() == {
        "error_code": "uint16",
        "error_msg": "string",
        "header": "std_msgs/Header",
        "keyframe_stamp": "builtin_interfaces/Time",
        "map_version": "uint64",
        "found": "sequence<boolean>",
        "presence": "sequence<float>",
        "verdict": "sequence<uint8>",
        "observed": "float",
        "notes": "sequence<string>",
        "objects": "sequence<ovs3d_interfaces/SemanticObject>",
        "cloud": "sensor_msgs/PointCloud2",
        "masks": "sequence<sensor_msgs/Image>",
        "latency_ms": "float",
    }
    assert (request.RELEVANCY, request.ARGMAX) == (0, 1)
    assert (response.NO, response.UNSURE, response.YES) == (0, 1, 2)
    codes = (response.OK, response.NO_MAP, response.BAD_REQUEST, response.OUT_OF_MEMORY, response.TIMEOUT)
    assert codes == (0, 1, 2, 3, 4)


@pytest.mark.ros
def test_response_survives_serialization() -> None:
    from rclpy.serialization import deserialize_message, serialize_message

    from ovs3d_interfaces.msg import SemanticObject
    from ovs3d_interfaces.srv import QueryText

    found = SemanticObject(label="red mug", instance=2, score=0.75, num_gaussians=41, observed_views=3)
    found.pose.orientation.w, found.size.z = 1.0, 0.125
    response = QueryText.Response(
        found=[True, False], presence=[0.5, 0.25], objects=[found], map_version=2**40
    )
    assert deserialize_message(serialize_message(response), QueryText.Response) == response
