"""The ceiling of grouping: true regions, labelled by their mean features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from helpers import synthetic

from ovs3d_ros.evaluation.ceiling import label_regions, true_classes
from ovs3d_ros.semantics.class_field import make_lifted_field
from ovs3d_ros.semantics.packing import pack_codes

NAMES = ["red box", "green box", "blue box", "grey wall"]
FRAMES = synthetic.make_frames(9)
BOXES = (synthetic.RED, synthetic.GREEN, synthetic.BLUE)


def test_true_classes_are_those_of_the_boxes() -> None:
    pipeline = synthetic.build_map(FRAMES[::2])
    snapshot = pipeline.snapshot()
    classes = true_classes(pipeline, snapshot, FRAMES, 4).numpy()
    means = snapshot.gaussians["means"].numpy()
    for box in BOXES:
        local = (means - box.center) @ box.rotation
        inside = (np.abs(local) < np.array(box.size) / 2 - 0.03).all(axis=1)
        near = (np.abs(local) < np.array(box.size) / 2 + 0.03).all(axis=1)
        assert (classes == box.label)[~near].mean() < 0.005
        visible = near & ~inside & (classes >= 0)
        assert visible.sum() > 50 and (classes[visible] == box.label).mean() > 0.8
    unlabelled = [FRAMES[0].__class__(f.stamp, f.image, f.camera, f.camtoworld) for f in FRAMES]
    assert (true_classes(pipeline, snapshot, unlabelled, 4) == -1).all()


def test_true_regions_survive_features_that_are_mostly_noise() -> None:
    pipeline = synthetic.build_map(FRAMES[::2])
    snapshot = pipeline.snapshot()
    noise = torch.randn(snapshot.codes.shape, generator=torch.Generator().manual_seed(0))
    noise[:, -1] = 0  # the sum of weights
    noisy = pack_codes(snapshot.codec.normalize(snapshot.codes + 0.4 * noise))
    snapshot = replace(snapshot, packed_codes=noisy)
    field = make_lifted_field(NAMES, pipeline.config.refine, pipeline.encode_text, snapshot)
    classes = true_classes(pipeline, snapshot, FRAMES, 4)
    truth = torch.tensor([3, 0, 1, 2])[classes.clamp_min(0)]  # class 0 is the wall
    seen = classes >= 0
    ceiling = label_regions(field, snapshot, classes)
    assert (field.probabilities.argmax(-1) == truth)[seen].float().mean() < 0.9
    assert (ceiling.probabilities.argmax(-1) == truth)[seen].all()
    assert torch.equal(ceiling.probabilities[~seen], field.probabilities[~seen])
