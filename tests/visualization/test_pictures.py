"""Overlays, legends, colour maps and contact sheets."""

from __future__ import annotations

import numpy as np
import pytest

from ovs3d_ros.visualization import pictures


def test_label_colours_are_distinct_and_independent_of_count():
    colors = pictures.label_colors(24).astype(int)
    distances = np.abs(colors[:, None] - colors[None]).sum(-1) + 1000 * np.eye(25, dtype=int)
    assert distances.min() > 30
    assert np.array_equal(pictures.label_colors(3), colors[:4])


def test_overlay_tints_labels_and_dims_the_rest():
    image = np.full((60, 80, 3), 120, np.uint8)
    labels = np.zeros((60, 80), np.uint16)
    labels[20:40, 10:30], labels[20:40, 50:70] = 1, 2
    picture = pictures.overlay(image, labels).astype(int)
    colors = pictures.label_colors(2).astype(int)
    for (row, column), label in (((30, 20), 1), ((30, 60), 2)):
        off = np.abs(picture[row, column] - colors[1:]).sum(-1)
        assert off.argmin() == label - 1
        assert np.ptp(picture[row, column]) > 40, "a grey picture shows the label's hue"
    assert np.ptp(picture[5, 5]) == 0 and picture[5, 5, 0] < 120, "the rest is dimmed, not tinted"
    assert np.abs(picture[20, 20] - colors[1]).sum() <= 30, "outlined in the full colour"
    assert image.min() == 120, "the input is left alone"


def test_overlay_without_labels_is_grey():
    picture = pictures.overlay(np.full((12, 16, 3), 200, np.uint8), np.zeros((12, 16), int))
    assert (np.ptp(picture, axis=2) == 0).all()


def test_enlarged_labels_keep_their_area_and_values():
    y, x = np.mgrid[:48, :64]
    labels = np.where((x - 20) ** 2 + (y - 24) ** 2 < 200, 3, 0) + np.where(x > 50, 7, 0)
    large = pictures.resize_labels(labels, 640, 480)
    assert large.shape == (480, 640) and set(np.unique(large)) == {0, 3, 7}
    for label in (3, 7):
        assert (large == label).sum() == pytest.approx(100 * (labels == label).sum(), rel=0.02)
    assert pictures.overlay(np.zeros((48, 64, 3), np.uint8), labels, width=320).shape == (240, 320, 3)


def test_depth_is_bright_when_near_and_black_when_missing():
    depth = np.linspace(0.5, 4.0, 50)[None].repeat(3, axis=0).astype(np.float32)
    depth[:, 10] = 0
    near, far = pictures.depth_range([depth])
    assert 0.5 <= near < 0.7 and 3.8 < far <= 4.0, "percentiles of measured depth only"
    brightness = pictures.color_depth(depth, near, far).sum(-1)
    assert (brightness[:, 10] == 0).all()
    assert (np.diff(np.delete(brightness[0].astype(int), 10)) <= 6).all() and brightness[
        0, 1
    ] > 500 > brightness[0, -2]
    assert pictures.depth_range([np.zeros((2, 2))]) == (0.0, 1.0)


def test_feature_colours_agree_between_views():
    rng = np.random.default_rng(0)
    kinds = np.linalg.qr(rng.normal(size=(12, 4)))[0].T
    codes = kinds[rng.integers(4, size=600)] + 0.02 * rng.normal(size=(600, 12))
    colors = pictures.FeatureColors.fit(np.concatenate([codes, np.zeros((50, 12))]))
    view = np.stack([kinds, kinds[::-1]])  # [2, 4, 12]
    view[1, 3] = 0
    painted = colors.paint(view).astype(int)
    assert np.array_equal(painted[0, 1:], painted[1, :3][::-1])
    distances = np.abs(painted[0][:, None] - painted[0][None]).sum(-1) + 1000 * np.eye(4, dtype=int)
    assert distances.min() > 100
    assert (painted[1, 3] == 0).all()


def test_feature_colours_are_black_without_features():
    assert (pictures.FeatureColors.fit(np.zeros((5, 2))).paint(np.zeros((2, 2, 2))) == 0).all()


def test_legend_shows_every_entry_and_wraps():
    image = np.zeros((40, 240, 3), np.uint8)
    entries = [(f"thing number {i}", pictures.label_colors(9)[i]) for i in range(1, 10)]
    picture = pictures.add_legend(image, entries, title="found")
    assert picture.shape[1] == 240 and np.array_equal(picture[:40], image)
    strip = picture[40:].reshape(-1, 3)
    for _, color in entries:
        assert (strip == color).all(-1).sum() > 40, "a swatch of exactly this colour"
    few = pictures.add_legend(image, entries[:1])
    assert 40 < few.shape[0] < picture.shape[0]
    assert np.array_equal(pictures.add_legend(image, []), image)


def test_long_text_stays_inside_the_picture():
    image = np.zeros((40, 200, 3), np.uint8)
    long = "a prompt of two hundred and fifty six characters " * 5
    assert pictures.add_legend(image, [(long, (255, 0, 0))]).shape[1] == 200
    captioned = pictures.add_caption(image, long)
    assert captioned.shape == image.shape and captioned.max() > 200 and (captioned[:, -5:] == 0).all()


def test_contact_sheet_holds_every_picture():
    colors = pictures.label_colors(5)[1:]
    images = [np.full((30 + 10 * i, 40, 3), color, np.uint8) for i, color in enumerate(colors)]
    sheet = pictures.contact_sheet(
        images,
        [f"picture {i}" for i in range(5)],
        columns=2,
        width=400,
        headline="ovs3d",
        note="one line\nanother",
    )
    assert sheet.shape[1] == 400
    pixels = sheet.reshape(-1, 3)
    cell = (400 - 3 * 8) // 2
    for image, color in zip(images, colors, strict=True):
        count = (pixels == color).all(-1).sum()
        assert count == pytest.approx(cell * round(image.shape[0] * cell / 40), rel=0.01)
    with pytest.raises(ValueError, match="5 pictures with 2 captions"):
        pictures.contact_sheet(images, ["a", "b"])
