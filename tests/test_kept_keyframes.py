"""A map file with keyframes: the map goes on as if it had never been closed."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from helpers import synthetic
from safetensors import safe_open
from safetensors.torch import save_file

from ovs3d_ros.io.keyframes import pack_training, unpack_training
from ovs3d_ros.map_file import load_map, save_map
from ovs3d_ros.mapping.keyframes import make_keyframe
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import TrainingState, UserError

BOXES = ["red box", "green box", "blue box"]
FRAMES = synthetic.make_frames(8)
SHIFT = np.array([[1, 0, 0, 0.4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def masked(frame):
    """The frame with a masked corner."""
    mask = np.ones(frame.image.shape[:2], bool)
    mask[:9, :9] = False
    return dataclasses.replace(frame, mask=mask)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A map of six keyframes, the file that keeps them."""
    path = tmp_path_factory.mktemp("maps") / "room.ovs3d"
    frames = [masked(FRAMES[0]), *FRAMES[1:6]]
    room = synthetic.build_map(frames, steps=40, map__keep_keyframes=True)
    room.save(path)
    return room, path


def test_keyframes_come_back_as_they_were(saved) -> None:
    room, path = saved
    again = Ovs3d.load(path, training=True)
    assert len(again.keyframes) == 6
    for kept, was in zip(again.keyframes, room.keyframes, strict=True):
        assert torch.equal(kept.image, was.image) and (kept.mask is None) == (was.mask is None)
        assert (kept.stamp, kept.name, kept.sensor, kept.index) == (
            was.stamp,
            was.name,
            was.sensor,
            was.index,
        )
        np.testing.assert_allclose(kept.camtoworld, was.camtoworld, atol=1e-9)
        assert ((kept.depth > 0) == (was.depth > 0)).all()
        torch.testing.assert_close(kept.depth, was.depth, atol=1e-4, rtol=0)
        assert torch.equal(kept.crops.embeddings, was.crops.embeddings) and kept.crops.grid == was.crops.grid
    assert torch.equal(again.keyframes[0].mask, room.keyframes[0].mask)
    log, before = again.map.mapper.log, room.map.mapper.log
    assert log.visits == before.visits and log.median_depths == pytest.approx(before.median_depths)
    torch.testing.assert_close(log.exposure.rows(), before.exposure.rows())
    assert again.snapshot().names == room.snapshot().names and again.stats["steps"] == room.stats["steps"]


def test_small_depth_beside_a_large_one_is_still_there() -> None:
    frame = synthetic.make_frame(synthetic.orbit(4)[0])
    frame.depth[:] = 200.0
    frame.depth[0, :3] = 0.001, 0.004, 0.0
    keyframe = make_keyframe(frame, 0, 0, 1e3, "cpu")
    state = TrainingState([keyframe], [0], [1.0], torch.zeros(1, 2, 3), torch.zeros(0, dtype=torch.int64))
    tensors, entry = pack_training(state)
    views = [(keyframe.stamp, keyframe.name, keyframe.camera, keyframe.camtoworld)]
    depth = unpack_training(tensors, entry, views).keyframes[0].depth
    assert (depth[0, :3] > 0).tolist() == [True, True, False]
    torch.testing.assert_close(depth, keyframe.depth, atol=200 / 65535, rtol=0)


def test_map_goes_on_like_one_that_was_never_closed(saved) -> None:
    """Runs that differ in their random numbers alone are 0.4 dB apart; without keyframes 4 dB are lost."""
    _, path = saved
    never_closed = synthetic.build_map([masked(FRAMES[0]), *FRAMES[1:6]], steps=40)
    pose = synthetic.orbit(16)[5]  # among the first views
    view, figures = synthetic.make_frame(pose), []
    for pipeline in (never_closed, Ovs3d.load(path, training=True), Ovs3d.load(path)):
        for frame in FRAMES[6:]:
            assert pipeline.add_frame(frame)
        pipeline.optimize(60)
        for _ in pipeline.relift():
            pass
        error = (pipeline.render(view.camera, pose).rgb - torch.from_numpy(view.image) / 255).square().mean()
        labels, _ = pipeline.render_labels(pipeline.query(BOXES), view.camera, pose, pipeline.snapshot())
        both, either = (
            [combine(labels == n, view.labels == n).sum() for n in (1, 2, 3)]
            for combine in (np.logical_and, np.logical_or)
        )
        figures.append((-10 * float(error.log10()), float(np.divide(both, either).mean())))
        assert len(pipeline.snapshot().names) == 8
    (whole_psnr, whole_iou), (psnr, iou), (forgetful_psnr, _) = figures
    assert abs(psnr - whole_psnr) < 1.0 and abs(iou - whole_iou) < 0.04, figures
    assert forgetful_psnr < psnr - 2, figures


def test_loop_closure_moves_a_loaded_map(saved) -> None:
    _, path = saved
    again = Ovs3d.load(path, training=True)
    before = again.query(BOXES)
    moves = {keyframe.index: SHIFT @ keyframe.camtoworld for keyframe in again.keyframes}
    assert again.move_keyframes(moves) == again.stats["num_gaussians"]
    after = again.query(BOXES)
    for name in BOXES:
        first, second = (next(o for o in r.objects if o.prompt == name) for r in (before, after))
        np.testing.assert_allclose(second.center - first.center, [0.4, 0, 0], atol=0.02)


def test_keyframes_are_kept_when_the_map_is_saved_again(saved, tmp_path) -> None:
    _, path = saved
    Ovs3d.load(path, training=True).save(tmp_path / "again.ovs3d")
    first, second = (load_map(p, training=True)[1].training for p in (path, tmp_path / "again.ovs3d"))
    assert torch.equal(first.owners, second.owners)
    assert all(torch.equal(a.image, b.image) for a, b in zip(first.keyframes, second.keyframes, strict=True))


def test_file_without_keyframes_says_that_it_cannot_keep_them(tmp_path, caplog) -> None:
    synthetic.build_map(FRAMES[:3], steps=2).save(tmp_path / "old.ovs3d")
    assert load_map(tmp_path / "old.ovs3d", training=True)[1].training is None
    again = Ovs3d.load(tmp_path / "old.ovs3d", {"map.keep_keyframes": True}, training=True)
    assert again.add_frame(FRAMES[5])
    again.save(tmp_path / "new.ovs3d")
    assert "some came from a map file without their images" in caplog.text
    assert load_map(tmp_path / "new.ovs3d", training=True)[1].training is None


def test_queries_do_not_read_the_keyframes(saved) -> None:
    _, path = saved
    assert load_map(path)[1].training is None and Ovs3d.load(path).query(BOXES).found.all()
    assert len(Ovs3d.load(path).keyframes) == 0


GARBLED = {
    "image": (dict(keyframe_images=torch.zeros(9, dtype=torch.uint8)), "image of keyframe 0 is garbled"),
    "owners": (dict(keyframe_owners=torch.zeros(3, dtype=torch.int32)), "keyframe_owners has shape"),
    "type": (dict(keyframe_owners=torch.zeros(3, dtype=torch.int64)), "keyframe_owners holds"),
    "exposures": (dict(keyframe_exposures=torch.zeros(2, 2, 3)), "keyframe_exposures has shape"),
    "embeddings": (dict(crop_embeddings=torch.zeros(4, 3).half()), "features of a keyframe|another length"),
    "levels": (dict(crop_levels=None), "crop_levels"),
}


@pytest.mark.parametrize("part", GARBLED)
def test_garbled_keyframes_are_refused(saved, part: str, tmp_path) -> None:
    changes, words = GARBLED[part]
    with safe_open(saved[1], "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()} | changes  # noqa: SIM118
        header = json.loads(file.metadata()["ovs3d"])
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, tmp_path / "bad.ovs3d", metadata={"ovs3d": json.dumps(header)})
    with pytest.raises(UserError, match=words):
        load_map(tmp_path / "bad.ovs3d", training=True)


def test_rescued_map_keeps_its_keyframes_without_bad_gaussians(saved, tmp_path, caplog) -> None:
    params, snapshot = saved[0].freeze()
    params["means"][5] = float("nan")
    save_map(tmp_path / "rescued.ovs3d", params, snapshot)
    training = load_map(tmp_path / "rescued.ovs3d", training=True)[1].training
    rows = torch.arange(len(params["means"])) != 5
    assert torch.equal(training.owners, snapshot.training.owners[rows]) and len(training.keyframes) == 6
    poses = snapshot.camtoworlds.copy()
    poses[2, 0, 3] = 1e39
    snapshot = dataclasses.replace(snapshot, camtoworlds=poses)
    save_map(tmp_path / "rescued.ovs3d", params, snapshot)
    past = load_map(tmp_path / "rescued.ovs3d", training=True)[1]
    assert past.training is None and len(past.names) == 5
    assert "images of the keyframes are not saved either" in caplog.text


def test_learning_rates_of_a_loaded_map_begin_anew(saved) -> None:
    again = Ovs3d.load(saved[1], training=True)
    again.optimize(1, horizon=again.stats["steps"] + 10)
    rates = again.map.mapper.gaussians.adam.rates
    expected = again.config.train.lr_means * again.map.mapper.gaussians.extent
    assert rates["means"] == pytest.approx(expected, rel=0.01), "as at the start of a run"
