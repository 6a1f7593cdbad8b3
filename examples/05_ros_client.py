"""Ask the running node for something by name and drive there.

    ros2 launch ovs3d_ros ovs3d.launch.py ...
    python examples/05_ros_client.py "green teddy bear"

With each answer the node publishes a goal pose in front of the best object, facing it. Nav2 drives to the
poses that it receives on `goal_pose`, the topic of the "2D Goal Pose" tool of RViz.
"""

import sys
import time

import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.duration import Duration
from rclpy.node import Node

from ovs3d_interfaces.srv import QueryText


class Fetcher(Node):
    def __init__(self) -> None:
        super().__init__("fetcher")
        self.query = self.create_client(QueryText, "/ovs3d/query")
        self.goals: list[PoseStamped] = []
        self.create_subscription(PoseStamped, "/ovs3d/goal_pose", self.goals.append, 1)
        self.navigation = self.create_publisher(PoseStamped, "goal_pose", 1)

    def find(self, name: str) -> PoseStamped:
        self.query.wait_for_service()
        request = QueryText.Request(prompts=[name], cloud=False, masks=False)
        deadline = time.monotonic() + 20
        while not self.goals:  # the first answers may come before the node has discovered our subscription
            if time.monotonic() > deadline:
                sys.exit("the node sent no goal; its log says why")
            future = self.query.call_async(request)
            rclpy.spin_until_future_complete(self, future)
            answer = future.result()
            if answer.error_code != QueryText.Response.OK:
                sys.exit(answer.error_msg)
            if not answer.found[0]:
                sys.exit(f"no {name} here (probability {answer.presence[0]:.2f})")
            rclpy.spin_once(self, timeout_sec=1.0)
        return self.goals[-1]

    def drive(self, goal: PoseStamped) -> None:
        while not self.navigation.get_subscription_count():
            rclpy.spin_once(self, timeout_sec=0.1)
        self.navigation.publish(goal)
        self.navigation.wait_for_all_acked(Duration(seconds=5))


if __name__ == "__main__":
    rclpy.init()
    robot = Fetcher()
    goal = robot.find(sys.argv[1])
    robot.drive(goal)
    x, y = goal.pose.position.x, goal.pose.position.y
    print(f"Going to the {sys.argv[1]}: ({x:.2f}, {y:.2f}) in {goal.header.frame_id}")
