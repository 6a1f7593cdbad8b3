"""Camera poses of the viewer, against the geometry of a rendered room."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers import synthetic

from ovs3d_ros.geometry import OPENGL_TO_OPENCV
from ovs3d_ros.viewer import views
from ovs3d_ros.viewer.panel import parse_names
from ovs3d_ros.viewer.scene import box_edges, box_top, vertical_fov


@pytest.fixture(scope="module")
def pipeline():
    return synthetic.build_map(synthetic.make_frames(6), steps=60)


def test_click_meets_the_surface_that_is_seen(pipeline):
    snapshot, eye = pipeline.snapshot(), np.array([-0.55, -1.8, 0.9])
    target = np.array([-0.55, -0.2, 0.25])  # on the front of the red box
    point = views.pick_point(pipeline, snapshot, eye, target - eye)
    np.testing.assert_allclose(point, target, atol=0.09)  # the map is coarse
    floor = np.array([0.0, -0.6, 0.0])
    np.testing.assert_allclose(views.pick_point(pipeline, snapshot, eye, 3 * (floor - eye)), floor, atol=0.09)
    assert views.pick_point(pipeline, snapshot, np.array([0, 0, 50.0]), np.array([0, 0, 1.0])) is None
    for bad in ([np.nan, 0, 1], [0, 0, 0], [np.inf, 0, 0]):
        assert views.pick_point(pipeline, snapshot, eye, np.array(bad, float)) is None


def test_two_clicks_measure_a_distance(pipeline):
    snapshot, eye = pipeline.snapshot(), np.array([-0.55, -1.8, 0.6])
    ends = [np.array([-0.55 + x, -0.2, 0.25]) for x in (-0.15, 0.15)]
    clicked = [views.pick_point(pipeline, snapshot, eye, end - eye) for end in ends]
    assert np.linalg.norm(clicked[1] - clicked[0]) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("direction", [[0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 2, 0.5]])
def test_look_along_is_a_rotation_that_looks_there(direction):
    pose = views.look_along(np.array([1.0, 2.0, 3.0]), np.array(direction, float))
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(pose[:3, 2], np.array(direction) / np.linalg.norm(direction), atol=1e-12)


def test_up_is_z_in_upright_rooms_and_that_of_the_cameras_elsewhere(pipeline):
    snapshot = pipeline.snapshot()
    assert views.up_direction(snapshot.camtoworlds).tolist() == [0, 0, 1]
    turn = np.eye(4)
    turn[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]  # the room's z becomes y
    turned = replace(snapshot, camtoworlds=turn @ snapshot.camtoworlds)
    up = views.up_direction(turned.camtoworlds)
    assert np.linalg.norm(up) == pytest.approx(1) and up @ [0, 1, 0] > 0.8
    assert views.up_direction(np.zeros((0, 4, 4))).tolist() == [0, 0, 1]


def test_flight_ends_in_front_of_the_object(pipeline):
    snapshot = pipeline.snapshot()
    item = pipeline.query(["blue box"], snapshot=snapshot).objects[0]
    eye, target = views.object_view(item, snapshot)
    np.testing.assert_allclose(target, item.center)
    assert np.linalg.norm(eye - target) == pytest.approx(max(0.6, 1.6 * np.linalg.norm(item.size)))
    assert eye[2] > target[2], "from the side of the cameras, which look down"
    alone = views.object_view(item, replace(snapshot, camtoworlds=np.zeros((0, 4, 4))))[0]
    assert np.isfinite(alone).all()


def test_first_picture_shows_the_middle_of_the_room(pipeline):
    _, eye, target = views.overview(pipeline.snapshot())
    assert np.linalg.norm(target[:2]) < 2.0 and np.linalg.norm(eye - target) > 0.5


def test_camera_path_has_opengl_axes_and_degrees():
    pose = synthetic.look_at([1.0, -2.0, 1.0], [0, 0, 0])
    document = json.loads(views.camera_path([(pose, np.pi / 3)], 1.5, np.array([0, 0, 1.0])))
    (view,) = document["camera_path"]
    matrix = np.array(view["camera_to_world"]).reshape(4, 4)
    np.testing.assert_allclose(matrix @ OPENGL_TO_OPENCV, pose, atol=1e-12)
    assert view["fov"] == pytest.approx(60) and document["render_width"] == 1080


def test_edges_span_the_box(pipeline):
    item = pipeline.query(["red box"], snapshot=pipeline.snapshot()).objects[0]
    edges = box_edges(item)
    lengths = np.sort(np.linalg.norm(edges[:, 1] - edges[:, 0], axis=1))
    np.testing.assert_allclose(lengths, np.sort(np.repeat(item.size, 4)), atol=1e-9)
    np.testing.assert_allclose(edges.reshape(-1, 3).mean(0), item.center, atol=1e-9)
    assert box_top(item)[2] == pytest.approx(edges[..., 2].max())


def test_field_of_view_is_vertical():
    camera = synthetic.make_camera(64, 48)
    assert vertical_fov(camera) == pytest.approx(2 * np.arctan(24 / camera.K[1, 1]))


def test_names_are_split_at_commas():
    assert parse_names(" red mug ,sofa,, Red Mug ") == ["red mug", "sofa"]
    assert parse_names(" , ") == []
