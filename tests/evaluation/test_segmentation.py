"""Segmentation of views by all names, per pixel and per Gaussian, lifted and refined."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from helpers import synthetic

from ovs3d_ros.evaluation.segmentation import field_for_names, gaussian_segmenter, pixel_segmenter
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.semantics.packing import pack_codes

NAMES = ["grey wall", "red box", "green box", "blue box"]  # in the order of the scene's labels
FRAMES = synthetic.make_frames(9)


@pytest.fixture(scope="module")
def room() -> Ovs3d:
    return synthetic.build_map(FRAMES[::2])


@pytest.mark.parametrize("way", [pixel_segmenter, gaussian_segmenter])
@pytest.mark.parametrize("refine", [False, True])
def test_segmenters_label_unseen_views(room: Ovs3d, way, refine: bool) -> None:
    snapshot = room.snapshot()
    field = room.query(NAMES[::-1], mode="argmax", snapshot=snapshot, refine=refine).field
    segment = way(room, snapshot, NAMES, field)
    right = [segment(frame.camera, frame.camtoworld) == frame.labels + 1 for frame in FRAMES[1::2]]
    assert np.mean(right) > 0.85


def test_field_for_names_wants_all_names(room: Ovs3d) -> None:
    field = room.query(NAMES, mode="argmax", refine=True).field
    assert (
        field_for_names(field, NAMES[:2]) is field
        and field_for_names(field, [*NAMES, "chair"]) is None
        and field_for_names(None, NAMES) is None
    )


@pytest.mark.parametrize("way", [pixel_segmenter, gaussian_segmenter])
def test_segmenters_skip_pixels_without_features(room: Ovs3d, way) -> None:
    snapshot, frame = room.snapshot(), FRAMES[1]
    segment = way(room, snapshot, NAMES, None)
    away = synthetic.look_at([0, -60, 0.5], [0, -90, 0.5])
    assert (segment(frame.camera, away) == 0).all()
    ignorant = dataclasses.replace(snapshot, packed_codes=pack_codes(torch.zeros_like(snapshot.codes)))
    assert (way(room, ignorant, NAMES, None)(frame.camera, frame.camtoworld) == 0).all()


def test_many_names_are_rendered_in_batches(room: Ovs3d) -> None:
    snapshot, frame = room.snapshot(), FRAMES[1]
    many = [*(f"thing {i}" for i in range(40)), *NAMES]
    few = gaussian_segmenter(room, snapshot, NAMES, None)(frame.camera, frame.camtoworld)
    labels = gaussian_segmenter(room, snapshot, many, None)(frame.camera, frame.camtoworld)
    assert (labels == np.where(few > 0, few + 40, 0)).mean() > 0.99
