"""`ovs3d info` about a map and a dataset."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from helpers.box_scene import CLASSES, HEIGHT, WIDTH, camera_ring
from helpers.command_line import COUNT, HOLDOUT, assert_one_line, ovs3d

from ovs3d_ros.map_file import load_map, save_map
from ovs3d_ros.map_frame import poses_to_world
from ovs3d_ros.types import MapFrame


def ask(capsys, *arguments: object) -> tuple[dict, str]:
    """The JSON of `ovs3d info` and the table for people."""
    capsys.readouterr()
    assert ovs3d("info", *arguments, "--json", "-") == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_info_tells_what_a_map_holds(mapped, capsys):
    facts, table = ask(capsys, mapped[0])
    assert facts["kind"] == "map" and facts["bytes"] == mapped[0].stat().st_size
    assert facts["gaussians"] == mapped[1]["num_gaussians"] and facts["steps"] == mapped[1]["steps"]
    assert facts["keyframes"] == COUNT - COUNT // HOLDOUT and facts["image_sizes"] == [f"{WIDTH}x{HEIGHT}"]
    assert facts["encoder"] == "tests/colors" and facts["refined_names"] == []
    assert all(0.2 < side < 5 for side in facts["extent_m"][:2])
    assert "encoder" in table and f"{WIDTH}x{HEIGHT}" in table and "refined names         -" in table


def test_extents_of_a_map_are_in_metres_whatever_its_poses_are_in(mapped, tmp_path, capsys):
    params, snapshot = load_map(mapped[0])
    place = MapFrame(np.array([4e5, 4e6, 0.0]), 0.01)
    poses = poses_to_world(snapshot.camtoworlds, place)
    save_map(tmp_path / "cm.ovs3d", params, replace(snapshot, frame=place, camtoworlds=poses))
    facts, same = (ask(capsys, path)[0] for path in (tmp_path / "cm.ovs3d", mapped[0]))
    assert facts["metres_per_unit"] == 0.01 and facts["origin"] == [4e5, 4e6, 0.0]
    for key in ("extent_m", "camera_path_extent_m"):
        np.testing.assert_allclose(facts[key], same[key], atol=2e-3)


def test_info_tells_the_refined_names(refined, capsys):
    assert set(CLASSES) <= set(ask(capsys, refined[0])[0]["refined_names"])


def test_info_tells_what_a_dataset_holds(scene, capsys):
    facts, table = ask(capsys, scene)
    assert (facts["kind"], facts["format"], facts["frames"], facts["depth"]) == (
        "dataset",
        "nerfstudio",
        COUNT,
        True,
    )
    ring = np.stack([pose[:3, 3] for pose in camera_ring(COUNT)])
    np.testing.assert_allclose(facts["camera_path_extent_m"], np.ptp(ring, axis=0), atol=2e-3)
    assert set(facts["classes"]) == set(CLASSES) and "nerfstudio" in table and "yes" in table


def test_info_refuses_other_files(tmp_path, capsys):
    (tmp_path / "x.ply").write_bytes(b"ply\n")
    assert ovs3d("info", tmp_path / "x.ply") == 2
    assert_one_line(capsys.readouterr().err, "x.ply", "not a readable map")
    assert ovs3d("info", tmp_path) == 2
    assert_one_line(capsys.readouterr().err, "no dataset found")
