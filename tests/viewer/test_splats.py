"""Gaussians as the browser gets them, against the definitions."""

from __future__ import annotations

import numpy as np
import pytest

from ovs3d_ros.geometry import quat_to_matrix
from ovs3d_ros.viewer import splats as coloring
from ovs3d_ros.viewer.splats import make_splats
from ovs3d_ros.visualization import pictures


@pytest.fixture(scope="module")
def drawn(pipeline):
    return make_splats(pipeline.snapshot(), 1_000_000)


def test_covariances_are_those_of_rotation_and_scale(drawn):
    gaussians = drawn.snapshot.gaussians
    for row in (0, len(drawn.indices) // 2, -1):
        index = drawn.indices[row]
        R, scales = quat_to_matrix(gaussians["quats"][index].numpy()), gaussians["scales"][index].numpy()
        np.testing.assert_allclose(drawn.drawn.covariances[row], R @ np.diag(scales**2) @ R.T, atol=1e-6)
        np.testing.assert_allclose(drawn.drawn.centers[row], gaussians["means"][index].numpy())


def test_thinning_keeps_the_whole_room(drawn):
    few = make_splats(drawn.snapshot, 100)
    assert (
        len(few.indices) == 100
        and few.drawn.colors.shape == (100, 3)
        and few.drawn.opacities.shape == (100, 1)
    )
    extent = np.ptp(np.percentile(drawn.drawn.centers, [5, 95], axis=0), axis=0)
    np.testing.assert_allclose(
        np.ptp(np.percentile(few.drawn.centers, [5, 95], axis=0), axis=0), extent, rtol=0.3
    )


def test_labelled_gaussians_take_the_colour_of_their_label(pipeline, drawn):
    result = pipeline.query(["red box", "blue box"], snapshot=drawn.snapshot)
    labels = result.labels.numpy()[drawn.indices]
    assert {1, 2} <= set(labels)
    marks = pictures.label_colors(2)
    alone = coloring.label_colors(drawn, result)
    tinted = coloring.tinted_colors(drawn, result)
    for label in (1, 2):
        assert (alone[labels == label] == marks[label]).all()
        off = np.abs(tinted[labels == label].astype(int) - marks[label].astype(int)).max()
        assert off <= 0.25 * 255 + 1, "three quarters are the label's colour"
    assert (tinted[labels == 0] == drawn.drawn.colors[labels == 0]).all(), "the map stays bright"
    rest = alone[labels == 0].astype(int)
    assert np.ptp(rest, axis=1).max() == 0 and rest.mean() < drawn.drawn.colors[labels == 0].mean()


def test_depth_colours_get_darker_with_the_distance(drawn):
    eye = np.array([0.0, -1.8, 0.9])
    brightness = coloring.depth_colors(drawn, eye).astype(float).sum(axis=1)
    distances = np.linalg.norm(drawn.drawn.centers - eye, axis=1)
    order = np.argsort(distances)
    tenth = len(order) // 10
    assert brightness[order[:tenth]].mean() > brightness[order[-tenth:]].mean() + 200


def test_features_of_one_thing_look_alike(pipeline, drawn):
    colors = coloring.feature_colors(drawn).astype(float)
    labels = pipeline.query(["red box", "blue box"], snapshot=drawn.snapshot).labels.numpy()[drawn.indices]
    red, blue = colors[labels == 1], colors[labels == 2]
    between = np.linalg.norm(red.mean(0) - blue.mean(0))
    assert between > 2 * max(red.std(0).max(), blue.std(0).max())
