"""The façade on a small coloured room: frames in, keyframes, snapshots and renders out."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.color_encoder import ColorEncoder

from ovs3d_ros.config import override
from ovs3d_ros.geometry import check_frame
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Camera, CropTable, Frame, UserError

BOXES = {"red box": synthetic.RED, "green box": synthetic.GREEN, "blue box": synthetic.BLUE}


def build(count: int = 6, steps: int = 20, **settings) -> Ovs3d:
    return synthetic.build_map(synthetic.make_frames(count), steps, **settings)


@pytest.fixture(scope="module")
def room() -> Ovs3d:
    """A mapped room; tests must not change it."""
    return build()


def test_keyframe_features_are_stored_as_half(room: Ovs3d) -> None:
    frame, texts = synthetic.make_frames(6)[0], room.encode_text(list(BOXES))
    kept, exact = room.keyframes[0].crops.embeddings, room.clip.encode_image(frame.image).embeddings
    assert kept.dtype == torch.float16
    cosines = torch.nn.functional.normalize(exact, dim=-1) @ texts.T
    torch.testing.assert_close(kept.float() @ texts.T, cosines, atol=1e-3, rtol=0)


def test_render_matches_the_image(room: Ovs3d) -> None:
    frame = synthetic.make_frame(synthetic.orbit(6)[1])
    view = room.render(frame.camera, frame.camtoworld)
    error = (view.rgb - torch.from_numpy(frame.image) / 255).square().mean()
    assert -10 * float(torch.log10(error)) > 20
    looking_away = room.render(frame.camera, synthetic.look_at([0, -60, 0.5], [0, -90, 0.5]))
    assert float(looking_away.alpha.max()) == 0 and float(looking_away.depth.max()) == 0


def test_snapshot_is_immutable() -> None:
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


class TwoLevels(ColorEncoder):
    """A pyramid of two levels: the image, and the same image blurred."""

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


def alike(codes: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether codes agree, within the error of 8 bits."""
    return float((codes - expected).norm(dim=-1).max()) < 0.02


def test_codes_blend_the_levels_as_selected(room: Ovs3d) -> None:
    pipeline = build(count=3, steps=5, clip__model=f"{__name__}:TwoLevels", lift__selection="uniform")
    pipeline.recalibrate(distractors=("red", "green", "blue", "grey"))
    snapshot = pipeline.snapshot()
    known = snapshot.packed_codes.known
    first, second = snapshot.packed_levels[known].unpack().unbind(1)
    middle = snapshot.codec.normalize(first + second)
    assert alike(snapshot.codes[known], middle)
    assert float((first - second).norm(dim=-1).median()) > 0.02, "the levels differ"
    pipeline.configure(override(pipeline.config, {"lift.selection": "sharp"}))
    chosen = pipeline.snapshot()
    weights = torch.softmax(chosen.selection[known], dim=-1)
    assert float(weights.amax(-1).mean()) > 0.6, "most Gaussians prefer one level"
    expected = snapshot.codec.normalize(weights[:, :1] * first + weights[:, 1:] * second)
    assert alike(chosen.codes[known], expected)
    single = room.snapshot()
    codes, levels = single.packed_codes, single.packed_levels
    assert codes.values.data_ptr() == levels.values.data_ptr() and not single.selection.any()


def test_empty_map_says_what_to_do() -> None:
    pipeline = Ovs3d(synthetic.make_config())
    with pytest.raises(UserError, match="frames first"):
        pipeline.query(["red box"])
    with pytest.raises(UserError, match="frames first"):
        pipeline.optimize(3)
    assert list(pipeline.relift()) == [] and pipeline.snapshot().num_gaussians == 0


def test_missing_encoder_is_named() -> None:
    with pytest.raises(UserError, match="no_such_package"):
        Ovs3d(synthetic.make_config(clip__model="no_such_package:Encoder"))


def test_standing_still_makes_no_keyframes() -> None:
    pipeline = Ovs3d(synthetic.make_config())
    frame = synthetic.make_frames(1)[0]
    assert [pipeline.add_frame(dataclasses.replace(frame, stamp=float(i))) for i in range(4)] == [True] + [
        False
    ] * 3
    assert pipeline.stats["frames"] == 4 and pipeline.stats["keyframes"] == 1


def test_keyframes_have_the_mapping_resolution() -> None:
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
def test_add_frame_refuses_bad_frames(room: Ovs3d, kind: str) -> None:
    frame, word = broken_frames()[kind]
    before = room.stats, len(room.keyframes)
    with pytest.raises(UserError, match=word) as caught:
        room.add_frame(frame)
    assert "frame_0" in str(caught.value) and "\n" not in str(caught.value)
    assert (room.stats, len(room.keyframes)) == before
    with pytest.raises(UserError):
        check_frame(frame)


def test_ply_holds_every_gaussian(room: Ovs3d, tmp_path) -> None:
    room.export_ply(tmp_path / "s.ply")
    assert (
        f"element vertex {room.stats['num_gaussians']}\n".encode() in (tmp_path / "s.ply").read_bytes()[:200]
    )
