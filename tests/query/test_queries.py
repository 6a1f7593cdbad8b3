"""Text queries on a small coloured room find the right things in the right places."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.color_encoder import ColorEncoder

from ovs3d_ros.geometry import quat_to_matrix
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.semantics.class_field import make_lifted_field
from ovs3d_ros.types import MapSnapshot, RefinedField, UserError

BOXES = {"red box": synthetic.RED, "green box": synthetic.GREEN, "blue box": synthetic.BLUE}


@pytest.fixture(scope="module")
def room() -> Ovs3d:
    """A mapped room; tests must not change it."""
    return synthetic.build_map(synthetic.make_frames(6))


def inside(box: synthetic.Box, points: np.ndarray, margin: float) -> np.ndarray:
    return (np.abs((points - box.center) @ box.rotation) < np.array(box.size) / 2 + margin).all(-1)


def test_query_finds_things_where_they_stand(room: Ovs3d) -> None:
    result = room.query([*BOXES, "purple elephant"])
    assert result.found.tolist() == [True, True, True, False]
    assert result.presence[:3].min() > 0.9 and result.presence[3] < 0.5
    means = room.map.params()["means"].detach().numpy()
    for index, (name, box) in enumerate(BOXES.items()):
        labelled = means[result.labels.numpy() == index + 1]
        assert len(labelled) > 30
        assert inside(box, labelled, 0.08).mean() > 0.9  # precision
        of_box = inside(box, means, 0.0) & (means[:, 2] > 0.05)
        assert (result.labels.numpy()[of_box] == index + 1).mean() > 0.7  # recall
        best = next(o for o in result.objects if o.prompt == name)
        assert np.linalg.norm(best.center - box.center) < 0.15 and best.views >= 3
        assert (result.instances.numpy() == best.instance).sum() == best.num_gaussians
    assert not any(o.prompt == "purple elephant" for o in result.objects)
    assert (result.labels != 4).all()


def test_boxes_stand_upright_unless_told_otherwise(room: Ovs3d) -> None:
    def vertical() -> np.ndarray:
        objects = room.query([*BOXES]).objects
        return np.abs([quat_to_matrix(o.quat)[2, 2] for o in objects])

    assert np.allclose(vertical(), 1, atol=1e-9)  # the third axis of each box
    settings = room.config.query
    room.queries.configure(dataclasses.replace(settings, upright="never"))
    try:
        assert vertical().min() < 0.9999, "principal axes of noisy points lean"
    finally:
        room.queries.configure(settings)


def test_result_is_complete_and_consistent(room: Ovs3d) -> None:
    snapshot = room.snapshot()
    result = room.query(["red box", "blue box"], snapshot=snapshot)
    count = snapshot.num_gaussians
    assert result.map_version == snapshot.version and result.latency_ms > 0
    assert result.relevancy.shape == (count, 2) and result.labels.shape == result.instances.shape == (count,)
    assert float(result.relevancy.min()) >= 0 and float(result.relevancy.max()) <= 1
    unseen = (snapshot.weight < room.config.query.min_weight).numpy()
    assert (
        unseen.any()
        and (result.relevancy.numpy()[unseen] == 0).all()
        and (result.labels.numpy()[unseen] == 0).all()
    )
    chosen = result.labels > 0
    picked = result.relevancy[chosen].gather(1, result.labels[chosen][:, None] - 1)
    assert float(picked.min()) >= room.calibration.threshold


def test_codes_keep_the_cosines_of_features(room: Ovs3d) -> None:
    """The code is long enough for the colours, so compression must not change cosines."""
    snapshot = room.snapshot()
    texts = room.encode_text(["red", "green", "blue", "grey"])
    exact = torch.nn.functional.normalize(snapshot.codec.decode(snapshot.codes), dim=-1) @ texts.T
    known = snapshot.codes[:, -1] != 0
    got = snapshot.codes @ snapshot.codec.directions(texts)
    torch.testing.assert_close(got[known], exact[known], atol=5e-3, rtol=0)  # 8 bits
    basis = ColorEncoder(None, "cpu").basis
    lost = snapshot.codec.decode(snapshot.codes)[known] @ basis[4:].T
    assert float(lost.abs().max()) < 1e-3  # no feature where no image has one


def test_argmax_labels_every_seen_gaussian(room: Ovs3d) -> None:
    names = ["grey wall", *BOXES]
    snapshot = room.snapshot()
    labels = room.query(names, mode="argmax", snapshot=snapshot).labels.numpy()
    seen = ((snapshot.weight >= room.config.query.min_weight) & (snapshot.codes[:, -1] != 0)).numpy()
    assert ((labels > 0) == seen).all()
    means = snapshot.gaussians["means"].numpy()
    on_box = np.any([inside(box, means, 0.1) for box in BOXES.values()], axis=0)
    assert (labels[seen & ~on_box] == 1).mean() > 0.95


def test_argmax_compares_cosines_at_any_temperature(room: Ovs3d, monkeypatch) -> None:
    """At 1000, relevancy rounds to 0 or 1 nearly everywhere."""
    names, snapshot = ["grey wall", *BOXES], room.snapshot()
    monkeypatch.setattr(
        room.queries, "calibration", dataclasses.replace(room.calibration, temperature=1000.0)
    )
    labels = room.query(names, mode="argmax", snapshot=snapshot).labels
    cosines = snapshot.codes @ snapshot.codec.directions(room.encode_text(names))
    assert torch.equal(labels[labels > 0], cosines.argmax(-1)[labels > 0] + 1)


def test_threshold_roi_and_max_instances_narrow_the_result(room: Ovs3d) -> None:
    snapshot = room.snapshot()
    loose, strict = (room.query(["red box"], threshold=t, snapshot=snapshot) for t in (0.3, 0.9))
    assert int((loose.labels > 0).sum()) > int((strict.labels > 0).sum()) > 0
    half = np.array([[-9, -9, -9], [synthetic.RED.center[0], 9, 9]])
    cut = room.query(["red box"], roi=half, snapshot=snapshot)
    x = snapshot.gaussians["means"][cut.labels > 0][:, 0]
    assert len(x) > 10 and float(x.max()) <= synthetic.RED.center[0]
    flipped = room.query(["red box"], roi=half[::-1], snapshot=snapshot)
    assert torch.equal(flipped.labels, cut.labels)
    assert len(room.query(["red box", "grey wall"], max_instances=1, snapshot=snapshot).objects) <= 2


def test_negatives_lower_the_relevancy(room: Ovs3d) -> None:
    snapshot = room.snapshot()
    usual = room.query(["red box"], snapshot=snapshot)
    # The encoder maps both texts to the same direction.
    rivals = room.query(["red box"], negatives=["red paint"], snapshot=snapshot)
    assert float(usual.relevancy.max()) > 0.9
    assert float(rivals.relevancy.max()) == pytest.approx(0.5, abs=0.01)


def test_two_names_of_one_thing_both_get_objects(room: Ovs3d) -> None:
    """The first prompt takes every Gaussian of the box; the second one gets its strongest Gaussians back."""
    result = room.query(["red box", "red thing"])
    assert result.found.all()
    means = room.map.params()["means"].detach().numpy()
    for label in (1, 2):
        labelled = means[result.labels.numpy() == label]
        assert (
            len(labelled) >= room.config.query.min_instance
            and inside(synthetic.RED, labelled, 0.08).mean() > 0.9
        )
    assert {o.prompt for o in result.objects} == {"red box", "red thing"}


def test_repeated_prompt_gets_the_same_objects(room: Ovs3d) -> None:
    once, twice = room.query(["blue box"]), room.query(["blue box", "red box", "blue box"])
    assert twice.found.all() and twice.labels.max() == 2
    blue = [(o.label, o.num_gaussians, o.center.tolist()) for o in twice.objects if o.prompt == "blue box"]
    expected = [(o.num_gaussians, o.center.tolist()) for o in once.objects]
    assert blue == [(1, *e) for e in expected] + [(3, *e) for e in expected]


def test_text_cache_is_bounded(room: Ovs3d, monkeypatch) -> None:
    encoded = []
    encode_text = room.clip.encode_text
    monkeypatch.setattr(
        room.clip, "encode_text", lambda prompts: encoded.extend(prompts) or encode_text(prompts)
    )
    first = room.encode_text(["red vase", "blue vase", "red vase"])
    assert set(encoded) == {"red vase", "blue vase"} and torch.equal(first[0], first[2])
    room.encode_text([f"thing {i}" for i in range(10_000)])
    encoded.clear()
    assert torch.equal(room.encode_text(["red vase", "blue vase"]), first[:2]) and encoded == [
        "red vase",
        "blue vase",
    ]


def test_presence_has_weights_for_general_names(room: Ovs3d, tmp_path) -> None:
    room.save(tmp_path / "room.ovs3d")
    asked = Ovs3d.load(tmp_path / "room.ovs3d")
    asked.recalibrate(
        distractors=("red box", "blue box"),
        presence_weights=(0.0, 0.0, 20.0, 0.0),
        presence_bias=-8.0,
        general_weights=(0.0,) * 4,
        general_bias=-3.0,
    )
    result = asked.query(["red box", "red", "green box"])
    # "red box" is a distractor itself, with cosine 1 to the prompt: it must not compete, or the margin is 0.
    assert result.found.tolist() == [True, False, True]
    assert result.presence[1] == pytest.approx(1 / (1 + np.exp(3.0)))  # more general than "red box"


@pytest.mark.parametrize(
    "arguments, word",
    [
        (dict(prompts=[]), "no prompt"),
        (dict(prompts=["a", ""]), "prompt 2"),
        (dict(prompts=["a"], mode="best"), "mode"),
        (dict(prompts=["a"], negatives=["b", " "]), "negative 2"),
        (dict(prompts=["a"], threshold=2.0), "threshold 2.0"),
        (dict(prompts=["a"], roi=np.zeros((3, 2))), "two finite corners"),
    ],
)
def test_query_refuses_bad_arguments(room: Ovs3d, arguments: dict, word: str) -> None:
    with pytest.raises(UserError, match=word):
        room.query(**arguments)


def test_rendered_labels_segment_unseen_views(room: Ovs3d) -> None:
    pose = synthetic.orbit(7)[2]  # between two keyframes
    frame = synthetic.make_frame(pose)
    snapshot = room.snapshot()
    result = room.query(list(BOXES), snapshot=snapshot)
    labels, score = room.render_labels(result, frame.camera, pose, snapshot)
    assert labels.dtype == np.uint16 and labels.shape == frame.labels.shape == score.shape
    for label in (1, 2, 3):
        a, b = labels == label, frame.labels == label
        assert (a & b).sum() / (a | b).sum() > 0.6
    assert ((score > 0) == (labels > 0)).all() and score.max() <= 1
    # The region holds the red box alone.
    half = room.query(list(BOXES), snapshot=snapshot, roi=np.array([[-9, -9, -9], [0.1, 0.4, 9]]))
    cut, _ = room.render_labels(half, frame.camera, pose, snapshot)
    assert set(np.unique(cut)) == {0, 1} and ((cut == 1) == (labels == 1)).mean() > 0.99
    names = ["grey wall", *BOXES]
    dense, _ = room.render_labels(
        room.query(names, mode="argmax", snapshot=snapshot), frame.camera, pose, snapshot
    )
    assert (dense == frame.labels + 1).mean() > 0.85


def test_map_that_changed_since_the_answer_is_labelled_anew(room: Ovs3d) -> None:
    frame, snapshot = synthetic.make_frame(synthetic.orbit(7)[2]), room.snapshot()
    result = room.query(list(BOXES), snapshot=snapshot)
    rows = torch.arange(snapshot.num_gaussians - 1, -1, -1)
    names = ("packed_codes", "packed_levels", "weight", "views", "selection")
    tensors = {name: getattr(snapshot, name)[rows] for name in names}
    newer = dataclasses.replace(
        snapshot,
        version=snapshot.version + 1,
        gaussians={name: values.flip(0) for name, values in snapshot.gaussians.items()},
        **tensors,
    )
    before, after = (
        room.render_labels(result, frame.camera, frame.camtoworld, s)[0] for s in (snapshot, newer)
    )
    assert len(np.unique(before)) == 4 and (before == after).mean() > 0.999


def refined(room: Ovs3d, snapshot: MapSnapshot, ruled_out: str) -> RefinedField:
    """The lifted field of the boxes, with "blue box" at 0 wherever it is not the best name, or everywhere."""
    field = make_lifted_field(list(BOXES), room.config.refine, room.encode_text, snapshot)
    p, column = field.probabilities.clone(), field.names.index("blue box")
    p[(p.argmax(-1) != column) | (ruled_out == "everywhere"), column] = 0.0
    return dataclasses.replace(field, probabilities=p / p.sum(-1, keepdim=True))


def test_refined_name_at_zero_takes_no_pixels(room: Ovs3d) -> None:
    snapshot, frame = room.snapshot(), synthetic.make_frame(synthetic.orbit(7)[2])
    snapshot = dataclasses.replace(snapshot, refined=refined(room, snapshot, "elsewhere"))
    shown = []
    for names in (["blue box", "red box"], ["red box", "blue box"]):
        labels, _ = room.render_labels(
            room.query(names, snapshot=snapshot), frame.camera, frame.camtoworld, snapshot
        )
        shown.append(labels == 1 + names.index("red box"))
    assert shown[0].sum() > 50 and np.array_equal(*shown)


def test_found_prompt_has_objects_despite_refined_field(room: Ovs3d) -> None:
    snapshot = room.snapshot()
    snapshot = dataclasses.replace(snapshot, refined=refined(room, snapshot, "everywhere"))
    result = room.query(["blue box"], snapshot=snapshot)
    assert result.found.all() and result.objects
    assert np.linalg.norm(result.objects[0].center - synthetic.BLUE.center) < 0.3


def test_text_cache_embeds_a_text_once(room: Ovs3d, monkeypatch) -> None:
    room.query(["an orange"])  # and the negatives
    calls = []
    encode = room.clip.encode_text
    monkeypatch.setattr(
        room.clip, "encode_text", lambda prompts: calls.append(list(prompts)) or encode(prompts)
    )
    for _ in range(3):
        room.query(["an orange nobody asked for yet"])
    assert calls == [["an orange nobody asked for yet"]]


def test_threads_query_one_snapshot_at_once(room: Ovs3d) -> None:
    snapshot, answers, errors = room.snapshot(), [], []
    frame = synthetic.make_frames(1)[0]

    def ask(name: str) -> None:
        try:
            result = room.query([name], snapshot=snapshot)
            labels, _ = room.render_labels(result, frame.camera, frame.camtoworld, snapshot)
            answers.append((name, int((result.labels > 0).sum()), int((labels > 0).sum())))
        except Exception as error:  # handed to the main thread below
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(name,)) for name in [*BOXES, *BOXES]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors and len(answers) == 6 and len(set(answers)) == 3 and all(a[1] and a[2] for a in answers)
