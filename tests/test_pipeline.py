"""The whole system on a small coloured room: frames in, the right things found in the right places."""

from __future__ import annotations

import dataclasses
import threading

import cv2
import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.color_encoder import ColorEncoder

from ovs3d_ros.config import Config, override, restore_config, stored_settings
from ovs3d_ros.geometry import check_frame
from ovs3d_ros.map_file import load_map
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.semantics.class_field import make_lifted_field
from ovs3d_ros.types import Camera, CropTable, Frame, MapSnapshot, RefinedField, UserError

BOXES = {"red box": synthetic.RED, "green box": synthetic.GREEN, "blue box": synthetic.BLUE}


def build(count: int = 6, steps: int = 20, **settings) -> Ovs3d:
    return synthetic.build_map(synthetic.make_frames(count), steps, **settings)


@pytest.fixture(scope="module")
def room() -> Ovs3d:
    """A mapped room; tests must not change it."""
    return build()


def inside(box: synthetic.Box, points: np.ndarray, margin: float) -> np.ndarray:
    return (np.abs((points - box.center) @ box.rotation) < np.array(box.size) / 2 + margin).all(-1)


def test_things_are_found_where_they_stand(room: Ovs3d) -> None:
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


def test_the_answer_is_complete_and_consistent(room: Ovs3d) -> None:
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


def test_cosines_are_those_of_the_uncompressed_features(room: Ovs3d) -> None:
    """The code is long enough for the colours, so compression must change nothing."""
    snapshot = room.snapshot()
    texts = room.encode_text(["red", "green", "blue", "grey"])
    exact = torch.nn.functional.normalize(snapshot.codec.decode(snapshot.codes), dim=-1) @ texts.T
    known = snapshot.codes[:, -1] != 0
    got = snapshot.codes @ snapshot.codec.directions(texts)
    torch.testing.assert_close(got[known], exact[known], atol=1e-4, rtol=0)
    basis = ColorEncoder(None, "cpu").basis
    lost = snapshot.codec.decode(snapshot.codes)[known] @ basis[4:].T
    assert float(lost.abs().max()) < 1e-3  # no feature where no image has one


def test_argmax_labels_all_that_was_seen(room: Ovs3d) -> None:
    names = ["grey wall", *BOXES]
    snapshot = room.snapshot()
    labels = room.query(names, mode="argmax", snapshot=snapshot).labels.numpy()
    seen = ((snapshot.weight >= room.config.query.min_weight) & (snapshot.codes[:, -1] != 0)).numpy()
    assert ((labels > 0) == seen).all()
    means = snapshot.gaussians["means"].numpy()
    on_box = np.any([inside(box, means, 0.1) for box in BOXES.values()], axis=0)
    assert (labels[seen & ~on_box] == 1).mean() > 0.95


def test_argmax_is_by_cosine_however_high_the_temperature(room: Ovs3d, monkeypatch) -> None:
    """At 1000, relevancy rounds to 0 or 1 nearly everywhere."""
    names, snapshot = ["grey wall", *BOXES], room.snapshot()
    monkeypatch.setattr(
        room.queries, "calibration", dataclasses.replace(room.calibration, temperature=1000.0)
    )
    labels = room.query(names, mode="argmax", snapshot=snapshot).labels
    cosines = snapshot.codes @ snapshot.codec.directions(room.encode_text(names))
    assert torch.equal(labels[labels > 0], cosines.argmax(-1)[labels > 0] + 1)


def test_threshold_roi_and_instances_narrow_the_answer(room: Ovs3d) -> None:
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


def test_negatives_compete(room: Ovs3d) -> None:
    snapshot = room.snapshot()
    usual = room.query(["red box"], snapshot=snapshot)
    rivals = room.query(
        ["red box"], negatives=["red paint"], snapshot=snapshot
    )  # the same direction in this encoder
    assert float(usual.relevancy.max()) > 0.9
    assert float(rivals.relevancy.max()) == pytest.approx(0.5, abs=0.01)


def test_two_names_of_one_thing_both_have_a_place(room: Ovs3d) -> None:
    """The first takes every Gaussian of the box; what the second one's decision rests on is given back to it."""
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


def test_what_is_named_twice_is_found_twice_in_one_place(room: Ovs3d) -> None:
    once, twice = room.query(["blue box"]), room.query(["blue box", "red box", "blue box"])
    assert twice.found.all() and twice.labels.max() == 2
    blue = [(o.label, o.num_gaussians, o.center.tolist()) for o in twice.objects if o.prompt == "blue box"]
    expected = [(o.num_gaussians, o.center.tolist()) for o in once.objects]
    assert blue == [(1, *e) for e in expected] + [(3, *e) for e in expected]


def test_texts_are_not_kept_for_ever(room: Ovs3d, monkeypatch) -> None:
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


def test_presence_weighs_general_names_on_their_own_and_lets_synonyms_be(room: Ovs3d, tmp_path) -> None:
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
    # "red box" is a distractor itself, of cosine 1 with the prompt: it must not compete, or the margin would be 0.
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
def test_bad_questions_are_refused(room: Ovs3d, arguments: dict, word: str) -> None:
    with pytest.raises(UserError, match=word):
        room.query(**arguments)


def test_rendered_labels_segment_views_that_were_never_seen(room: Ovs3d) -> None:
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
    half = room.query(
        list(BOXES), snapshot=snapshot, roi=np.array([[-9, -9, -9], [0.1, 0.4, 9]])
    )  # the red box alone
    cut, _ = room.render_labels(half, frame.camera, pose, snapshot)
    assert set(np.unique(cut)) == {0, 1} and ((cut == 1) == (labels == 1)).mean() > 0.99
    names = ["grey wall", *BOXES]
    dense, _ = room.render_labels(
        room.query(names, mode="argmax", snapshot=snapshot), frame.camera, pose, snapshot
    )
    assert (dense == frame.labels + 1).mean() > 0.85


def refined(room: Ovs3d, snapshot: MapSnapshot, ruled_out: str) -> RefinedField:
    """A field of the boxes, as lifted, but with one name at 0 wherever it is not the best, or everywhere."""
    field = make_lifted_field(list(BOXES), room.config.refine, room.encode_text, snapshot)
    p, column = field.probabilities.clone(), field.names.index("blue box")
    p[(p.argmax(-1) != column) | (ruled_out == "everywhere"), column] = 0.0
    return dataclasses.replace(field, probabilities=p / p.sum(-1, keepdim=True))


def test_a_refined_name_at_zero_takes_no_pixel_from_the_others(room: Ovs3d) -> None:
    snapshot, frame = room.snapshot(), synthetic.make_frame(synthetic.orbit(7)[2])
    snapshot = dataclasses.replace(snapshot, refined=refined(room, snapshot, "elsewhere"))
    shown = []
    for names in (["blue box", "red box"], ["red box", "blue box"]):
        labels, _ = room.render_labels(
            room.query(names, snapshot=snapshot), frame.camera, frame.camtoworld, snapshot
        )
        shown.append(labels == 1 + names.index("red box"))
    assert shown[0].sum() > 50 and np.array_equal(*shown)


def test_what_is_found_has_a_place_though_the_refined_field_knows_none(room: Ovs3d) -> None:
    snapshot = room.snapshot()
    snapshot = dataclasses.replace(snapshot, refined=refined(room, snapshot, "everywhere"))
    result = room.query(["blue box"], snapshot=snapshot)
    assert result.found.all() and result.objects
    assert np.linalg.norm(result.objects[0].center - synthetic.BLUE.center) < 0.3


def test_features_of_keyframes_are_kept_at_half_precision(room: Ovs3d) -> None:
    frame, texts = synthetic.make_frames(6)[0], room.encode_text(list(BOXES))
    kept, exact = room.keyframes[0].crops.embeddings, room.clip.encode_image(frame.image).embeddings
    assert kept.dtype == torch.float16
    cosines = torch.nn.functional.normalize(exact, dim=-1) @ texts.T
    torch.testing.assert_close(kept.float() @ texts.T, cosines, atol=1e-3, rtol=0)


def test_render_shows_the_room(room: Ovs3d) -> None:
    frame = synthetic.make_frame(synthetic.orbit(6)[1])
    view = room.render(frame.camera, frame.camtoworld)
    error = (view.rgb - torch.from_numpy(frame.image) / 255).square().mean()
    assert -10 * float(torch.log10(error)) > 20
    looking_away = room.render(frame.camera, synthetic.look_at([0, -60, 0.5], [0, -90, 0.5]))
    assert float(looking_away.alpha.max()) == 0 and float(looking_away.depth.max()) == 0


def test_a_snapshot_does_not_change_when_the_map_does() -> None:
    pipeline = build(count=3, steps=5)
    snapshot = pipeline.snapshot()
    held = (
        {n: t.clone() for n, t in snapshot.gaussians.items()},
        snapshot.codes.clone(),
        snapshot.weight.clone(),
    )
    before = pipeline.query(["red box"], snapshot=snapshot)
    pipeline.add_frame(synthetic.make_frame(synthetic.orbit(9)[8], 50.0))
    pipeline.optimize(10)
    for _ in pipeline.relift():
        pass
    assert all(torch.equal(snapshot.gaussians[n], t) for n, t in held[0].items())
    assert torch.equal(snapshot.codes, held[1]) and torch.equal(snapshot.weight, held[2])
    again = pipeline.query(["red box"], snapshot=snapshot)
    assert torch.equal(again.labels, before.labels) and again.map_version == before.map_version
    assert pipeline.snapshot().version > snapshot.version


def test_a_saved_map_answers_the_same(room: Ovs3d, tmp_path) -> None:
    path = tmp_path / "room.ovs3d"
    room.save(path)
    again = Ovs3d.load(path)
    first, second = room.query(list(BOXES)), again.query(list(BOXES))
    assert second.found.tolist() == first.found.tolist()
    np.testing.assert_allclose(second.presence, first.presence, atol=2e-3)
    assert float((first.labels == second.labels).float().mean()) > 0.999  # codes are stored in half precision
    torch.testing.assert_close(second.relevancy, first.relevancy, atol=5e-3, rtol=0)
    frame = synthetic.make_frame(synthetic.orbit(6)[1])
    torch.testing.assert_close(
        again.render(frame.camera, frame.camtoworld).rgb,
        room.render(frame.camera, frame.camtoworld).rgb,
        atol=1e-5,
        rtol=0,
    )
    assert again.stats["steps"] == room.stats["steps"]
    again.save(path)  # and once more: nothing is lost on the way
    assert load_map(path)[1].names == [f"frame_{i}" for i in range(6)]


def test_loaded_map_keeps_how_it_was_made_only(room: Ovs3d, tmp_path) -> None:
    path = tmp_path / "room.ovs3d"
    before = room.config
    room.configure(
        override(before, {"query.presence": 0.9, "refine.background": ["sky"], "output.max_points": 500})
    )
    room.save(path)
    room.configure(before)
    again = Ovs3d.load(path, {"query.min_instance": 7}).config
    assert again == override(restore_config(stored_settings(before)), {"query.min_instance": 7})
    assert again.clip.model == before.clip.model and again.output == Config().output


class TwoLevels(ColorEncoder):
    """A pyramid of two levels: what is there, and the same blurred."""

    name = "tests/two-levels"

    def encode_image(self, image: np.ndarray) -> CropTable:
        levels = [
            super(TwoLevels, self).encode_image(pixels)
            for pixels in (image, cv2.GaussianBlur(image, (0, 0), 12))
        ]
        scales = torch.arange(2).repeat_interleave(len(levels[0].boxes))
        return CropTable(
            torch.cat([level.boxes for level in levels]),
            scales,
            torch.cat([level.embeddings for level in levels]),
            2,
        )


def test_codes_blend_the_levels_as_selected_and_share_memory_where_there_is_one(room: Ovs3d) -> None:
    pipeline = build(count=3, steps=5, clip__model=f"{__name__}:TwoLevels", lift__selection="uniform")
    pipeline.recalibrate(distractors=("red", "green", "blue", "grey"))
    snapshot = pipeline.snapshot()
    known = snapshot.codes[:, -1] != 0
    first, second = snapshot.level_codes[known].unbind(1)
    middle = snapshot.codec.normalize(first + second)
    torch.testing.assert_close(snapshot.codes[known], middle, atol=1e-4, rtol=0)
    assert float((first - second).norm(dim=-1).median()) > 0.02, "the levels differ"
    pipeline.configure(override(pipeline.config, {"lift.selection": "sharp"}))
    chosen = pipeline.snapshot()
    weights = torch.softmax(chosen.selection[known], dim=-1)
    assert float(weights.amax(-1).mean()) > 0.6, "one level speaks for most"
    expected = snapshot.codec.normalize(weights[:, :1] * first + weights[:, 1:] * second)
    torch.testing.assert_close(chosen.codes[known], expected, atol=1e-4, rtol=0)
    single = room.snapshot()
    assert single.codes.data_ptr() == single.level_codes.data_ptr() and not single.selection.any()


def test_versions_never_go_back(room: Ovs3d, tmp_path) -> None:
    """A client that has seen version 9 must not be told that 3 is newer."""
    room.save(tmp_path / "room.ovs3d")
    params, past = load_map(tmp_path / "room.ovs3d")
    fresh = Ovs3d(room.config)
    fresh.restore(params, past, "room")
    assert fresh.snapshot().version > past.version
    for _ in range(5):
        newest = fresh.snapshot().version
    fresh.restore(params, past, "room")
    assert fresh.snapshot().version > newest


def test_a_loaded_map_refuses_another_encoder_and_another_degree(room: Ovs3d, tmp_path) -> None:
    path = tmp_path / "room.ovs3d"
    room.save(path)
    with pytest.raises(UserError, match=r"tests/colors.*tests/other"):
        Ovs3d.load(path, {"clip.model": f"{__name__}:OtherEncoder"})
    with pytest.raises(UserError, match="sh_degree"):
        Ovs3d.load(path, {"map.sh_degree": 2})
    other = Ovs3d(synthetic.make_config(clip__model=f"{__name__}:OtherEncoder"))
    with pytest.raises(UserError, match="tests/colors"):
        other.query(["red"], snapshot=room.snapshot())


class OtherEncoder(ColorEncoder):
    name = "tests/other"


def test_a_map_of_other_levels_answers_but_does_not_grow(room: Ovs3d, tmp_path) -> None:
    room.save(tmp_path / "room.ovs3d")
    loaded = Ovs3d.load(tmp_path / "room.ovs3d")
    encode = loaded.clip.encode_image

    def pyramid(image: np.ndarray) -> CropTable:
        table = encode(image)
        return dataclasses.replace(table, levels=torch.arange(len(table.boxes)) % 2, num_levels=2, grid=None)

    loaded.clip.encode_image = pyramid
    with pytest.raises(UserError, match=r"at 2 levels, but the map has features of 1: set clip\.mode"):
        loaded.add_frame(synthetic.make_frames(12)[5])
    assert not loaded.keyframes and loaded.query(["red box"]).found.all()


def test_a_map_opened_without_its_encoder_is_saved_whole(room: Ovs3d, tmp_path) -> None:
    room.save(tmp_path / "room.ovs3d")
    Ovs3d.load(tmp_path / "room.ovs3d", encode=False).save(tmp_path / "again.ovs3d")
    assert Ovs3d.load(tmp_path / "again.ovs3d").query(["red box"]).found.all()


def test_a_loaded_map_grows_without_forgetting(room: Ovs3d, tmp_path) -> None:
    path = tmp_path / "room.ovs3d"
    room.save(path)
    again = Ovs3d.load(path)
    before = again.query(list(BOXES))
    # A corner with nothing but a red thing: its words alone would make a poor code for green and blue.
    corner = (synthetic.ROOM, synthetic.Box((0.0, -2.2, 0.3), (0.4, 0.4, 0.6), (215, 40, 35), 1))
    for index, x in enumerate((-0.3, 0.3)):
        pose = synthetic.look_at([x, -0.9, 0.6], [0, -2.2, 0.3])
        assert again.add_frame(synthetic.make_frame(pose, 100.0 + index, scene=corner))
    again.optimize(3)
    for _ in again.relift():
        pass
    after = again.query(list(BOXES))
    assert after.found.tolist() == before.found.tolist() == [True] * 3
    centers = [
        next(o.center for o in after.objects if o.prompt == name) for name in ("green box", "blue box")
    ]
    for center, box in zip(centers, (synthetic.GREEN, synthetic.BLUE), strict=True):
        assert np.linalg.norm(center - box.center) < 0.2
    assert any(
        np.linalg.norm(o.center - [0, -2.2, 0.3]) < 0.35 for o in after.objects if o.prompt == "red box"
    )
    assert len(again.snapshot().names) == 8


def test_rgb_only_maps_have_no_features_and_say_so(tmp_path) -> None:
    pipeline = Ovs3d(synthetic.make_config(clip__model="no_such_package:Encoder"), encode=False)
    pipeline.add_frame(synthetic.make_frames(1)[0])
    pipeline.optimize(2)
    with pytest.raises(UserError):
        pipeline.query(["red box"])
    pipeline.save(tmp_path / "m.ovs3d")
    again = Ovs3d.load(tmp_path / "m.ovs3d")
    assert again.clip is None and again.stats["num_gaussians"] == pipeline.stats["num_gaussians"]


def test_an_empty_map_says_what_to_do() -> None:
    pipeline = Ovs3d(synthetic.make_config())
    with pytest.raises(UserError, match="frames first"):
        pipeline.query(["red box"])
    with pytest.raises(UserError, match="frames first"):
        pipeline.optimize(3)
    assert list(pipeline.relift()) == [] and pipeline.snapshot().num_gaussians == 0


def test_a_missing_encoder_is_named() -> None:
    with pytest.raises(UserError, match="no_such_package"):
        Ovs3d(synthetic.make_config(clip__model="no_such_package:Encoder"))


def test_standing_still_makes_no_keyframes() -> None:
    pipeline = Ovs3d(synthetic.make_config())
    frame = synthetic.make_frames(1)[0]
    assert [pipeline.add_frame(dataclasses.replace(frame, stamp=float(i))) for i in range(4)] == [True] + [
        False
    ] * 3
    assert pipeline.stats["frames"] == 4 and pipeline.stats["keyframes"] == 1


def test_images_are_mapped_at_the_mapping_resolution() -> None:
    pipeline = Ovs3d(synthetic.make_config(map__image_size=32))
    pipeline.add_frame(synthetic.make_frames(1)[0])
    (keyframe,) = pipeline.keyframes
    assert keyframe.image.shape == (24, 32, 3) and keyframe.depth.shape == (24, 32)
    rgb, depth, _ = synthetic.ray_cast(keyframe.camera, keyframe.camtoworld)
    assert float((keyframe.rgb - torch.from_numpy(rgb) / 255).abs().mean()) < 0.03
    assert float(((keyframe.depth - torch.from_numpy(depth)).abs() / torch.from_numpy(depth)).median()) < 0.02
    assert keyframe.crops.grid == (12, 16)  # the encoder saw the full image


def broken_frames() -> dict[str, tuple[Frame, str]]:
    good = synthetic.make_frames(1)[0]
    replace = dataclasses.replace
    nan = good.camtoworld.copy()
    nan[0, 0] = np.nan
    depth = good.depth.copy()
    depth[0, 0] = np.nan
    return {
        "pose": (replace(good, camtoworld=nan), "NaN"),
        "scale": (replace(good, camtoworld=good.camtoworld * 2), "rotation"),
        "focal": (replace(good, camera=Camera(np.zeros((3, 3)), 64, 48)), "focal"),
        "size": (replace(good, camera=synthetic.make_camera(32, 24)), "32x24"),
        "type": (replace(good, image=good.image.astype(np.float32)), "uint8"),
        "grey": (replace(good, image=good.image[..., 0]), "uint8"),
        "depth size": (replace(good, depth=good.depth[:10]), "depth"),
        "depth type": (replace(good, depth=(good.depth * 1000).astype(np.uint16)), "float32"),
        "depth nan": (replace(good, depth=depth), "NaN"),
        "depth sign": (replace(good, depth=-good.depth), "negative"),
    }


@pytest.mark.parametrize("kind", broken_frames())
def test_unusable_frames_are_refused_and_the_map_survives(room: Ovs3d, kind: str) -> None:
    frame, word = broken_frames()[kind]
    before = room.stats, len(room.keyframes)
    with pytest.raises(UserError, match=word) as caught:
        room.add_frame(frame)
    assert "frame_0" in str(caught.value) and "\n" not in str(caught.value)
    assert (room.stats, len(room.keyframes)) == before
    with pytest.raises(UserError):
        check_frame(frame)


def test_texts_are_embedded_once(room: Ovs3d, monkeypatch) -> None:
    room.query(["an orange"])  # and the negatives
    calls = []
    encode = room.clip.encode_text
    monkeypatch.setattr(
        room.clip, "encode_text", lambda prompts: calls.append(list(prompts)) or encode(prompts)
    )
    for _ in range(3):
        room.query(["an orange nobody asked for yet"])
    assert calls == [["an orange nobody asked for yet"]]


def test_many_threads_may_ask_at_once(room: Ovs3d) -> None:
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


def test_ply_holds_every_gaussian(room: Ovs3d, tmp_path) -> None:
    room.export_ply(tmp_path / "s.ply")
    assert (
        f"element vertex {room.stats['num_gaussians']}\n".encode() in (tmp_path / "s.ply").read_bytes()[:200]
    )
