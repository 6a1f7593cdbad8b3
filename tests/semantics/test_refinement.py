"""Refinement repairs wrong labels, and rejects a result that is no better."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.color_encoder import ColorEncoder

from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.semantics.class_field import (
    fill_missing_rows,
    make_lifted_field,
    merge_refined_scores,
    vocabulary_indices,
)
from ovs3d_ros.semantics.refinement_check import choose_check_views
from ovs3d_ros.types import CropTable, RefinedField, UserError

NAMES = ["red box", "green box", "blue box", "grey wall"]
CLASS_OF_COLOR = {"red box": 1, "green box": 2, "blue box": 3, "grey wall": 0}
PATCHES = {"dino.model": "helpers.color_encoder:ColorPatches", "refine.background": ("object",)}
BLUR = 0.1  # longer image sides
FRAMES = synthetic.make_frames(9)


def build(**settings) -> Ovs3d:
    return synthetic.build_map(FRAMES[::2], **(PATCHES | settings))


def corrupt(pipeline: Ovs3d, share: float) -> None:
    """Gives a random share of Gaussians the lifted features of other random Gaussians."""
    stats = pipeline.map.mapper.gaussians.stats
    generator = torch.Generator().manual_seed(0)
    count = len(stats["weight"])
    chosen = torch.randperm(count, generator=generator)[: int(share * count)]
    stats["numerators"] = stats["numerators"].clone()
    directions = stats["numerators"] / stats["weight"].clamp_min(1e-6)[:, None, None]
    source = torch.randint(count, (len(chosen),), generator=generator)
    stats["numerators"][chosen] = directions[source] * stats["weight"][chosen, None, None]


def accuracy(pipeline: Ovs3d) -> float:
    """Share of correct pixels of an argmax over the names, on held-out views."""
    snapshot = pipeline.snapshot()
    result = pipeline.query(NAMES, mode="argmax", snapshot=snapshot)
    numbers = np.array([-1] + [CLASS_OF_COLOR[name] for name in NAMES])
    right = [
        numbers[pipeline.render_labels(result, f.camera, f.camtoworld, snapshot)[0]] == f.labels
        for f in FRAMES[1::2]
    ]
    return float(np.mean(right))


def test_refinement_repairs_corrupted_labels_and_passes() -> None:
    pipeline = build()
    clean = accuracy(pipeline)
    corrupt(pipeline, 0.4)
    before = accuracy(pipeline)
    steps = list(pipeline.refine(NAMES, FRAMES[1::2]))
    after = accuracy(pipeline)
    assert before < clean - 0.03 and after > before + 0.7 * (clean - before)
    assert {step.stage for step in steps} == {"sharpening", "aligning", "checking", "done"}
    assert all(0 <= step.step <= step.total for step in steps)
    assert steps[-1].kept and steps[-1].figures["checked"] == 4
    old, new = steps[-1].figures["before"], steps[-1].figures["after"]
    assert new["objective"] < old["objective"] and new["attract"] < 0.3 * old["attract"]
    assert new["rda"] < 1.05 * old["rda"], "single wrong Gaussians hardly change a view"
    weights = pipeline.config.refine
    for figures in (old, new):
        parts = figures["rda"] + weights.attract * figures["attract"] + weights.repel * figures["repel"]
        assert figures["objective"] == pytest.approx(parts) and figures["repel"] < 0 < figures["attract"]
    pipeline = build(refine__divergence="kl")
    corrupt(pipeline, 0.4)
    *_, last = pipeline.refine(NAMES, FRAMES[1::2])
    assert last.kept and last.figures["before"]["attract"] > 2 * old["attract"], "KL has no upper bound"


def test_map_teaches_what_its_floor_looks_like() -> None:
    """A stretch of floor has the features of a red box: its neighbours do not help, its colour does."""
    after = {}
    for weight in (0.0, 0.3):
        pipeline = build(refine__adaptation=weight)
        gaussians = pipeline.map.mapper.gaussians
        means, stats = gaussians.activated()["means"].detach(), gaussians.stats
        away = (means - torch.tensor(synthetic.RED.center)).abs() / torch.tensor(synthetic.RED.size)
        red, floor = (away < 0.55).all(1), (means[:, 2] < 0.03) & (means[:, 1] < -0.25)
        assert red.sum() > 200 and floor.sum() > 200
        features = stats["numerators"] / stats["weight"].clamp_min(1e-6)[:, None, None]
        features[floor] = 0.2 * features[floor] + 0.8 * features[red].mean(0)
        stats["numerators"] = features * stats["weight"][:, None, None]
        for _ in pipeline.refine(NAMES):
            pass
        after[weight] = accuracy(pipeline)
    assert after[0.3] > after[0.0] + 0.03


class BlurredColorEncoder(ColorEncoder):
    """A color encoder whose cells include their surroundings, like those of CLIP."""

    name = "tests/blurred-color"

    def encode_image(self, image: np.ndarray) -> CropTable:
        return super().encode_image(cv2.GaussianBlur(image, (0, 0), BLUR * max(image.shape)))


def test_sharpening_compensates_a_blurred_encoder() -> None:
    settings = {
        "clip.model": f"{__name__}:BlurredColorEncoder",
        "refine.strength": 0.0,
        "refine.sharpen_radius": BLUR,
    }
    blurred, sharpened = (build(**settings, **{"refine.sharpen_steps": steps}) for steps in (0, 3))
    for pipeline in (blurred, sharpened):
        assert list(pipeline.refine(NAMES))[-1].kept
    assert accuracy(blurred) < 0.9 and accuracy(sharpened) > accuracy(blurred) + 0.04


def test_refinement_that_blurs_everything_is_rejected() -> None:
    pipeline = build(**{"refine.normal_scale": 10.0, "refine.color_scale": 1e4, "refine.strength": 1e5})
    before = accuracy(pipeline)
    last = list(pipeline.refine(NAMES, FRAMES[1::2]))[-1]
    assert not last.kept and "no better" in last.message
    assert pipeline.snapshot().refined is None and accuracy(pipeline) == before


def test_message_says_when_nothing_was_checked() -> None:
    pipeline = build()
    last = list(pipeline.refine(NAMES))[-1]
    assert last.kept and "not checked" in last.message and pipeline.snapshot().refined.names == tuple(NAMES)


def test_field_survives_cancelling_growth_and_saving(tmp_path) -> None:
    pipeline = build()
    run = pipeline.refine(NAMES)
    next(run)
    run.close()
    assert pipeline.snapshot().refined is None and "refined_row" not in pipeline.map.mapper.gaussians.stats
    run = pipeline.refine(NAMES)
    next(run)
    g = pipeline.map.mapper.gaussians
    g.keep(torch.arange(len(g)) % 5 != 0)  # Gaussians are removed during the refinement ...
    g.insert(torch.rand(50, 3), torch.rand(50, 3), torch.full((50,), 0.02), 0.5)  # ... and added
    for _ in run:
        pass
    probabilities = pipeline.snapshot().refined.probabilities
    assert len(probabilities) == len(g)
    undisturbed = build()
    for _ in undisturbed.refine(NAMES):
        pass
    expected = undisturbed.snapshot().refined.probabilities
    torch.testing.assert_close(
        probabilities[:-50], expected[torch.arange(len(expected)) % 5 != 0], atol=1e-3, rtol=0
    )
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(len(g)), atol=1e-3, rtol=0)
    assert probabilities[:-50].amax(-1).mean() > 0.8
    pipeline.save(tmp_path / "m.ovs3d")
    again = Ovs3d.load(tmp_path / "m.ovs3d")
    torch.testing.assert_close(again.snapshot().refined.probabilities, probabilities, atol=2e-3, rtol=0)
    pipeline.reset()
    assert pipeline.snapshot().refined is None


def test_gaussians_added_during_refinement_have_zero_rows() -> None:
    pipeline = build()
    g = pipeline.map.mapper.gaussians
    mapper = pipeline.map.mapper
    run = pipeline.map.refinement.run(NAMES, pipeline.snapshot(), mapper.blocks, (), mapper.keyframes)
    next(run)
    g.insert(torch.rand(50, 3), torch.rand(50, 3), torch.full((50,), 0.02), 0.5)
    while True:
        try:
            next(run)
        except StopIteration as end:
            rows = end.value.probabilities
            break
    assert len(rows) == len(g) and bool((rows[-50:] == 0).all()) and bool((rows[:-50].sum(-1) > 0.99).all())


def test_query_can_refine_for_its_own_prompts() -> None:
    pipeline = build()
    corrupt(pipeline, 0.3)
    snapshot = pipeline.snapshot()
    lifted = pipeline.query(NAMES, mode="argmax", snapshot=snapshot)
    result = pipeline.query(NAMES, mode="argmax", snapshot=snapshot, refine=True)
    assert lifted.field is None and result.field.names == tuple(NAMES) and snapshot.refined is None
    assert (result.labels != lifted.labels).float().mean() > 0.1
    list(pipeline.refine(NAMES))
    refined = pipeline.snapshot()
    assert pipeline.query(NAMES[:2], snapshot=refined, refine=True).field is refined.refined, "known already"
    wider = pipeline.query(["red thing"], snapshot=refined, refine=True).field
    assert wider.names == ("red thing", *NAMES)


def test_draw_between_names_lies_at_the_threshold() -> None:
    probabilities = torch.tensor([[0.4, 0.4, 0.2], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    cosines, scores = torch.zeros(3, 2), torch.full((3, 2), 0.3)
    ranking, relevancy = merge_refined_scores(probabilities, np.array([0, -1]), cosines, scores, 0.6)
    assert relevancy[0, 0] == pytest.approx(0.6)
    assert relevancy[1, 0] > 0.6 > relevancy[2, 0]
    assert (relevancy[:, 1] == 0.3).all() and (ranking[:, 0] == probabilities[:, 0]).all()
    assert (merge_refined_scores(probabilities, np.array([0, -1]), cosines, scores * 0, 0.6)[1] == 0).all()
    flat = torch.full((3, 8), 1 / 8)
    assert (merge_refined_scores(flat, np.array([0, -1]), cosines, scores, 0.6)[1][:, 0] < 0.4).all(), (
        "nothing fits"
    )


def test_vocabulary_indices_of_known_and_unknown_names() -> None:
    field = RefinedField(("a", "b"), ("object",), torch.eye(3), 0.03, torch.zeros(0, 3))
    assert vocabulary_indices(field, ["b", "c"], "relevancy").tolist() == [1, -1]
    assert vocabulary_indices(field, ["b", "c"], "argmax").tolist() == [-1, -1]
    assert vocabulary_indices(field, ["b", "a"], "argmax").tolist() == [1, 0]
    assert vocabulary_indices(field, ["object"], "relevancy").tolist() == [-1]
    assert vocabulary_indices(None, ["b"], "relevancy").tolist() == [-1]


def test_refined_names_are_found_in_any_letter_case() -> None:
    pipeline = build()
    for _ in pipeline.refine(NAMES):
        pass
    assert pipeline.query([name.upper() for name in NAMES]).field is not None
    field = pipeline.map.refinement.refine_for_query([NAMES[1].title()], pipeline.snapshot())
    assert field.names == pipeline.snapshot().refined.names, "nothing new to refine"


def test_new_gaussians_have_the_lifted_distribution() -> None:
    snapshot = build().snapshot()
    field = RefinedField(("a", "b"), (), torch.eye(2, 16), 0.03, torch.zeros(snapshot.num_gaussians, 2))
    field.probabilities[0, 1] = 1.0
    full = fill_missing_rows(field, snapshot.packed_codes, snapshot.codec).probabilities
    assert full[0].tolist() == [0.0, 1.0]
    torch.testing.assert_close(full.sum(-1), torch.ones(len(full)))


def test_check_views_are_not_keyframes() -> None:
    poses = np.stack([f.camtoworld for f in FRAMES])
    assert choose_check_views(poses, poses[::2], 10) == [1, 3, 5, 7]
    assert choose_check_views(poses, poses[::2], 2) == [1, 7]
    assert choose_check_views(poses, poses, 3) == [0, 4, 8]
    with pytest.raises(UserError, match="keyframe"):
        choose_check_views(poses, poses + np.eye(4)[3] * 0 + 1.0, 3)


def test_bad_names_and_empty_maps_are_refused() -> None:
    pipeline = build()
    for names, word in (([], "no class"), (["a", " "], "empty"), (["object"], "at least two")):
        with pytest.raises(UserError, match=word):
            list(pipeline.refine(names))
    with pytest.raises(UserError, match="no language features"):
        list(Ovs3d(dataclasses.replace(pipeline.config)).refine(NAMES))


def test_repeated_background_word_counts_once() -> None:
    pipeline = build()
    config = dataclasses.replace(pipeline.config.refine, background=("object", "stuff", "object"))
    field = make_lifted_field(NAMES, config, pipeline.encode_text, pipeline.snapshot())
    assert field.background == ("object", "stuff") and field.probabilities.shape[1] == len(NAMES) + 2
