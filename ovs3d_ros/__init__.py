"""Online, open-vocabulary 3D Gaussian maps for robots: posed frames in, text queries out.

    from ovs3d_ros import Camera, Config, Frame, Ovs3d

    room = Ovs3d.load("room.ovs3d")
    centers = [item.center for item in room.query(["red mug"]).objects]

Importing the package loads neither torch nor numpy; each name above loads what it needs at its first use. It
sets the environment variable OMP_WAIT_POLICY, unless that is set or torch is loaded already. The command line
is `ovs3d` (`ovs3d_ros.cli`), and everything that touches ROS lives in `ovs3d_ros.ros`.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovs3d_ros.config import Config
    from ovs3d_ros.pipeline import Ovs3d
    from ovs3d_ros.types import Camera, Frame

if "torch" not in sys.modules:
    # Threads of torch that wait for each other sleep, instead of keeping the cores from everybody else.
    # OpenMP reads this once, when torch is loaded, so it cannot wait until a map is made.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
__all__ = ["Camera", "Config", "Frame", "Ovs3d"]

_MODULE_OF = {
    "Camera": "ovs3d_ros.types",
    "Config": "ovs3d_ros.config",
    "Frame": "ovs3d_ros.types",
    "Ovs3d": "ovs3d_ros.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
