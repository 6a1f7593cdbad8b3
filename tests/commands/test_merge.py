"""`ovs3d merge`: two map files become one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.command_line import assert_one_line, ovs3d
from helpers.stored_maps import move, random_motion

from ovs3d_ros.map_file import load_map, save_map
from ovs3d_ros.merging.merge import StoredMap


@pytest.fixture(scope="module")
def elsewhere(mapped, tmp_path_factory):
    """The map in another frame, and the motion back."""
    motion = random_motion(1, 2.0)
    stored = move(StoredMap(*load_map(mapped[0]), "there"), motion)
    path = tmp_path_factory.mktemp("elsewhere") / "there.ovs3d"
    save_map(path, stored.params, stored.snapshot)
    return path, motion


def test_map_merged_with_itself_stays_as_it_is(mapped, tmp_path, capsys):
    out = tmp_path / "both.ovs3d"
    assert ovs3d("merge", mapped[0], mapped[0], "-o", out, "--json", tmp_path / "m.json", "--quiet") == 0
    report = json.loads((tmp_path / "m.json").read_text())
    params, snapshot = load_map(mapped[0])
    merged = load_map(out)[1]
    assert report["gaussians"] == report["fused"] == len(params["means"])
    assert report["keyframes"] == len(merged.names) == 2 * len(snapshot.names)
    assert "fused" in capsys.readouterr().out
    assert merged.weight.sum() == pytest.approx(2 * float(snapshot.weight.sum()), rel=1e-3)
    assert ovs3d("query", out, "red box", "--quiet") == 0


@pytest.mark.parametrize("how", ["transform", "align"])
def test_map_in_another_frame_comes_home(how, mapped, elsewhere, tmp_path, capsys):
    from scipy.spatial.transform import Rotation

    there, motion = elsewhere
    where = ["--align"]
    if how == "transform":
        where = ["--transform", *motion[:3, 3], *Rotation.from_matrix(motion[:3, :3]).as_quat()]
    out = tmp_path / "both.ovs3d"
    command = ("merge", mapped[0], there, "-o", out, "--steps", "0", "--json", tmp_path / "m.json", *where)
    assert ovs3d(*command) == 0
    poses = load_map(out)[1].camtoworlds
    assert (
        np.linalg.norm(poses[: len(poses) // 2, :3, 3] - poses[len(poses) // 2 :, :3, 3], axis=1).max() < 0.02
    )
    report = json.loads((tmp_path / "m.json").read_text())
    np.testing.assert_allclose(report["transform"], motion, atol=0.02)
    assert ("aligned with confidence" in capsys.readouterr().out) == (how == "align")
    assert report.get("confidence", 1.0) > 0.5


def test_bad_merges_are_refused(mapped, elsewhere, tmp_path, capsys):
    out, (params, snapshot) = tmp_path / "both.ovs3d", load_map(mapped[0])
    other = tmp_path / "other.ovs3d"
    save_map(other, params, replace(snapshot, meta=snapshot.meta | dict(clip="someone/else")))
    for arguments, words in (
        ([mapped[0], other, "-o", out], "different encoders"),
        ([mapped[0], tmp_path / "no.ovs3d", "-o", out], "no such map"),
        ([mapped[0], elsewhere[0], "-o", elsewhere[0]], "already uses this file"),
        ([mapped[0], elsewhere[0], "-o", tmp_path / "x.ply"], "merge writes a map"),
        ([mapped[0], elsewhere[0], "-o", out, "--transform", *"0000002"], "unit quaternion"),
        ([mapped[0], elsewhere[0], "-o", out, "--steps", "-1"], "--steps -1"),
    ):
        assert ovs3d("merge", *arguments) == 2, arguments
        assert_one_line(capsys.readouterr().err, words)
    assert not out.exists()
