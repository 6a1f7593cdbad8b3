"""`~/get_objects` without prompts repeats the shown question, but not its refinement."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")
pytestmark = pytest.mark.ros

from ovs3d_interfaces.srv import GetObjects  # noqa: E402
from ovs3d_ros.config import Config  # noqa: E402
from ovs3d_ros.ros.services.query import QueryServices  # noqa: E402
from ovs3d_ros.types import Query, UserError  # noqa: E402


def test_shown_question_is_repeated_without_its_refinement():
    asked, offered = [], {}

    def answer(query, snapshot):
        asked.append(query)
        raise UserError("recorded")

    roi = np.array([[0.0, 0, 0], [1, 1, 1]])
    shown = Query(("mug",), ("wall",), True, "argmax", 0.4, 0, roi, refine=True)
    node = SimpleNamespace(
        get_logger=lambda: None,
        create_subscription=lambda *args, **options: None,
        create_service=lambda kind, name, callback, callback_group: offered.update({name: callback}),
    )
    worker = SimpleNamespace(snapshot=SimpleNamespace(num_gaussians=1, codec=object()))
    pipeline, answers = SimpleNamespace(answer=answer), SimpleNamespace(query=shown)
    QueryServices(node, Config(), pipeline, worker, answers, view=None, asking=SimpleNamespace(answer=answer))
    response = offered["~/get_objects"](GetObjects.Request(max_instances=3), GetObjects.Response())
    assert response.error_msg == "recorded"
    (query,) = asked
    assert not query.refine and query.max_instances == 3
    assert (query.negatives, query.mode, query.threshold) == (("wall",), "argmax", 0.4)
    assert query.roi is roi
