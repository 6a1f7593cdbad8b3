"""The build backend of ovs3d_interfaces: pip finds a backend only below the folder that it builds."""

import runpy
from pathlib import Path

globals().update(runpy.run_path(str(Path(__file__).resolve().parents[2] / "ovs3d_interfaces/ros_wheels.py")))
