"""What /diagnostics says about the node itself."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")
pytestmark = pytest.mark.ros

from helpers import synthetic  # noqa: E402
from helpers.color_encoder import ColorEncoder  # noqa: E402
from helpers.ros_wire import wire  # noqa: E402, F401
from helpers.workers import WAIT  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.node import Node  # noqa: E402

from ovs3d_ros.config import Config  # noqa: E402
from ovs3d_ros.pipeline import Ovs3d  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.outputs.diagnostics import Diagnostics  # noqa: E402
from ovs3d_ros.types import UserError  # noqa: E402
from ovs3d_ros.worker import MappingWorker  # noqa: E402


class Refusing(ColorEncoder):
    """Encodes the first image alone."""

    images = 0

    def encode_image(self, image):
        self.images += 1
        if self.images > 1:
            raise UserError("the lens is dirty")
        return super().encode_image(image)


def test_second_node_of_the_same_name_is_reported_until_it_goes(wire):
    received: list[conversions.DiagnosticArray] = []
    watched = wire.node("ovs3d")
    wire.node("listener").create_subscription(
        conversions.DiagnosticArray, "/diagnostics", received.append, 10
    )
    wire.node("other", use_sim_time=False)
    Diagnostics(watched, Config())

    def messages() -> list[str]:
        return [status.message for status in received[-1].status] if received else []

    wire.spin_until(messages)
    assert not any("another node" in message for message in messages())
    second = Context()
    second.init(args=[], domain_id=wire.context.get_domain_id())
    twin = Node("ovs3d", context=second)
    try:
        wire.spin_until(lambda: any("another node is called /ovs3d" in message for message in messages()))
    finally:
        twin.destroy_node()
        second.shutdown()
    wire.spin_until(lambda: not any("another node" in message for message in messages()))


def test_keyframe_without_features_is_reported(wire):
    received: list[conversions.DiagnosticArray] = []
    wire.node("listener").create_subscription(
        conversions.DiagnosticArray, "/diagnostics", received.append, 100
    )
    config = synthetic.make_config()
    worker = MappingWorker(Ovs3d(config, clip=Refusing(None, "cpu")), config)
    worker.start()
    for frame in synthetic.make_frames(3):
        worker.submit(frame)
        assert worker.wait_idle(WAIT)
    diagnostics = Diagnostics(wire.node("ovs3d"), config)
    diagnostics.worker = worker
    said = "2 keyframes cannot be found by name: frame_2: the lens is dirty"
    wire.spin_until(lambda: any(said == status.message for m in received for status in m.status))
    assert worker.stats()["keyframes"] == 3 and worker.stop(WAIT)
