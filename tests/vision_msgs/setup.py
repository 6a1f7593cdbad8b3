"""Builds the messages of ~/detections and ~/label_info into a wheel, as ovs3d_interfaces; PyPI has none.

Only for `pip install ./tests/vision_msgs` where there is no ROS distribution; colcon never sees this folder.
"""

from __future__ import annotations

import runpy
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "ovs3d_interfaces" / "setup.py"

if __name__ == "__main__":
    runpy.run_path(str(BUILD), run_name="ovs3d_interfaces_build")["setup_interfaces"](
        "vision_msgs",
        "0.1.0",
        "Some messages of vision_msgs, for machines without a ROS distribution",
        ("ros-rclpy[fastrtps]", "ros-geometry-msgs", "ros-std-msgs"),
    )
