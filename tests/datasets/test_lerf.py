"""lerf_ovs annotations: masks that overlap and boxes, worked out by hand, and damaged annotations."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from helpers import datasets_on_disk as disk
from PIL import Image

from ovs3d_ros.datasets import open_dataset


def block(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """The pixels [48, 64] bool from one corner to the other, both inclusive."""
    pixels = np.zeros((disk.HEIGHT, disk.WIDTH), dtype=bool)
    pixels[top : bottom + 1, left : right + 1] = True
    return pixels


APPLE, OTHER, BOWL = block(8, 8, 15, 15), block(40, 20, 47, 27), block(4, 4, 19, 19)


def test_annotations_beside_the_scene_may_overlap(tmp_path):
    dataset = open_dataset(disk.write_lerf(tmp_path))
    assert (dataset.format, dataset.name, dataset.annotated, dataset.has_labels) == (
        "colmap",
        "table",
        [0, 1],
        False,
    )
    annotations = dataset[1].annotations
    assert list(annotations) == ["green apple", "bowl"]
    np.testing.assert_array_equal(annotations["green apple"].mask, APPLE | OTHER)
    np.testing.assert_array_equal(annotations["bowl"].mask, BOWL)
    np.testing.assert_array_equal(annotations["green apple"].boxes, APPLE | OTHER)


def test_annotations_of_another_size_are_resized(tmp_path):
    annotations = open_dataset(disk.write_lerf(tmp_path))[0].annotations
    assert list(annotations) == ["green apple"]
    np.testing.assert_array_equal(annotations["green apple"].mask, APPLE)
    np.testing.assert_array_equal(annotations["green apple"].boxes, APPLE)
    small = open_dataset(tmp_path / "lerf_ovs" / "table", max_image_size=32)[0]
    assert small.annotations["green apple"].mask.shape == small.image.shape[:2] == (24, 32)
    assert small.annotations["green apple"].mask.sum() == APPLE.sum() / 4


def test_mask_is_the_polygon_and_not_the_box(tmp_path):
    scene = disk.write_lerf(tmp_path)
    # The reader truncates corners to whole pixels: 10, 10; 30, 10; 10, 30.
    triangle = disk.outlined("wedge", [[10.9, 10.9], [30.2, 10.0], [10.0, 30.7]])
    triangle["bbox"] = [30, 30, 10, 10]  # any two corners
    disk.write_annotation(scene.parent / "label" / "table", "b.jpg", (64, 48), [triangle])
    wedge = open_dataset(scene)[1].annotations["wedge"]
    rows, columns = np.mgrid[:48, :64]
    np.testing.assert_array_equal(wedge.mask, (columns >= 10) & (rows >= 10) & (columns + rows <= 40))
    np.testing.assert_array_equal(wedge.boxes, block(10, 10, 30, 30))


def test_annotations_inside_the_scene_are_found_by_any_path(tmp_path, monkeypatch):
    scene = disk.write_lerf(tmp_path)
    monkeypatch.chdir(scene)
    assert open_dataset(".").annotated == [0, 1]
    shutil.move(scene.parent / "label" / "table", scene / "label")
    assert open_dataset(scene).annotated == [0, 1]
    shutil.rmtree(scene / "label")
    frame = open_dataset(scene)[0]
    assert open_dataset(scene).annotated == [] and frame.annotations is None


def test_masks_and_boxes_are_undistorted_like_the_image(tmp_path):
    scene = disk.write_colmap_text(tmp_path / "table", "SIMPLE_RADIAL 64 48 100 32 24 0.6")
    Image.fromarray(255 * block(2, 2, 61, 45).astype(np.uint8)).save(scene / "images" / "b.png")
    disk.write_annotation(
        scene / "label", "b.png", (64, 48), [disk.outlined("frame", disk.square(2, 2, 61, 45))]
    )
    frame = open_dataset(scene)[1]
    shown = frame.image[..., 0] > 127
    assert (shown != block(2, 2, 61, 45)).mean() > 0.005, "the distortion is to be seen"
    for pixels in (frame.annotations["frame"].mask, frame.annotations["frame"].boxes):
        assert (pixels != shown).mean() < 0.002


def _object(**keys) -> dict:
    return disk.outlined("apple", disk.square(8, 8, 15, 15)) | keys


def _document(*objects: object, **info) -> dict:
    return {"info": {"name": "b.jpg", "width": 64, "height": 48} | info, "objects": list(objects)}


BAD = {
    "truncated": ('{"info": {', "b.json: not valid JSON"),
    "a list": ([], "b.json: expected a JSON object"),
    "labelme": ({"shapes": []}, "b.json: expected 'info' and 'objects' as in lerf_ovs; fix it, or move it"),
    "objects by name": ({"info": {}, "objects": {}}, "expected 'info' and 'objects'"),
    "no name": (_document(name=None), "info.name is None; give the file name"),
    "no width": (_document(width=None), "info.width is None; give the size"),
    "half a pixel": (_document(height=47.5), "info.height is 47.5; give the size"),
    "no height": (_document(height=0), "info.height is 0; give the size"),
    "infinite width": (_document(width=float("inf")), "info.width is inf; give the size"),
    "another shape of image": (
        _document(_object(), width=48, height=64),
        "48x64 does not match its image b.png of 64x",
    ),
    "an image without a pose": (
        _document(name="c.jpg"),
        "annotates c.jpg, which is none of the 2 posed images",
    ),
    "annotated twice": (_document(name="a.jpg"), "annotates a.jpg, and so does a.json; keep one of them"),
    "object of nothing": (_document(None), "object 0 is None; expected category"),
    "no category": (_document(_object(category=" ")), "object 0: category is ' '; give the name"),
    "two points": (
        _document(_object(), _object(segmentation=[[1, 1], [5, 5]])),
        "object 1 (apple): segmentation has 2 points, and a polygon needs at least 3",
    ),
    "no polygon": (_document(_object(segmentation=None)), "object 0 (apple): segmentation is not a list"),
    "flat polygon": (
        _document(_object(segmentation=[8, 8, 15, 8, 15, 15])),
        "(apple): segmentation is not a list",
    ),
    "text in a polygon": (
        _document(_object(segmentation=[[1, 1], [5, "5"], [5, 1]])),
        "(apple): segmentation is '5'",
    ),
    "NaN in a polygon": (
        _document(_object(segmentation=[[1, 1], [5, float("nan")], [5, 1]])),
        "segmentation is nan",
    ),
    "outside": (
        _document(_object(segmentation=disk.square(64, 2, 70, 9))),
        "(apple): lies outside of the 64x48 image",
    ),
    "no box": (_document(_object(bbox=None)), "(apple): bbox is None; give [x1, y1, x2, y2]"),
    "half a box": (_document(_object(bbox=[1, 2])), "(apple): bbox is [1, 2]; give"),
    "text in a box": (_document(_object(bbox=[1, 2, 3, "4"])), "(apple): bbox is '4'"),
}


@pytest.mark.parametrize("name", BAD)
def test_error_of_a_bad_annotation_names_the_remedy(name, tmp_path):
    document, message = BAD[name]
    scene = disk.write_lerf(tmp_path)
    text = document if isinstance(document, str) else json.dumps(document)
    (scene.parent / "label" / "table" / "b.json").write_text(text)
    said = disk.refusal(scene)
    assert message in said and "b.json" in said


def test_annotations_in_two_places_are_refused(tmp_path):
    scene = disk.write_lerf(tmp_path)
    shutil.copytree(scene.parent / "label" / "table", scene / "label")
    assert "has annotations in" in disk.refusal(scene) and "keep one of them" in disk.refusal(scene)
