"""Masks beside photographs say which pixels show the scene."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import datasets_on_disk as disk
from PIL import Image

from ovs3d_ros.datasets import open_dataset


def write_mask(path, size=(64, 48), black=(slice(0, 12), slice(None)), white=255):
    """A mask whose upper quarter, or `black`, is black."""
    grey = np.full(size[::-1], white, np.uint8)
    grey[black] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey).save(path)


def with_mask_path(root, **frame):
    disk.write_nerfstudio(root)
    document = disk.transforms()
    document["frames"][0] |= frame
    disk.write_transforms(root, document)
    return root


def assert_upper_quarter_is_hidden(mask):
    height = mask.shape[0]
    assert mask.dtype == np.bool_ and not mask[: height // 4].any() and mask[height // 4 :].all()


def test_mask_path_of_nerfstudio_is_read(tmp_path):
    write_mask(tmp_path / "masks/a.png", white=1)
    dataset = open_dataset(with_mask_path(tmp_path, mask_path="masks/a.png"))
    assert dataset.masked == 1 and dataset[1].mask is None
    assert_upper_quarter_is_hidden(dataset[0].mask)
    assert "mask_path" in disk.refusal(with_mask_path(tmp_path, mask_path="masks/other.png"))


def test_dynamic_mask_of_instant_ngp_is_the_other_way_round(tmp_path):
    disk.write_nerfstudio(tmp_path)
    write_mask(tmp_path / "images/dynamic_mask_b.png", black=(slice(12, None), slice(None)))
    dataset = open_dataset(tmp_path)
    assert dataset[0].mask is None
    assert_upper_quarter_is_hidden(dataset[1].mask)


@pytest.mark.parametrize("writer", ["colmap_text", "colmap_binary", "llff"])
@pytest.mark.parametrize("keep_suffix", [True, False])
def test_folder_of_masks_is_read_as_in_colmap(tmp_path, caplog, writer, keep_suffix):
    root = disk.WRITERS[writer](tmp_path)
    photographs = open_dataset(root).image_paths
    (root / "masks").mkdir()
    open_dataset(root)
    assert f"0 of {len(photographs)} images have a mask" in caplog.text
    caplog.clear()
    for path in photographs:
        width, height = Image.open(path).size
        name = f"{path.name}.png" if keep_suffix else f"{path.stem}.png"
        write_mask(root / "masks" / name, (width, height), (slice(0, height // 4), slice(None)))
    dataset = open_dataset(root)
    assert dataset.masked == len(dataset) and not caplog.text
    assert_upper_quarter_is_hidden(dataset[0].mask)


def test_photographs_of_one_name_need_masks_in_folders(tmp_path):
    root = disk.write_colmap_text(tmp_path)
    table = root / "sparse/0/images.txt"
    for camera, name in (("left", "a"), ("right", "b")):
        (root / "images" / camera).mkdir()
        (root / f"images/{name}.png").rename(root / f"images/{camera}/0.png")
        table.write_text(table.read_text().replace(f"{name}.png", f"{camera}/0.png"))
    write_mask(root / "masks/0.png")
    assert "masks/0.png: is the mask of" in disk.refusal(root)
    (root / "masks/0.png").unlink()
    for camera, rows in (("left", 12), ("right", 24)):
        write_mask(root / f"masks/{camera}/0.png.png", black=(slice(0, rows), slice(None)))
    assert [int((~frame.mask[:, 0]).sum()) for frame in open_dataset(root)] == [12, 24]


def test_pixel_that_mixes_masked_ones_is_masked(tmp_path):
    write_mask(tmp_path / "masks/a.png", black=(slice(0, 13), slice(None)))
    frame = open_dataset(with_mask_path(tmp_path, mask_path="masks/a.png"), 32)[0]
    assert frame.mask.shape == (24, 32) and not frame.mask[:7].any() and frame.mask[7:].all()


def test_mask_of_another_shape_than_its_image_is_refused(tmp_path):
    write_mask(tmp_path / "masks/a.png", (64, 64))
    root = with_mask_path(tmp_path, mask_path="masks/a.png")
    with pytest.raises(ValueError, match=r"a\.png: 64x64 does not match its image a\.png of 64x48"):
        open_dataset(root)[0]


def test_labels_end_at_the_mask(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("1 wall\n")
    for name in "ab":
        Image.fromarray(np.ones((48, 64), np.uint8)).save(tmp_path / f"labels/{name}.png")
    write_mask(tmp_path / "masks/a.png")
    dataset = open_dataset(with_mask_path(tmp_path, mask_path="masks/a.png"))
    assert_upper_quarter_is_hidden(dataset[0].labels == 1)
    assert (dataset[1].labels == 1).all()


def test_annotations_end_at_the_mask(tmp_path):
    root = disk.write_lerf(tmp_path)  # an apple at columns and rows 8 to 15
    write_mask(root / "masks/b.png.png")
    apple = open_dataset(root)[1].annotations["green apple"]
    for pixels in (apple.mask, apple.boxes):
        assert not pixels[:12].any() and pixels[12:16, 8:16].all()
