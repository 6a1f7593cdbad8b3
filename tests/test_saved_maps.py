"""Saved maps answer the same, refuse other encoders and frames, and grow."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.color_encoder import ColorEncoder

from ovs3d_ros.config import Config, override, restore_config, stored_settings
from ovs3d_ros.map_file import load_map
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import CropTable, UserError

BOXES = {"red box": synthetic.RED, "green box": synthetic.GREEN, "blue box": synthetic.BLUE}


@pytest.fixture(scope="module")
def room() -> Ovs3d:
    """A mapped room; tests must not change it."""
    return synthetic.build_map(synthetic.make_frames(6))


def test_saved_map_answers_the_same(room: Ovs3d, tmp_path) -> None:
    path = tmp_path / "room.ovs3d"
    room.save(path)
    again = Ovs3d.load(path)
    first, second = room.query(list(BOXES)), again.query(list(BOXES))
    assert second.found.tolist() == first.found.tolist()
    np.testing.assert_allclose(second.presence, first.presence, atol=1e-5)
    assert torch.equal(first.labels, second.labels)
    torch.testing.assert_close(second.relevancy, first.relevancy, atol=1e-5, rtol=0)
    frame = synthetic.make_frame(synthetic.orbit(6)[1])
    torch.testing.assert_close(
        again.render(frame.camera, frame.camtoworld).rgb,
        room.render(frame.camera, frame.camtoworld).rgb,
        atol=1e-5,
        rtol=0,
    )
    assert again.stats["steps"] == room.stats["steps"]
    assert again.stats["psnr"] == pytest.approx(room.stats["psnr"], abs=1e-4)
    again.save(path)  # and once more: nothing is lost on the way
    assert load_map(path)[1].names == [f"frame_{i}" for i in range(6)]


def test_loaded_map_answers_the_same_after_its_file_changed(room: Ovs3d, tmp_path) -> None:
    path = tmp_path / "room.ovs3d"
    room.save(path)
    again = Ovs3d.load(path)
    before = again.query(list(BOXES))
    with open(path, "r+b") as file:  # as `cp` and `rsync --inplace` do
        file.write(bytes(path.stat().st_size))
        file.truncate(100)
    after = again.query(list(BOXES))
    assert torch.equal(after.relevancy, before.relevancy) and torch.equal(after.labels, before.labels)
    again.save(tmp_path / "again.ovs3d")
    assert Ovs3d.load(tmp_path / "again.ovs3d").query(list(BOXES)).found.all()


def test_loaded_map_keeps_mapping_settings_only(room: Ovs3d, tmp_path) -> None:
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


def test_map_versions_never_decrease(room: Ovs3d, tmp_path) -> None:
    """A client that has seen version 9 must not be told that 3 is newer."""
    room.save(tmp_path / "room.ovs3d")
    params, loaded = load_map(tmp_path / "room.ovs3d")
    fresh = Ovs3d(room.config)
    fresh.restore(params, loaded, "room")
    assert fresh.snapshot().version > loaded.version
    for _ in range(5):
        newest = fresh.snapshot().version
    fresh.restore(params, loaded, "room")
    assert fresh.snapshot().version > newest


def test_load_refuses_other_encoder_and_degree(room: Ovs3d, tmp_path) -> None:
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


def test_loaded_map_refuses_frames_of_other_levels(room: Ovs3d, tmp_path) -> None:
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


def test_map_opened_without_encoder_keeps_features(room: Ovs3d, tmp_path) -> None:
    room.save(tmp_path / "room.ovs3d")
    Ovs3d.load(tmp_path / "room.ovs3d", encode=False).save(tmp_path / "again.ovs3d")
    assert Ovs3d.load(tmp_path / "again.ovs3d").query(["red box"]).found.all()


def test_loaded_map_grows_and_keeps_its_objects(room: Ovs3d, tmp_path) -> None:
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


def test_map_of_colours_only_refuses_queries(tmp_path) -> None:
    pipeline = Ovs3d(synthetic.make_config(clip__model="no_such_package:Encoder"), encode=False)
    pipeline.add_frame(synthetic.make_frames(1)[0])
    pipeline.optimize(2)
    with pytest.raises(UserError):
        pipeline.query(["red box"])
    pipeline.save(tmp_path / "m.ovs3d")
    again = Ovs3d.load(tmp_path / "m.ovs3d")
    assert again.clip is None and again.stats["num_gaussians"] == pipeline.stats["num_gaussians"]
