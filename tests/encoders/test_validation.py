"""What an encoder returns is checked before it reaches the map."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import synthetic
from helpers.color_encoder import ColorEncoder, ColorPatches
from helpers.workers import WAIT

from ovs3d_ros.encoders.cache import CachedImageTextEncoder, TensorCache
from ovs3d_ros.encoders.validation import check_crop_table, check_patches, check_texts
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import UserError
from ovs3d_ros.worker import MappingWorker

NAN = float("nan")


def with_value(tensor: torch.Tensor, value: float) -> torch.Tensor:
    changed = tensor.clone()
    changed.view(-1)[5] = value
    return changed


BAD_TABLES = {
    "nothing": (lambda t: None, "returned NoneType for an image, expected a CropTable"),
    "a tensor": (lambda t: t.embeddings, "returned Tensor"),
    "NaN": (lambda t: replace(t, embeddings=with_value(t.embeddings, NAN)), "embeddings have NaN"),
    "too large": (
        lambda t: replace(t, embeddings=with_value(t.embeddings.double(), 1e39)),
        "have NaN or infinite",
    ),
    "numpy": (
        lambda t: replace(t, embeddings=t.embeddings.numpy()),
        "of type ndarray, expected a torch tensor anyx16",
    ),
    "whole numbers": (lambda t: replace(t, embeddings=t.embeddings.long()), "int64, expected floating point"),
    "other length": (
        lambda t: replace(t, embeddings=t.embeddings[:, :3]),
        r"shape \[192, 3\], expected anyx16",
    ),
    "flat": (lambda t: replace(t, embeddings=t.embeddings.flatten()), "embeddings have shape"),
    "no crops": (lambda t: replace(t, embeddings=t.embeddings[:0]), "no crop"),
    "few boxes": (lambda t: replace(t, boxes=t.boxes[1:]), r"boxes have shape \[191, 4\], expected 192x4"),
    "NaN box": (lambda t: replace(t, boxes=with_value(t.boxes, NAN)), "boxes have NaN"),
    "pixel boxes": (lambda t: replace(t, boxes=t.boxes * 640), "boxes must be left, top"),
    "mirrored boxes": (lambda t: replace(t, boxes=t.boxes.flip(1)), "boxes must be left, top"),
    "few levels": (lambda t: replace(t, levels=t.levels[1:]), "one entry for each of the 192"),
    "float levels": (lambda t: replace(t, levels=t.levels.float()), "levels are torch.float32"),
    "unknown level": (lambda t: replace(t, levels=t.levels + 1), "levels must be from 0 to 0"),
    "no level": (lambda t: replace(t, num_levels=0), "num_levels is 0"),
    "many levels": (lambda t: replace(t, num_levels=10**9, grid=None), "from 1 to 64"),
    "other grid": (lambda t: replace(t, grid=(12, 15)), r"grid is \(12, 15\)"),
    "grid of one": (lambda t: replace(t, grid=192), "grid is 192"),
    "levels of a grid": (lambda t: replace(t, num_levels=2), "at one level"),
}


class Faulty(ColorEncoder):
    """Returns a bad table for the image with the number `bad`, counted from 1."""

    def __init__(self, spoil, bad: int) -> None:
        super().__init__(None, "cpu")
        self.spoil, self.bad, self.images = spoil, bad, 0

    def encode_image(self, image):
        self.images += 1
        table = super().encode_image(image)
        return self.spoil(table) if self.images == self.bad else table


@pytest.mark.parametrize("spoil, reason", BAD_TABLES.values(), ids=BAD_TABLES)
def test_frame_with_bad_features_is_rejected_and_map_unchanged(spoil, reason: str) -> None:
    frames = synthetic.make_frames(3)
    pipeline = Ovs3d(synthetic.make_config(), clip=Faulty(spoil, bad=2))
    assert pipeline.add_frame(frames[0])
    before, codec = pipeline.snapshot(), pipeline.map.lifter.codec
    fitted = pipeline.map.lifter._fitter.count
    with pytest.raises(UserError, match=f"encoder tests/colors.*{reason}"):
        pipeline.add_frame(frames[1])
    after = pipeline.snapshot()
    assert len(pipeline.keyframes) == 1 and after.names == before.names
    assert torch.equal(after.gaussians["means"], before.gaussians["means"])
    assert torch.equal(after.codes, before.codes) and pipeline.map.lifter.codec is codec
    assert pipeline.map.lifter._fitter.count == fitted
    assert pipeline.add_frame(frames[2])
    pipeline.optimize(2)
    assert bool(torch.isfinite(pipeline.snapshot().codes).all())


def test_mapping_thread_keeps_colours_of_a_frame_with_bad_features() -> None:
    config = synthetic.make_config(train__steps_per_keyframe=4)
    worker = MappingWorker(Ovs3d(config, clip=Faulty(BAD_TABLES["NaN"][0], bad=2)), config)
    worker.start()
    for frame in synthetic.make_frames(3):
        worker.submit(frame)
        assert worker.wait_idle(WAIT)
    stats = worker.stats()
    assert (stats["frames_mapped"], stats["frames_rejected"], stats["keyframes"]) == (3, 0, 3)
    assert stats["frames_featureless"] == 1 and worker.error is None
    assert (
        stats["last_rejection"].startswith("frame_1: ") and "embeddings have NaN" in stats["last_rejection"]
    )
    assert bool(torch.isfinite(worker.snapshot.codes).all())
    assert worker.stop(WAIT)


def test_good_table_passes_in_the_documented_types() -> None:
    encoder = ColorEncoder(None, "cpu")
    table = encoder.encode_image(synthetic.make_frames(1)[0].image)
    with torch.inference_mode():
        odd = replace(
            table,
            levels=table.levels.to(torch.int16) + 0,
            embeddings=table.embeddings.half(),
            boxes=table.boxes + 0,
        )
    checked = check_crop_table(odd, encoder)
    for name, dtype in dict(boxes=torch.float32, levels=torch.int64, embeddings=torch.float32).items():
        tensor = getattr(checked, name)
        assert tensor.dtype == dtype and not tensor.is_inference()
    assert torch.equal(checked.boxes, table.boxes) and checked.grid == table.grid


def test_bad_table_is_not_cached(tmp_path) -> None:
    image = synthetic.make_frames(1)[0].image
    encoder = Faulty(BAD_TABLES["NaN"][0], bad=1)
    cached = CachedImageTextEncoder(encoder, TensorCache(str(tmp_path), "clip.cache"), "")
    with pytest.raises(UserError, match="embeddings have NaN"):
        cached.encode_image(image)
    assert list(tmp_path.iterdir()) == []
    assert bool(torch.isfinite(cached.encode_image(image).embeddings).all())


BAD_TEXTS = {
    "nothing": (lambda f: None, "of type NoneType"),
    "NaN": (lambda f: with_value(f, NAN), "NaN or infinite"),
    "too few": (lambda f: f[:1], r"shape \[1, 16\], expected 2x16"),
    "long": (lambda f: f * 3, "must have unit length"),
}


@pytest.mark.parametrize("spoil, reason", BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_bad_text_features_are_refused_and_not_cached(spoil, reason: str, monkeypatch) -> None:
    encoder = ColorEncoder(None, "cpu")
    pipeline = Ovs3d(synthetic.make_config(), clip=encoder)
    good = encoder.encode_text(["red", "green"])
    with monkeypatch.context() as patch:
        patch.setattr(encoder, "encode_text", lambda prompts: spoil(good))
        with pytest.raises(UserError, match=f"text features.*{reason}"):
            pipeline.encode_text(["red", "green"])
    assert torch.equal(pipeline.encode_text(["red", "green"]), good)
    assert torch.equal(check_texts(good, 2, encoder), good)


@pytest.mark.parametrize("shape", [(0, 0, 3), (4, 3), (2, 2, 4)])
def test_bad_patch_features_are_refused(shape: tuple[int, ...]) -> None:
    patches = ColorPatches(None, "cpu")
    assert check_patches(torch.zeros(2, 2, 3), patches).shape == (2, 2, 3)
    with pytest.raises(UserError, match="patch features"):
        check_patches(torch.zeros(shape), patches)
    with pytest.raises(UserError, match="NaN or infinite"):
        check_patches(torch.full((2, 2, 3), NAN), patches)
