"""Files of the user: the commands overwrite and delete only files of their own."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.box_scene import HEIGHT, WIDTH, write_scene
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from ovs3d_ros import cli
from ovs3d_ros.map_file import load_map
from ovs3d_ros.types import UserError

COUNT, HELD_OUT = 4, 1
SETTINGS = [
    "--quiet",
    "--set",
    "clip.model=helpers.color_encoder:ColorEncoder",
    "--set",
    "compute.device=cpu",
    "--set",
    "train.final_steps=2",
    "--set",
    "train.steps_per_keyframe=2",
]


def ovs3d(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


def error_line(capsys) -> str:
    err = capsys.readouterr().err
    assert err.startswith("ovs3d: error: ") and err.count("\n") == 1, err
    return err


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return write_scene(tmp_path_factory.mktemp("boxes") / "table", COUNT)


@pytest.fixture(scope="module")
def mapped(scene, tmp_path_factory) -> Path:
    """A hasty map of the scene."""
    path = tmp_path_factory.mktemp("map") / "table.ovs3d"
    assert ovs3d("map", scene, "-o", path, *SETTINGS) == 0
    return path


@pytest.fixture
def own_scene(scene, tmp_path) -> Path:
    """A copy of the scene to spoil."""
    return Path(shutil.copytree(scene, tmp_path / "own"))


def test_query_never_overwrites_files_of_the_user(mapped, tmp_path, capsys):
    for part in ("masks/mine.png", "overlays/mine.png", "objects.json", "cloud.ply"):
        folder = tmp_path / part.replace("/", "_")
        (folder / part).parent.mkdir(parents=True)
        (folder / part).write_text("precious")
        assert ovs3d("query", mapped, "red box", "-o", folder) == 2
        assert part.split("/")[0] in error_line(capsys)
        assert [path for path in folder.rglob("*") if path.is_file()] == [folder / part]


def test_query_replaces_only_its_earlier_answer(mapped, tmp_path):
    assert ovs3d("query", mapped, "red box", "-o", tmp_path) == 0
    manifest = tmp_path / "query_pictures.txt"
    first = manifest.read_text().splitlines()
    assert sorted(first) == sorted(path.name for path in (tmp_path / "masks").glob("*.png")) and first
    outside = tmp_path / "outside.png"
    for path in (
        tmp_path / "masks" / "old.png",
        tmp_path / "overlays" / "old.png",
        tmp_path / "masks" / "mine.png",
        outside,
    ):
        path.write_text("x")
    manifest.write_text(manifest.read_text() + "old.png\n../outside.png\n")
    assert ovs3d("query", mapped, "green box", "-o", tmp_path) == 0
    assert not list(tmp_path.rglob("old.png")), "noted by the earlier answer"
    assert (tmp_path / "masks" / "mine.png").is_file() and outside.is_file()


def test_camera_names_become_file_names(mapped, tmp_path):
    path = tmp_path / "two.ovs3d"
    with safe_open(mapped, framework="pt") as file:
        header = json.loads(file.metadata()["ovs3d"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    header["names"] = ["../front/1.5", ".._front_1.5", "", "n" * 300]
    save_file(tensors, path, metadata={"ovs3d": json.dumps(header)})
    assert ovs3d("query", path, "red box", "-o", tmp_path / "out") == 0
    names = sorted(picture.name for picture in (tmp_path / "out" / "overlays").iterdir())
    assert names == [".._front_1.5.png", ".._front_1.5_00001.png", "keyframe_00002.png", "n" * 200 + ".png"]
    assert {found.name for found in (tmp_path / "out").iterdir() if found.is_dir()} == {"masks", "overlays"}


def test_map_survives_unreadable_held_out_views(own_scene, tmp_path, capsys):
    held_out = own_scene / "images" / f"{HELD_OUT:03d}.png"
    held_out.write_bytes(held_out.read_bytes()[:-100])
    for label in (own_scene / "labels").iterdir():
        Image.fromarray(np.full((HEIGHT, WIDTH), 99, np.uint8)).save(label)
    arguments = ["map", own_scene, "-o", tmp_path / "m.ovs3d", "--no-clip", "--holdout", 3, *SETTINGS]
    assert ovs3d(*arguments) == 2
    line = error_line(capsys)
    assert held_out.name in line and "the map is finished" in line and "labels" not in line
    assert len(load_map(tmp_path / "m.ovs3d")[1].names) == COUNT - 1


def test_views_too_small_for_ssim_get_none(scene, tmp_path, capsys):
    assert (
        ovs3d(
            "map",
            scene,
            "-o",
            tmp_path / "m.ovs3d",
            "--no-clip",
            "--holdout",
            3,
            "--json",
            tmp_path / "m.json",
            *SETTINGS,
            "--set",
            "map.image_size=10",
        )
        == 0
    )
    report = json.loads((tmp_path / "m.json").read_text())
    assert report["ssim_holdout"] is None and report["psnr_holdout"] > 5
    assert "PSNR" in (out := capsys.readouterr().out) and "SSIM" not in out


def test_depth_in_a_wrong_unit_is_explained(own_scene, tmp_path, capsys):
    document = json.loads((own_scene / "transforms.json").read_text())
    (own_scene / "transforms.json").write_text(json.dumps(document | {"depth_unit_m": 1.0}))
    assert ovs3d("map", own_scene, "-o", tmp_path / "m.ovs3d", "--no-clip", *SETTINGS) == 2
    line = error_line(capsys)
    assert "depth_unit_m" in line and "seed.max_depth = 10 m" in line
    assert 500 < float(line.partition("median depth is ")[2].split()[0]) < 5000


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "{map}", "-o", "{tmp}/link.ply"],
        ["export", "{tmp}/link.ply", "-o", "{tmp}/link.ply"],
        ["query", "{map}", "red", "--json", "{map}"],
        ["map", "{data}", "-o", "{tmp}/data"],
        ["map", "{data}", "-o", "{tmp}/m", "--json", "{tmp}/m"],
        ["refine", "{map}", "{data}", "--names", "a", "-o", "{tmp}/m", "--json", "{map}"],
    ],
)
def test_outputs_never_overwrite_inputs_or_each_other(arguments, mapped, scene, tmp_path, capsys):
    before, data = mapped.read_bytes(), scene / "transforms.json"
    (tmp_path / "link.ply").symlink_to(mapped)
    (tmp_path / "data").symlink_to(data)
    assert ovs3d(*(a.format(map=mapped, data=data, tmp=tmp_path) for a in arguments)) == 2
    assert "give another name" in error_line(capsys)
    assert mapped.read_bytes() == before and sorted(path.name for path in tmp_path.iterdir()) == [
        "data",
        "link.ply",
    ]


@pytest.mark.parametrize("command", [["eval"], ["refine", "--names", "a"]])
def test_input_settings_reach_the_dataset(command, mapped, scene, monkeypatch):
    class Reached(UserError):
        pass

    def spy(*_: object, config=None, **__: object) -> None:
        raise Reached(config.bag.image)

    monkeypatch.setattr("ovs3d_ros.commands.opening.open_dataset", spy)
    options = cli.make_parser().parse_args(
        [command[0], str(mapped), str(scene), *command[1:], "--set", "bag.image=/left"]
    )
    with pytest.raises(Reached, match=r"^/left$"):
        cli._dispatch(options)


def test_video_on_a_full_disk_is_an_error(mapped, tmp_path, capfd):
    video = tmp_path / "v.mp4"
    video.write_text("earlier")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        code = ovs3d("render", mapped, "-o", video, "--frames", 8, "--channels", "rgb", "--quiet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    err = capfd.readouterr().err
    assert code == 2 and "only 0 of 8 frames could be written" in err and err.count("\n") == 1, err
    assert video.read_text() == "earlier" and list(tmp_path.iterdir()) == [video]


def test_render_removes_only_its_earlier_pictures(mapped, tmp_path, capsys):
    flight = ["render", mapped, "-o", tmp_path, "--channels", "rgb", "--quiet", "--frames"]
    assert ovs3d(*flight, 3) == 0
    (tmp_path / "000001.png").write_text("not numbered like ours")
    assert ovs3d(*flight, 1) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.png", "000001.png"]
    capsys.readouterr()
    Image.new("RGB", (8, 8)).save(tmp_path / "00007.png")
    assert ovs3d(*flight, 1) == 2
    assert "00007.png" in error_line(capsys) and (tmp_path / "00007.png").is_file()


@pytest.mark.parametrize("size", [WIDTH // 2, 2 * WIDTH])
def test_render_respects_the_image_size(size, mapped, tmp_path):
    assert (
        ovs3d("render", mapped, "-o", tmp_path, "--channels", "rgb", "--frames", 1, "--image-size", size) == 0
    )
    assert Image.open(tmp_path / "00000.png").size == (size, size * HEIGHT // WIDTH)
