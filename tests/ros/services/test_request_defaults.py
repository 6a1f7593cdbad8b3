"""Fields of a request that have a usual value have it as their default."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")
pytestmark = pytest.mark.ros

from ovs3d_interfaces.srv import QueryText  # noqa: E402


def test_query_needs_only_prompts():
    request = QueryText.Request(prompts=["red mug"])
    assert request.threshold == -1.0  # calibrated
    assert request.cloud and request.masks
    assert request.mode == QueryText.Request.RELEVANCY and not request.refine
