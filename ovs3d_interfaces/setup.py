"""Builds a wheel of the interfaces with the ros-* wheels of PyPI, on machines without a ROS distribution.

pip runs this file; colcon uses package.xml and CMakeLists.txt instead. CMake runs in a temporary folder. The
wheel contains the files that CMake installs: the Python package, the shared libraries (``lib/``) and the
ament index (``share/``). tests/tf2_msgs, tests/vision_msgs and tests/nav2_msgs are built with the same
functions.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_ext import build_ext

NAME = "ovs3d_interfaces"
VERSION = "0.1.0"


def wheels_prefix() -> Path:
    """Returns the prefix of the ros-* wheels: ``PREFIX/lib/pythonX.Y/site-packages/rosidl_adapter``."""
    spec = importlib.util.find_spec("rosidl_adapter")
    if spec is None or spec.origin is None:
        raise SystemExit(
            "the rosidl wheels are missing; run `pip install ./ovs3d_interfaces` with build isolation on "
            "x86-64 Linux with Python 3.10 to 3.13, or build with colcon on a distribution"
        )
    return Path(spec.origin).resolve().parents[4]


def build_environment(prefix: Path) -> dict[str, str]:
    """Returns the environment in which CMake and the rosidl generators find the wheels under ``prefix``."""
    site = prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    env = dict(os.environ, AMENT_PREFIX_PATH=str(prefix), CMAKE_PREFIX_PATH=str(prefix))
    env["PATH"] = os.pathsep.join([str(prefix / "bin"), env.get("PATH", os.defpath)])
    env["PYTHONPATH"] = os.pathsep.join(p for p in (str(site), env.get("PYTHONPATH")) if p)
    return env


def build_interfaces(source: Path, build: Path, install: Path) -> None:
    """Configures, generates, compiles and installs the CMake project in ``source`` into ``install``."""
    env = build_environment(wheels_prefix())
    configure = [
        "cmake",
        "-G",
        "Ninja",
        "-S",
        str(source),
        "-B",
        str(build),
        f"-DCMAKE_INSTALL_PREFIX={install}",
        f"-DPython3_EXECUTABLE={sys.executable}",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_TESTING=OFF",
    ]
    subprocess.run(configure, env=env, check=True)
    subprocess.run(["cmake", "--build", str(build), "--target", "install"], env=env, check=True)


class BuildInterfaces(build_ext):
    """Runs CMake instead of compiling extensions.

    setuptools skips ``build_py`` if no package is listed, and this package exists only after the build.
    Therefore ``build_ext`` is overridden.
    """

    def run(self) -> None:
        if self.editable_mode:
            raise SystemExit("interfaces are generated and compiled: install them without -e")
        name = self.distribution.get_name().replace("-", "_")
        install = Path(self.build_temp).resolve() / "install"
        build_interfaces(Path.cwd(), Path(self.build_temp).resolve() / "cmake", install)
        package = next(install.glob(f"lib/python*/site-packages/{name}"))
        shutil.copytree(package, Path(self.build_lib) / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.distribution.data_files = data_files(install)


class BinaryDistribution(Distribution):
    """Declares compiled code before the build, so that the wheel gets a platform tag."""

    def has_ext_modules(self) -> bool:
        return True


def data_files(install: Path) -> list[tuple[str, list[str]]]:
    """Lists the libraries in ``lib/`` and the ament index and definitions in ``share/`` that CMake installed.

    The CMake package files are left out: the wheel carries no headers, so nothing could be built against it.
    """
    listed = []
    for folder in ("lib", "share"):
        for root, _, names in os.walk(install / folder):
            relative = Path(root).relative_to(install)
            if names and not {"site-packages", "cmake"} & set(relative.parts):
                listed.append((str(relative), [os.path.join(root, name) for name in sorted(names)]))
    return listed


def setup_interfaces(name: str, version: str, description: str, requires: tuple[str, ...]) -> None:
    """Runs setuptools for the interface package ``name`` in the current folder.

    ``requires`` are names of wheels; ros_wheels.py has their versions.
    """
    requirements = runpy.run_path(str(Path(__file__).with_name("ros_wheels.py")))["requirements"]
    with tempfile.TemporaryDirectory(prefix=f"{name}_") as build_base:
        setup(
            name=name.replace("_", "-"),
            version=version,
            description=description,
            license="Apache-2.0",
            packages=[],
            distclass=BinaryDistribution,
            cmdclass={"build_ext": BuildInterfaces},
            options={"build": {"build_base": build_base}},
            python_requires=">=3.10",
            install_requires=requirements(requires),
        )


if __name__ == "__main__":
    setup_interfaces(
        NAME,
        VERSION,
        "Messages, services and actions of ovs3d_ros, open-vocabulary 3D Gaussian maps",
        ("ros-rclpy[fastrtps]", "ros-action-msgs", "ros-std-msgs", "ros-geometry-msgs", "ros-sensor-msgs"),
    )
