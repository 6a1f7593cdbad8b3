"""A map far from the origin of its world is as good as one near it, and all its outputs are in the world."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.ply import read_ply
from safetensors import safe_open

from ovs3d_ros.io.ply import write_ply
from ovs3d_ros.io.splat import write_splat
from ovs3d_ros.map_file import load_map, save_map
from ovs3d_ros.map_frame import frame_to_map, params_to_world
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Frame, MapFrame, UserError

UTM = np.array([449_000.25, 4_158_000.5, 12.0])  # float32 resolves 0.5 m there
NAMES = ["red box", "green box", "blue box"]
BOXES = (synthetic.RED, synthetic.GREEN, synthetic.BLUE)


def moved(pose: np.ndarray, shift: np.ndarray = UTM) -> np.ndarray:
    pose = pose.copy()
    pose[:3, 3] += shift
    return pose


def far_frames(count: int) -> list[Frame]:
    return [replace(frame, camtoworld=moved(frame.camtoworld)) for frame in synthetic.make_frames(count)]


@pytest.fixture(scope="module")
def near() -> Ovs3d:
    return synthetic.build_map(synthetic.make_frames(6))


@pytest.fixture(scope="module")
def far() -> Ovs3d:
    """Tests must not change it."""
    return synthetic.build_map(far_frames(6))


def test_far_map_renders_as_a_near_one(near: Ovs3d, far: Ovs3d) -> None:
    pose = synthetic.orbit(11)[3]
    frame = synthetic.make_frame(pose)
    expected, found = near.render(frame.camera, pose), far.render(frame.camera, moved(pose))
    truth = torch.from_numpy(frame.image) / 255

    def error(view) -> float:
        return float((view.rgb - truth).square().mean().sqrt())

    assert error(found) < error(expected) + 0.005
    solid = (expected.alpha > 0.9) & (found.alpha > 0.9)
    assert float((expected.depth - found.depth)[solid].abs().median()) < 0.005


def test_far_objects_and_regions_are_in_the_world(far: Ovs3d) -> None:
    answer = far.query(NAMES)
    assert answer.found.all()
    for name, box in zip(NAMES, BOXES, strict=True):
        item = next(o for o in answer.objects if o.prompt == name)
        assert np.linalg.norm(item.center - (UTM + box.center)) < 0.2
    red = UTM + synthetic.RED.center
    region = np.stack([red - 0.5, red + 0.5])
    (only,) = {o.prompt for o in far.query(NAMES, roi=region).objects}
    assert only == "red box"
    labels, _ = far.render_labels(
        far.query(NAMES, roi=region), *far_view(far), far.snapshot()
    )  # pixels keep to the region, too
    assert set(np.unique(labels)) == {0, 1}


def far_view(far: Ovs3d) -> tuple:
    snapshot = far.snapshot()
    return snapshot.cameras[3], snapshot.camtoworlds[3]


def test_poses_of_a_far_map_are_in_the_world(far: Ovs3d) -> None:
    poses = np.stack([frame.camtoworld for frame in far_frames(6)])
    np.testing.assert_allclose(far.snapshot().camtoworlds, poses, atol=1e-8)
    np.testing.assert_allclose(np.stack([k.camtoworld for k in far.keyframes]), poses, atol=1e-8)


def test_keyframes_of_a_near_map_are_its_own(near: Ovs3d) -> None:
    assert all(shown is kept for shown, kept in zip(near.keyframes, near.map.mapper.keyframes, strict=True))


def test_frames_of_a_near_map_are_not_copied() -> None:
    """Every image of a robot passes here, also those that do not become keyframes."""
    frame = synthetic.make_frames(1)[0]
    assert frame_to_map(frame, MapFrame()) is frame
    assert frame_to_map(frame, MapFrame(UTM)).depth is frame.depth


def test_far_map_survives_its_file_and_grows(far: Ovs3d, tmp_path) -> None:
    path = tmp_path / "far.ovs3d"
    far.save(path)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["ovs3d"])["format_version"] >= 2, "older readers must refuse it"
    again = Ovs3d.load(path)
    pose = moved(synthetic.orbit(11)[4])
    camera = synthetic.make_camera()
    torch.testing.assert_close(
        again.render(camera, pose).rgb, far.render(camera, pose).rgb, atol=1e-5, rtol=0
    )
    before = again.query(NAMES)
    for index, x in enumerate((-0.3, 0.3)):
        view = synthetic.look_at([x, -0.9, 0.6], [0, -2.2, 0.3])
        assert again.add_frame(replace(synthetic.make_frame(view, 100.0 + index), camtoworld=moved(view)))
    again.optimize(3)
    after = again.query(NAMES)
    for name in NAMES:
        first, second = (next(o for o in answer.objects if o.prompt == name) for answer in (before, after))
        assert np.linalg.norm(first.center - second.center) < 0.2
    again.save(path)
    np.testing.assert_array_equal(load_map(path)[1].frame.origin, far.snapshot().frame.origin)


def test_near_map_is_in_the_frame_of_the_world(near: Ovs3d, tmp_path) -> None:
    near.save(tmp_path / "near.ovs3d")
    assert not load_map(tmp_path / "near.ovs3d")[1].frame.origin.any()


def test_ply_of_a_far_map_has_world_coordinates_in_full(far: Ovs3d, tmp_path) -> None:
    far.export_ply(tmp_path / "far.ply")
    table = read_ply(tmp_path / "far.ply")
    points = np.stack([table[axis] for axis in "xyz"], 1) - UTM
    assert (np.abs(points - [0, 0, 1]) < 4).all()
    # Each Gaussian has a place of its own; float32 would leave about ten distinct y values.
    assert len(np.unique(points[:, 1])) > 0.9 * len(points)


def test_far_map_is_refused_by_formats_of_single_precision(far: Ovs3d, tmp_path) -> None:
    params, snapshot = far.freeze()
    with pytest.raises(UserError, match=r"too far from the origin.*--local"):
        write_splat(tmp_path / "far.splat", params_to_world(params, snapshot.frame))
    write_splat(tmp_path / "far.splat", params)
    write_ply(tmp_path / "local.ply", params)
    assert np.abs(read_ply(tmp_path / "local.ply")["y"]).max() < 5


def test_loop_closure_moves_far_keyframes_and_their_gaussians() -> None:
    far = synthetic.build_map(far_frames(3), steps=2)
    shift = np.array([0.5, -0.25, 0.0])
    before = far.query(NAMES)
    assert before.found.all()
    moves = {k.index: moved(k.camtoworld, shift) for k in far.keyframes}
    assert far.move_keyframes(moves) == far.stats["num_gaussians"]
    np.testing.assert_allclose(far.keyframes[1].camtoworld, moves[1], atol=1e-8)
    after = far.query(NAMES)
    for first, second in zip(before.objects, after.objects, strict=True):
        np.testing.assert_allclose(second.center - first.center, shift, atol=1e-3)


def test_far_points_are_seeds_at_their_places() -> None:
    far = Ovs3d(synthetic.make_config())
    points = UTM + np.random.default_rng(0).uniform(-1, 1, (300, 3))
    far.add_points(points, np.zeros((300, 3), np.uint8), np.array([UTM + [0, 0, 3.0]]))
    snapshot = far.snapshot()
    means = snapshot.gaussians["means"].numpy().astype(np.float64) + snapshot.frame.origin
    np.testing.assert_allclose(np.sort(means, axis=0), np.sort(points, axis=0), atol=1e-5)
    assert float(snapshot.gaussians["scales"].max()) < 0.5


def test_origin_is_chosen_anew_after_a_reset() -> None:
    far = synthetic.build_map(far_frames(2), steps=1)
    far.reset()
    for frame in synthetic.make_frames(2):
        far.add_frame(frame)
    assert not far.snapshot().frame.origin.any()


def test_keyframes_that_leave_the_reach_of_float32_are_reported_once(caplog) -> None:
    room = Ovs3d(synthetic.make_config())
    for frame in synthetic.make_frames(2):
        room.add_frame(frame)
    for frame in far_frames(3):
        room.add_frame(replace(frame, stamp=frame.stamp + 10))
    (message,) = [r.getMessage() for r in caplog.records if "from where the map began" in r.getMessage()]
    assert "4158 km" in message and "begin a new map" in message


def test_garbled_origin_is_refused(far: Ovs3d, tmp_path) -> None:
    params, snapshot = far.freeze()
    save_map(tmp_path / "m.ovs3d", params, replace(snapshot, frame=MapFrame(np.array([1e12, 0, 0]))))
    with pytest.raises(UserError, match="origin"):
        load_map(tmp_path / "m.ovs3d")


def centimetre_frames(count: int) -> list[Frame]:
    frames = synthetic.make_frames(count)
    for frame in frames:
        frame.camtoworld[:3, 3] *= 100
    return [replace(frame, depth=frame.depth * 100) for frame in frames]


@pytest.fixture(scope="module")
def centimetres() -> Ovs3d:
    """Tests must not change it."""
    return synthetic.build_map(centimetre_frames(6), map__unit=0.01)


def test_map_in_centimetres_answers_in_centimetres(near: Ovs3d, centimetres: Ovs3d) -> None:
    answer = centimetres.query(NAMES)
    assert answer.found.all()
    for name, box in zip(NAMES, BOXES, strict=True):
        item = next(o for o in answer.objects if o.prompt == name)
        assert np.linalg.norm(item.center - 100 * np.array(box.center)) < 20
        metres = next(o for o in near.query(NAMES).objects if o.prompt == name)
        np.testing.assert_allclose(np.sort(item.size), 100 * np.sort(metres.size), rtol=0.15)
    red = 100 * np.array(synthetic.RED.center)
    assert {o.prompt for o in centimetres.query(NAMES, roi=[red - 50, red + 50]).objects} == {"red box"}


def test_map_in_centimetres_renders_and_keeps_its_views_in_centimetres(
    near: Ovs3d, centimetres: Ovs3d
) -> None:
    frame, pose = centimetre_frames(11)[3], synthetic.orbit(11)[3]
    view, metres = centimetres.render(frame.camera, frame.camtoworld), near.render(frame.camera, pose)
    solid = (view.alpha > 0.9) & (metres.alpha > 0.9)
    assert float((view.depth - 100 * metres.depth)[solid].abs().median()) < 0.5
    keyframe = centimetres.keyframes[2]
    original = centimetre_frames(6)[2]
    np.testing.assert_allclose(keyframe.camtoworld, original.camtoworld, atol=1e-9)
    np.testing.assert_allclose(keyframe.depth.numpy(), original.depth, rtol=1e-5)


def test_map_in_centimetres_is_saved_and_exported_in_centimetres(centimetres: Ovs3d, tmp_path) -> None:
    centimetres.save(tmp_path / "cm.ovs3d")
    again = Ovs3d.load(tmp_path / "cm.ovs3d")
    assert again.snapshot().frame.unit == 0.01
    pose, camera = centimetre_frames(3)[1].camtoworld, synthetic.make_camera()
    torch.testing.assert_close(again.render(camera, pose).rgb, centimetres.render(camera, pose).rgb)
    again.export_ply(tmp_path / "cm.ply")
    table = read_ply(tmp_path / "cm.ply")
    assert table["x"].dtype == np.float32 and 180 < np.abs(table["x"]).max() < 300
    scales = np.exp(np.stack([table[f"scale_{axis}"] for axis in range(3)], 1))
    expected = again.snapshot().gaussians["scales"].numpy() * 100
    np.testing.assert_allclose(scales, expected, rtol=1e-4)


def test_far_map_in_centimetres_has_its_places() -> None:
    frames = centimetre_frames(3)
    for frame in frames:
        frame.camtoworld[:3, 3] += 100 * UTM
    objects = synthetic.build_map(frames, map__unit=0.01).query(NAMES).objects
    assert {item.prompt for item in objects} == set(NAMES)
    for item in objects:
        box = BOXES[NAMES.index(item.prompt)]
        assert np.linalg.norm(item.center - 100 * (UTM + box.center)) < 25
