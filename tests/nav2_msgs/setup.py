"""Builds the message of ~/mask/costmap_filter_info into a wheel, as ovs3d_interfaces; PyPI has none.

Only for `pip install ./tests/nav2_msgs` where there is no ROS distribution; colcon never sees this folder.
"""

from __future__ import annotations

import runpy
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "ovs3d_interfaces" / "setup.py"

if __name__ == "__main__":
    runpy.run_path(str(BUILD), run_name="ovs3d_interfaces_build")["setup_interfaces"](
        "nav2_msgs",
        "0.1.0",
        "One message of nav2_msgs, for machines without a ROS distribution",
        ("ros-rclpy[fastrtps]", "ros-std-msgs"),
    )
