"""The script behind the README's animation, on a tiny map."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.synthetic import build_map, make_camera, make_frames, orbit

from ovs3d_ros.types import SemanticObject

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture(scope="module")
def animate():
    """The module `tools/animate_query.py`."""
    sys.path.insert(0, str(TOOLS))
    import animate_query

    yield animate_query
    sys.path.remove(str(TOOLS))


def test_plan_types_then_answers_each_prompt_and_loops(animate) -> None:
    moments = animate.plan(("red box", "bicycle"))
    assert 3 < len(moments) / animate.FPS < 6
    assert moments[0].light == 1  # some viewers show only the first frame
    for moment in moments:
        assert moment.light == 0 or moment.letters == len(("red box", "bicycle")[moment.prompt])
    jumps = [abs(a.light - b.light) for a, b in zip(moments, moments[1:] + moments[:1], strict=True)]
    assert max(jumps) < 0.5


def test_light_up_brightens_the_answer_and_dims_the_rest(animate) -> None:
    image, mask = np.full((40, 60, 3), 120, np.uint8), np.zeros((40, 60), bool)
    mask[15:25, 25:35] = True
    lit = animate.light_up(image, mask, (255, 200, 60), 1.0)
    assert lit[20, 30].mean() > 120 > lit[0, 0].mean()
    assert np.array_equal(animate.light_up(image, mask, (255, 200, 60), 0.0), image)


def test_box_corners_surround_the_projected_center(animate) -> None:
    camera, pose = make_camera(), orbit(1)[0]
    item = SemanticObject(
        "box", 1, 1, 1.0, np.array([0, 0.2, 0.2]), np.array([1.0, 0, 0, 0]), np.full(3, 0.1), 9, 2
    )
    corners = animate.box_corners(item, camera, pose)
    assert np.allclose(corners.mean(0), camera.K[:2, 2], atol=0.5)
    behind = pose.copy()
    behind[:3, 1:3] *= -1
    assert animate.box_corners(item, camera, behind) is None


def test_frame_shows_the_verdict_of_the_map(animate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animate, "WIDTH", 320)
    animation = animate.Animation(build_map(make_frames(4), steps=5), ("red box", "bicycle"))
    assert [answer.verdicts for answer in animation.answers] == [["yes"], ["no"]]
    pose = animation.snapshot.camtoworlds[1]
    found, absent = (np.asarray(animation.frame(animate.Moment(i, 7, 1.0), pose)) for i in (0, 1))
    assert found.shape == absent.shape == (240, 320, 3)
    right = (slice(185, 215), slice(200, 262))  # the end of the search bar
    assert (found[right] == animate.VERDICTS["yes"][1]).all(-1).any()
    assert (absent[right] == animate.VERDICTS["no"][1]).all(-1).any()
