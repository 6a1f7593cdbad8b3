"""A map that is replaced while `~/merge_map` prepares a file is not merged with it."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")
interfaces = pytest.importorskip("ovs3d_interfaces.srv")
if not hasattr(interfaces, "MergeMap"):
    pytest.skip("older ovs3d_interfaces; pip install ./ovs3d_interfaces", allow_module_level=True)
pytestmark = pytest.mark.ros

from helpers import synthetic  # noqa: E402
from helpers.ros_wire import wire  # noqa: E402, F401

import ovs3d_ros.ros.session as session_module  # noqa: E402
from ovs3d_interfaces.srv import MergeMap  # noqa: E402
from ovs3d_ros.config import override  # noqa: E402
from ovs3d_ros.map_file import load_map  # noqa: E402
from ovs3d_ros.ros.services import merge_map  # noqa: E402
from ovs3d_ros.ros.session import MappingSession  # noqa: E402

WAIT = 60.0  # seconds


def test_map_that_is_replaced_meanwhile_stays_as_it_is(wire, tmp_path, monkeypatch):
    monkeypatch.setattr(session_module, "warm_up", lambda pipeline: None)
    frames = synthetic.make_frames(6)
    synthetic.build_map(frames[3:], steps=0).save(tmp_path / "other.ovs3d")
    config = override(synthetic.make_config(), {"map.directory": str(tmp_path), "autostart": False})
    mapping = MappingSession(wire.node("mapper"), config)
    for frame in frames[:3]:
        mapping.worker.submit(frame)
    assert mapping.worker.wait_idle(WAIT)
    loaded, real = load_map(tmp_path / "other.ovs3d"), merge_map.prepare

    def prepare(*arguments):
        mapping.worker.replace_map(lambda: mapping.pipeline.restore(*loaded, "other.ovs3d"), WAIT)
        return real(*arguments)

    monkeypatch.setattr(merge_map, "prepare", prepare)
    client = wire.node("client").create_client(MergeMap, "/mapper/merge_map")
    wire.spin_until(client.service_is_ready)
    answer = client.call_async(MergeMap.Request(name="other.ovs3d"))
    wire.spin_until(answer.done, WAIT)
    assert answer.result().error_code == MergeMap.Response.BAD_REQUEST
    assert "was replaced meanwhile, and is unchanged; call again" in answer.result().error_msg
    assert mapping.pipeline.stats["num_gaussians"] == len(loaded[0]["means"])
    assert len(mapping.pipeline.snapshot().names) == 3
    mapping.close()
