"""Two robots side by side, with the launch file's preset, namespace and transforms, in real processes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")
pytestmark = [pytest.mark.ros, pytest.mark.slow]

from helpers import ros_env  # noqa: E402
from helpers.launch_file import launch_file, launched  # noqa: E402, F401
from helpers.ros_env import Process, wait_until, write_dataset  # noqa: E402
from helpers.ros_session import SETTINGS, Client, start_node  # noqa: E402
from helpers.ros_wire import needs_tf  # noqa: E402

from ovs3d_interfaces.srv import QueryText  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.environment import free_domain_id  # noqa: E402

FRAMES = 5
SHIFTS = {
    "robot1": 0.0,
    "robot2": 0.6,
}  # metres; of the spheres along y, so that each robot sees another room


def red_ball(client: Client, robot: str) -> np.ndarray:
    service = client.node.create_client(QueryText, f"/{robot}/ovs3d/query")
    assert service.wait_for_service(30)
    future = service.call_async(QueryText.Request(prompts=["red ball"], cloud=False, masks=False))
    wait_until(future.done, 30)
    assert future.result().found == [True], future.result().error_msg
    position = future.result().objects[0].pose.position
    return np.array([position.x, position.y, position.z])


@needs_tf
def test_two_robots_with_a_preset_map_their_own_rooms(tmp_path, monkeypatch, launch_file):
    ros_env.use_child_environment(monkeypatch)
    domain_id, spheres, processes = free_domain_id(), ros_env.SPHERES, []
    client = Client(domain_id)
    statuses: dict[str, dict[str, str]] = {}
    client.node.create_subscription(
        conversions.DiagnosticArray,
        "/diagnostics",
        lambda m: statuses.update({s.name: {pair.key: pair.value for pair in s.values} for s in m.status}),
        10,
    )
    try:
        for robot, shift in SHIFTS.items():
            moved = tuple(((x, y + shift, z), radius, rgb) for (x, y, z), radius, rgb in spheres)
            monkeypatch.setattr(ros_env, "SPHERES", moved)
            data = write_dataset(tmp_path / robot, FRAMES)
            options = launched(launch_file, preset="realsense", namespace=robot, tf="tf", data="given")[
                "node"
            ]
            rules = (f"__ns:=/{options['namespace']}", *(f"{a}:={b}" for a, b in options["remappings"]))
            settings = {**SETTINGS, "map.directory": tmp_path / robot / "maps", **options["parameters"][1]}
            processes.append(start_node(settings, domain_id, tmp_path / f"{robot}.log", rules))
            remapped = [word for rule in rules for word in ("-r", rule)]
            arguments = [str(data), "--pose-source", "tf", "--rate", "3", "--wait", "200"]
            processes.append(
                Process(
                    "ovs3d_ros.ros.play",
                    [*arguments, "--ros-args", *remapped],
                    domain_id,
                    tmp_path / f"{robot}_player.log",
                )
            )
        for player in processes[1::2]:
            assert player.wait(240) == 0, player.output()

        def settled(robot: str) -> bool:
            values = statuses.get(f"{robot}/ovs3d: mapping", {})
            return values.get("frames_received") == str(FRAMES) and values.get("idle") == "True"

        for robot, shift in SHIFTS.items():
            wait_until(lambda robot=robot: settled(robot), 120, lambda: str(statuses))
            (x, y, z), radius, _ = spheres[0]
            assert np.linalg.norm(red_ball(client, robot) - [x, y + shift, z]) < radius, robot
        topics = dict(client.node.get_topic_names_and_types())
        assert "/robot1/camera/camera/color/image_raw" in topics and "/robot2/tf" in topics
        assert "/tf" not in topics and "/camera/camera/color/image_raw" not in topics
    finally:
        client.close()
        for process in processes:
            process.stop(9)
