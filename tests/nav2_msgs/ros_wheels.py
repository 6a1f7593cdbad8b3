"""The build backend of ovs3d_interfaces: pip finds a backend only below the folder that it builds."""

import runpy
from pathlib import Path

_backend = runpy.run_path(str(Path(__file__).resolve().parents[2] / "ovs3d_interfaces/ros_wheels.py"))
get_requires_for_build_wheel = _backend["get_requires_for_build_wheel"]
get_requires_for_build_sdist = _backend["get_requires_for_build_sdist"]
build_wheel = _backend["build_wheel"]
build_sdist = _backend["build_sdist"]
