"""Metric crops: depth turns sides in metres into pixels, for any depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ovs3d_ros.config import ClipConfig, Config, override
from ovs3d_ros.encoders import encode_frame, make_clip
from ovs3d_ros.encoders.clip import BUNDLED
from ovs3d_ros.encoders.crops import MAX_LEVEL_CROPS, STEPS_PER_OCTAVE, plan_metric_crops, plan_relative_crops
from ovs3d_ros.mapping.keyframes import to_frame
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Camera, CropTable, Frame, UserError

HEIGHT, WIDTH, FOCAL, SIDE, STRIDE = 240, 320, 260.0, 64, 0.25
HALF_STEP = 2 ** (0.5 / STEPS_PER_OCTAVE)

needs_clip = pytest.mark.skipif(not (BUNDLED / "model.safetensors").is_file(), reason="no bundled CLIP")


def crops_of(groups, level: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [M, 4] left, top, right, bottom in pixels of the original, and sides [M], of one level."""
    boxes = []
    for group in (group for group in groups if group.level == level):
        fx, fy = WIDTH / group.width, HEIGHT / group.height
        boxes += [(x * fx, y * fy, (x + SIDE) * fx, (y + SIDE) * fy) for y, x in group.corners]
    boxes = np.array(boxes)
    return boxes, boxes[:, 2] - boxes[:, 0]


def flat(metres: float) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), metres, np.float32)


def frame_of(depth: np.ndarray | None) -> Frame:
    squares = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1.0]])
    return Frame(
        0.0,
        np.repeat(np.repeat(squares, 40, 0), 40, 1),
        Camera(K, WIDTH, HEIGHT),
        np.eye(4),
        depth,
        name="frame 7",
    )


def test_half_the_depth_gets_crops_of_twice_the_side() -> None:
    depth = flat(1.0)
    depth[:, WIDTH // 2 :] = 2.0
    boxes, sides = crops_of(plan_metric_crops(depth, FOCAL, SIDE, [0.2], STRIDE))
    near = sides > 1.5 * sides.min()
    assert sides[near] == pytest.approx(52.0, rel=0.02) and sides[~near] == pytest.approx(26.0, rel=0.02)
    centres = (boxes[:, 0] + boxes[:, 2]) / 2
    assert (centres[near] < WIDTH / 2 + STRIDE * 52).all() and (
        centres[~near] > WIDTH / 2 - STRIDE * 26
    ).all()


@pytest.mark.parametrize("metres", [0.2, 0.5])
def test_crops_cover_the_same_metres_at_any_distance(metres: float) -> None:
    """Also on a slope, where the depth changes within a crop."""
    for distance in (1.0, 2.3):
        sides = crops_of(plan_metric_crops(flat(distance), FOCAL, SIDE, [metres], STRIDE))[1]
        assert sides * distance / FOCAL == pytest.approx(metres, rel=0.02)
    slope = np.linspace(1.0, 3.0, WIDTH, dtype=np.float32)[None].repeat(HEIGHT, 0)
    boxes, sides = crops_of(plan_metric_crops(slope, FOCAL, SIDE, [metres], STRIDE))
    inner = (boxes[:, 0] > 1) & (boxes[:, 2] < WIDTH - 1)
    at_centre = np.interp((boxes[inner, 0] + boxes[inner, 2]) / 2, np.arange(WIDTH) + 0.5, slope[0])
    covered = sides[inner] * at_centre / FOCAL / metres
    assert covered.min() > 1 / HALF_STEP**2 and covered.max() < HALF_STEP**2


def test_every_pixel_lies_in_a_crop_of_its_own_size() -> None:
    """Also pixels at the border, and pixels of an object smaller than the distance between crops."""
    depth = flat(3.0)
    depth[HEIGHT - 20 :] = 1.0
    depth[100:103, 200:203] = 0.7
    groups = plan_metric_crops(depth, FOCAL, SIDE, [0.3, 0.6], STRIDE)
    for level, metres in enumerate((0.3, 0.6)):
        boxes, sides = crops_of(groups, level)
        covered = np.zeros((HEIGHT, WIDTH), bool)
        for distance in (3.0, 1.0, 0.7):
            for left, top, right, bottom in (
                boxes[np.abs(sides * distance / FOCAL / metres - 1) < 0.03].round().astype(int)
            ):
                covered[top:bottom, left:right] |= depth[top:bottom, left:right] == np.float32(distance)
        assert covered.all()


@pytest.mark.parametrize("kind", ["tiny", "huge", "noise", "mixed"])
def test_absurd_depth_does_not_flood_the_crops(kind: str) -> None:
    rng = np.random.default_rng(0)
    depth = {
        "tiny": flat(1e-6),
        "huge": flat(1e6),
        "mixed": flat(1e-6),
        "noise": np.exp(rng.uniform(-20, 20, (HEIGHT, WIDTH))).astype(np.float32),
    }[kind]
    if kind == "mixed":
        depth[::2] = 1e6
    groups = plan_metric_crops(depth, FOCAL, SIDE, [0.1, 0.2, 0.4, 0.8], STRIDE)
    for level in range(4):
        boxes, sides = crops_of(groups, level)
        assert 0 < len(sides) <= MAX_LEVEL_CROPS
        assert (
            sides.min() > 15
            and sides.max() < HEIGHT + 1
            and boxes.min() >= 0
            and boxes[:, 2].max() < WIDTH + 1e-6
        )


def test_room_takes_as_many_crops_as_the_relative_pyramid() -> None:
    slope = np.linspace(1.0, 4.0, HEIGHT, dtype=np.float32)[:, None].repeat(WIDTH, 1)
    metric = plan_metric_crops(slope, FOCAL, SIDE, [0.2, 0.3, 0.5], STRIDE)
    relative = plan_relative_crops(HEIGHT, WIDTH, SIDE, [3.0, 5.0, 8.0], STRIDE)
    counts = [sum(len(group.corners) for group in groups) for groups in (metric, relative)]
    assert 0.3 < counts[0] / counts[1] < 2


def test_holes_take_the_nearest_depth() -> None:
    """A hole beside the far wall gets the far wall's crops, although most of the image is near."""
    depth = flat(1.0)
    depth[:, 240:] = 4.0
    whole = plan_metric_crops(depth, FOCAL, SIDE, [0.4], STRIDE)
    depth[100:140, 280:310] = 0.0
    assert plan_metric_crops(depth, FOCAL, SIDE, [0.4], STRIDE) == whole


@needs_clip
def test_metric_crops_at_one_depth_equal_relative_crops() -> None:
    """At a constant depth metric crops equal those of the relative pyramid with that side, to the bit."""
    metric = make_clip(ClipConfig(mode="pyramid", crop_metres=(0.3, 0.6)), "cpu")
    relative = make_clip(
        ClipConfig(mode="pyramid", crop_divisors=(HEIGHT * 2.0 / FOCAL / 0.3, HEIGHT * 2.0 / FOCAL / 0.6)),
        "cpu",
    )
    frame = frame_of(flat(2.0))
    ours, expected = encode_frame(metric, frame), encode_frame(relative, frame)
    assert ours.num_levels == 2 and ours.grid is None
    for name in ("boxes", "levels", "embeddings"):
        assert torch.equal(getattr(ours, name), getattr(expected, name)), name


@needs_clip
def test_depth_of_another_resolution_is_read_at_pixel_centres() -> None:
    metric = make_clip(ClipConfig(mode="pyramid", crop_metres=(0.3,)), "cpu")
    fine = np.zeros((3 * HEIGHT, 3 * WIDTH), np.float32)
    fine[1::3, 1::3] = 2.0
    assert torch.equal(
        encode_frame(metric, frame_of(fine)).boxes, encode_frame(metric, frame_of(flat(2.0))).boxes
    )


@needs_clip
def test_crop_sizes_refer_to_the_encoded_image() -> None:
    """Crops cover the same metres at any resolution; the smallest side is 16 px of the encoded image."""

    def widths(side: float, size: int) -> torch.Tensor:
        config = ClipConfig(mode="pyramid", crop_metres=(side,), image_size=size, crop_stride=1.0)
        boxes = encode_frame(make_clip(config, "cpu"), frame_of(flat(2.0))).boxes
        return boxes[:, 2] - boxes[:, 0]

    for size in (320, 160):
        assert torch.allclose(widths(0.6, size), torch.tensor(0.6 * FOCAL / 2.0 / WIDTH), rtol=0.02)
        assert torch.allclose(widths(0.01, size), torch.tensor(16.0 / size), rtol=0.02)


@needs_clip
def test_missing_depth_and_impossible_crops_are_rejected() -> None:
    encoder = make_clip(ClipConfig(mode="pyramid", crop_metres=(0.3,)), "cpu")
    for depth in (None, flat(0.0)):
        with pytest.raises(UserError, match=r"frame 7 has no depth.*clip\.crop_metres.*use_depth") as caught:
            encode_frame(encoder, frame_of(depth))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"clip\.crop_metres"):
        encoder.encode_image(frame_of(None).image)
    with pytest.raises(UserError, match=r"clip\.mode=pyramid"):
        make_clip(ClipConfig(mode="auto", crop_metres=(0.3,)), "cpu")
    with pytest.raises(UserError, match="encode_frame"):
        make_clip(ClipConfig(model=f"{__name__}:ImageOnly", crop_metres=(0.3,)), "cpu")


class ImageOnly:
    """An encoder from an import string that reads images only."""

    def __init__(self, config, device):
        self.name, self.dim, self.calibration = "image only", 2, None

    def encode_image(self, image: np.ndarray) -> CropTable:
        return CropTable(
            torch.tensor([[0, 0, 1.0, 1.0]]), torch.zeros(1, dtype=torch.int64), torch.ones(1, 2), 1
        )


def test_encode_frame_accepts_image_encoders() -> None:
    encoder = make_clip(ClipConfig(model=f"{__name__}:ImageOnly"), "cpu")
    assert encode_frame(encoder, frame_of(None)).embeddings.tolist() == [[1.0, 1.0]]


@needs_clip
def test_pipeline_passes_depth_and_rejects_frames_without() -> None:
    settings = {
        "clip.model": "bundled",
        "clip.mode": "pyramid",
        "clip.crop_metres": (0.8, 1.6),
        "map.codec_dim": 4,
        "compute.device": "cpu",
    }
    pipeline = Ovs3d(override(Config(), settings))
    with pytest.raises(UserError, match="frame 7 has no depth"):
        pipeline.add_frame(frame_of(None))
    assert not pipeline.keyframes and not pipeline.stats["num_gaussians"]
    assert pipeline.add_frame(frame_of(flat(2.0)))
    (keyframe,) = pipeline.keyframes
    assert keyframe.crops.num_levels == 2
    again = encode_frame(pipeline.clip, to_frame(keyframe))  # as a refinement on the robot is checked
    assert torch.allclose(again.boxes, keyframe.crops.boxes, atol=0.01)
