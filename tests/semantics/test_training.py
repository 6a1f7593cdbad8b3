"""Training of a refined field by RDA and FDA through the rasterizer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from helpers import synthetic

from ovs3d_ros.encoders import make_dino
from ovs3d_ros.mapping.keyframes import to_frame
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.semantics.alignment_views import make_alignment_view, same_pose, view_losses
from ovs3d_ros.semantics.class_field import make_lifted_field
from ovs3d_ros.semantics.training import choose_training_keyframes, train_field
from ovs3d_ros.types import UserError

NAMES = ["red box", "green box", "blue box", "grey wall"]
FRAMES = synthetic.make_frames(9)
SETTINGS = {"dino.model": "helpers.color_encoder:ColorPatches", "refine.background": ("object",)}


@pytest.fixture(scope="module")
def pipeline() -> Ovs3d:
    return synthetic.build_map(FRAMES, **SETTINGS)


@pytest.fixture(scope="module")
def parts(pipeline):
    """Snapshot, lifted field, rasterizer and DINO."""
    snapshot, refinement = pipeline.snapshot(), pipeline.map.refinement
    field = make_lifted_field(NAMES, pipeline.config.refine, pipeline.encode_text, snapshot)
    return snapshot, field, refinement._rasterizer, make_dino(pipeline.config.dino, "cpu")


def view_of(pipeline, parts, index: int, size: int):
    snapshot, field, _, dino = parts
    keyframe = pipeline.keyframes[index]
    config = dataclasses.replace(pipeline.config.refine, image_size=size)
    return make_alignment_view(to_frame(keyframe), keyframe.crops, dino, field, snapshot.codec, config)


@pytest.mark.parametrize("name", ["rda", "attract", "repel", "objective"])
@pytest.mark.parametrize("divergence", ["js", "kl"])
def test_gradients_match_finite_differences(pipeline, parts, name: str, divergence: str) -> None:
    snapshot, field, rasterizer, _ = parts
    config = dataclasses.replace(pipeline.config.refine, divergence=divergence, attract=1.0, repel=1.0)
    view = view_of(pipeline, parts, 4, 48)
    generator = torch.Generator().manual_seed(1)
    logits = (field.probabilities + 0.05).log().requires_grad_()
    direction = torch.randn(logits.shape, generator=generator)

    def loss(values: torch.Tensor) -> torch.Tensor:
        rng = np.random.default_rng(0)
        return view_losses(values.softmax(-1), snapshot.gaussians, view, rasterizer, config, rng)[name]

    loss(logits).backward()
    # Turned to the side of the gradient, whose numbers would otherwise cancel each other by chance.
    direction = torch.where(direction * logits.grad < 0, -direction, direction)
    slope = float((logits.grad * direction).sum())
    with torch.no_grad():
        step = 0.02
        rise = float(loss(logits + step * direction)) - float(loss(logits - step * direction))
    assert slope > 1e-5
    assert slope == pytest.approx(rise / (2 * step), rel=0.03)


def spoil(field):
    """A soft field in which two fifths of the Gaussians take each other's names."""
    wrong = torch.rand(len(field.probabilities), generator=torch.Generator().manual_seed(0)) < 0.4
    soft = (field.probabilities + 0.1) / (1 + 0.1 * field.probabilities.shape[1])
    return dataclasses.replace(field, probabilities=torch.where(wrong[:, None], soft.roll(1, dims=-1), soft))


def train(pipeline, parts, field, steps: int, **settings):
    """The trained field, and the losses of each step."""
    snapshot, _, rasterizer, dino = parts
    config = dataclasses.replace(pipeline.config.refine, train_steps=steps, **settings)
    progress = train_field(field, snapshot, list(pipeline.keyframes), rasterizer, dino, config)
    figures = []
    while True:
        try:
            step = next(progress)
            figures += [step.figures] if step.stage == "training" else []
        except StopIteration as end:
            return end.value, figures


@pytest.mark.parametrize(
    "name, attract, repel", [("rda", 0.0, 0.0), ("attract", 210.0, 0.0), ("repel", 0.0, 25.0)]
)
def test_each_loss_falls_by_training(pipeline, parts, name: str, attract: float, repel: float) -> None:
    _, figures = train(pipeline, parts, spoil(parts[1]), 60, attract=attract, repel=repel)
    assert len(figures) == 60
    first, last = (np.mean([f[name] for f in part]) for part in (figures[:9], figures[-9:]))
    assert last < first - 0.15 * abs(first)


def test_training_repairs_what_views_contradict(pipeline, parts) -> None:
    snapshot, field = parts[:2]
    spoiled = spoil(field)
    before = {name: value.clone() for name, value in snapshot.gaussians.items()}
    trained, _ = train(pipeline, parts, spoiled, 300)
    torch.testing.assert_close(trained.probabilities.sum(-1), torch.ones(len(snapshot.weight)))
    seen, truth = snapshot.weight > 5, field.probabilities.argmax(-1)
    right = [float((f.probabilities.argmax(-1) == truth)[seen].float().mean()) for f in (spoiled, trained)]
    assert right[0] < 0.65 and right[1] > right[0] + 0.05, right
    assert all(torch.equal(snapshot.gaussians[name], value) for name, value in before.items())
    again, _ = train(pipeline, parts, spoiled, 300)
    assert torch.equal(again.probabilities, trained.probabilities)


def test_gaussians_that_views_hardly_show_stay(pipeline, parts) -> None:
    snapshot, field = parts[:2]
    trained, _ = train(pipeline, parts, field, 100)
    moved = torch.nn.functional.kl_div(
        (trained.probabilities + 1e-9).log(), field.probabilities, reduction="none"
    ).sum(-1)
    assert float(moved[snapshot.weight < 5].mean()) < 0.008  # 0.012 without the tie to the start


def test_no_view_of_the_check_is_trained_on(pipeline) -> None:
    keyframes = pipeline.map.mapper.keyframes
    frames = [to_frame(keyframes[index]) for index in (0, 3)]
    chosen = choose_training_keyframes(keyframes, frames, 64)
    assert len(chosen) == len(keyframes) - 2
    assert not any(same_pose(k.camtoworld, f.camtoworld) for k in chosen for f in frames)
    assert len(choose_training_keyframes(keyframes, frames, 3)) == 3
    with pytest.raises(UserError, match=r"of \d+ it leaves none.*keep_keyframes.*check_views"):
        choose_training_keyframes(keyframes, [to_frame(k) for k in keyframes], 64)


def test_refinement_trains_when_asked() -> None:
    pipeline = synthetic.build_map(FRAMES[::2], **SETTINGS, refine__train_steps=12)
    steps = list(pipeline.refine(NAMES, FRAMES[1::2]))
    stages = [step.stage for step in steps]
    assert stages.count("training") == 12 and stages.count("encoding") == len(pipeline.keyframes)
    assert steps[-1].stage == "done" and steps[-1].figures["checked"] == 4
    plain = synthetic.build_map(FRAMES[::2], **SETTINGS)
    *_, last = plain.refine(NAMES, FRAMES[1::2])
    after = [figures["after"]["objective"] for figures in (steps[-1].figures, last.figures)]
    assert after[0] < after[1], "views that were not trained on"


def test_refinement_without_a_check_trains_too() -> None:
    steps = list(synthetic.build_map(FRAMES[::2], **SETTINGS, refine__train_steps=3).refine(NAMES))
    assert [step.stage for step in steps].count("training") == 3
    assert steps[-1].kept and "not checked" in steps[-1].message
