"""The environment of ROS processes that the tests and the demo start."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from ovs3d_ros.types import UserError

# The rclpy wheels execute Python a second time with LD_LIBRARY_PATH and this variable set. A child process
# must do that itself, so both are removed from its environment.
BOOTSTRAP_MARK = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
DISCOVERY_PORT, PORTS_PER_DOMAIN = 7400, 250  # DDS-RTPS well-known ports


def find_config(name: str) -> Path:
    """The installed (or source tree's) file `config/<name>` of this package.

    Raises:
        UserError: the file is not installed.
    """
    folders = [
        Path(__file__).resolve().parents[2] / "config",
        Path(sys.prefix) / "share" / "ovs3d_ros" / "config",
    ]
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        folders.append(Path(prefix) / "share" / "ovs3d_ros" / "config")
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"config/{name} of ovs3d_ros is not installed; reinstall with `pip install .` or colcon build"
    )


def free_domain_id() -> int:
    """A ROS_DOMAIN_ID that no process on this machine uses: its discovery port is not bound.

    Raises:
        UserError: all of 1..100 are in use.
    """
    start = os.getpid() % 100
    for k in range(100):
        domain_id = 1 + (start + k) % 100
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", DISCOVERY_PORT + PORTS_PER_DOMAIN * domain_id))
            except OSError:
                continue
            return domain_id
    raise UserError("all ROS domains 1..100 are in use on this machine; stop some ROS processes")


def child_environment(domain_id: int, base: dict[str, str] | None = None) -> dict[str, str]:
    """Environment variables for ROS processes that communicate on this machine.

    On one host all images arrive over DDS with shared memory and the discovery range SYSTEM_DEFAULT. With
    LOCALHOST, best-effort images are lost.

    Args:
        domain_id: isolates the processes from other ROS systems.
        base: variables to start from (default: this process's).
    """
    environment = dict(os.environ if base is None else base)
    if environment.pop(BOOTSTRAP_MARK, None):  # then the wheels also set the library path
        environment.pop("LD_LIBRARY_PATH", None)
    profile = str(find_config("fastdds_shm.xml"))
    environment.update(
        {
            "ROS_DOMAIN_ID": str(domain_id),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",
            # Fast DDS has the first name before 3.0. The wheels do not say which version they are.
            "FASTRTPS_DEFAULT_PROFILES_FILE": profile,
            "FASTDDS_DEFAULT_PROFILES_FILE": profile,
            "PYTHONUNBUFFERED": "1",
        }
    )
    environment.setdefault("HOME", str(Path.cwd()))  # rclpy cannot log without HOME
    return environment
