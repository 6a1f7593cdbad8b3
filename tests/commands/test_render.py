"""`ovs3d render` and `ovs3d export`: videos, pictures and PLY files."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.box_scene import HEIGHT, WIDTH, camera_ring, ray_cast
from helpers.command_line import COUNT, ovs3d
from helpers.ply import gaussian_columns, read_ply
from PIL import Image

from ovs3d_ros.commands import video
from ovs3d_ros.commands.export import WRITERS
from ovs3d_ros.commands.inputs import EXPORT_SUFFIXES
from ovs3d_ros.commands.render import _mosaic, make_painters
from ovs3d_ros.map_file import load_map
from ovs3d_ros.map_frame import poses_to_world
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import MapFrame


def test_export_writes_a_standard_3dgs_ply(mapped, tmp_path):
    assert ovs3d("export", mapped[0], "-o", tmp_path / "splat.ply") == 0
    params, _ = load_map(mapped[0])
    table = read_ply(tmp_path / "splat.ply")
    assert list(table.dtype.names) == gaussian_columns()
    np.testing.assert_array_equal(table["y"], params["means"][:, 1].numpy())
    np.testing.assert_array_equal(table["opacity"], params["opacity_logits"].numpy())
    np.testing.assert_array_equal(table["scale_2"], params["log_scales"][:, 2].numpy())


def test_export_writes_splats(mapped, tmp_path):
    assert ovs3d("export", mapped[0], "-o", tmp_path / "room.SPLAT") == 0
    params, _ = load_map(mapped[0])
    rows = np.fromfile(tmp_path / "room.SPLAT", np.dtype([("means", "<f4", 3), ("rest", "u1", 20)]))
    by_x = [
        means[np.argsort(means[:, 0], kind="stable")] for means in (rows["means"], params["means"].numpy())
    ]
    np.testing.assert_array_equal(by_x[0][:, 0], by_x[1][:, 0])
    assert set(WRITERS) == set(EXPORT_SUFFIXES)


def test_export_writes_spz(mapped, tmp_path):
    assert ovs3d("export", mapped[0], "-o", tmp_path / "room.spz") == 0
    data = gzip.decompress((tmp_path / "room.spz").read_bytes())
    assert data[:8] == b"NGSP\x03\0\0\0"
    assert int.from_bytes(data[8:12], "little") == len(load_map(mapped[0])[0]["means"])


def test_render_writes_a_video(mapped, tmp_path):
    assert ovs3d("render", mapped[0], "-o", tmp_path / "v.mp4", "--frames", 5, "--prompts", "red box") == 0
    video = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1][..., ::-1].astype(int))
    assert len(frames) == 5 and frames[0].shape[1] == 2 * WIDTH
    tile = frames[0][HEIGHT // 4 : HEIGHT, :WIDTH]
    assert ((tile[..., 0] - tile[..., 1:].max(-1)) > 60).sum() > 50, "the red box is in the colour tile"
    assert np.abs(frames[0] - frames[2]).mean() > 2, "the camera moves"


@pytest.mark.parametrize("name", ["v.mp4", "v.WEBM"])
def test_videos_have_a_codec_of_browsers(name, mapped, tmp_path, capfd):
    assert ovs3d("render", mapped[0], "-o", tmp_path / name, "--frames", 3, "--channels", "rgb") == 0
    out, err = capfd.readouterr()
    code = int(cv2.VideoCapture(str(tmp_path / name)).get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode()
    assert code.upper() in ("AVC1", "H264", "VP09", "VP90", "VP80"), code
    assert any(f"({codec})" in out for codec in ("H.264", "VP9", "VP8")) and err == "", err


def test_codec_that_writes_nothing_is_passed_over(monkeypatch, tmp_path):
    opened, really_open = [], video._open

    def open_writer(writer: cv2.VideoWriter, path: Path, code: str, *rest: object) -> bool:
        """Stands for an encoder in hardware: H.264 opens, and its file stays empty."""
        opened.append(code)
        return True if code == "avc1" else really_open(writer, path, code, *rest)

    monkeypatch.setattr(video, "_open", open_writer)
    with video.write_video(tmp_path / "v.mp4", 24) as write:
        for _ in range(3):
            write(np.zeros((32, 64, 3), np.uint8))
    assert opened == ["avc1", "vp09"] and video.codec_name(tmp_path / "v.mp4") == "VP9"


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("height, width", [(40, 30), (30, 40), (32, 32), (20, 64)])
def test_mosaic_is_full_and_fits_a_screen(count, height, width):
    tiles = [np.full((height, width, 3), 50 + index, np.uint8) for index in range(count)]
    picture = _mosaic(tiles, [])
    assert picture.shape[0] * picture.shape[1] == count * height * width
    assert sorted(np.unique(picture)) == [50 + index for index in range(count)], (
        "every tile, and nothing black"
    )
    assert 0.5 < picture.shape[1] / picture.shape[0] < 4.1 or count == 1


def test_portrait_pictures_stand_side_by_side():
    assert _mosaic([np.zeros((40, 30, 3), np.uint8)] * 3, []).shape == (40, 90, 3)


def test_depth_pictures_have_a_scale(mapped, tmp_path):
    assert ovs3d("render", mapped[0], "-o", tmp_path, "--frames", 1, "--channels", "depth") == 0
    height = np.asarray(Image.open(tmp_path / "00000.png")).shape[0]
    assert height > HEIGHT, "a strip below the picture"


def test_scale_of_depth_is_in_metres_whatever_the_poses_are_in(mapped):
    room = Ovs3d.load(mapped[0], encode=False)
    metres, place = room.snapshot(), MapFrame(unit=0.01)
    other = replace(metres, frame=place, camtoworlds=poses_to_world(metres.camtoworlds, place))
    scales = [[text for text, _ in make_painters(room, s, ["depth"], [])[1]] for s in (metres, other)]
    assert scales[0] == scales[1] and all(text.endswith(" m") for text in scales[0])


def test_render_writes_pictures_along_the_keyframes(mapped, tmp_path, monkeypatch):
    def load_nothing(*_: object) -> None:
        raise AssertionError("a model was loaded that colours do not need")

    monkeypatch.setattr("ovs3d_ros.pipeline.make_clip", load_nothing)
    assert (
        ovs3d(
            "render",
            mapped[0],
            "-o",
            tmp_path / "v",
            "--frames",
            2,
            "--path",
            "keyframes",
            "--channels",
            "rgb",
        )
        == 0
    )
    pictures = sorted((tmp_path / "v").glob("*.png"))
    assert len(pictures) == 2
    first = np.asarray(Image.open(pictures[0])).astype(float)
    truth = ray_cast(camera_ring(COUNT)[0])[0]
    assert first.shape == truth.shape
    assert np.abs(first - truth).mean() < 25, "the first picture is the first keyframe's view"
