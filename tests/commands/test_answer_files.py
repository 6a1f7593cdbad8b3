"""The documented form of objects.json."""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
from helpers.command_line import PROMPTS, ovs3d
from helpers.ply import read_ply
from PIL import Image
from scipy.spatial.transform import Rotation

from ovs3d_ros.datasets import open_dataset

TYPES = {"array": list, "object": dict, "string": str, "boolean": bool, "integer": int, "null": type(None)}


def violations(value: Any, schema: dict, path: str = "") -> list[str]:
    """Where a value breaks a JSON schema, as far as ours uses them; undescribed fields count too."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kinds and not any(is_number if kind == "number" else type(value) is TYPES[kind] for kind in kinds):
        return [f"{path}: {value!r} is no {kinds}"]
    found = [f"{path}: {value!r}"] * ("enum" in schema and value not in schema["enum"])
    if is_number and not schema.get("minimum", -np.inf) <= value <= schema.get("maximum", np.inf):
        found.append(f"{path}: {value} is out of range")
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", np.inf):
            found.append(f"{path}: {len(value)} items")
        for index, item in enumerate(value):
            found += violations(item, schema["items"], f"{path}[{index}]")
    if isinstance(value, dict) and "properties" in schema:
        fields = schema["properties"]
        found += [
            f"{path}: {name}" for name in set(value) ^ set(schema["required"]) | set(value) - set(fields)
        ]
        for name in set(value) & set(fields):
            found += violations(value[name], fields[name], f"{path}.{name}")
    return found


def test_objects_keep_to_the_documented_schema(answered, repository):
    schema = json.loads((repository / "docs" / "objects.schema.json").read_text())
    assert violations(answered[1], schema) == []
    for name, wrong in (
        ("verdict", "maybe"),
        ("found", 1),
        ("presence", 2.0),
        ("objects", None),
        ("extra", 0),
    ):
        assert violations([answered[1][0] | {name: wrong}], schema), name


def test_documented_quaternion_turns_the_box(answered):
    """The points of an instance lie in its box if the quaternion is w x y z and the sizes are full edges."""
    cloud = read_ply(answered[0] / "cloud.ply")
    points = np.stack([cloud[axis] for axis in "xyz"], axis=1)
    boxes = [box for entry in answered[1] for box in entry["objects"]]
    assert len(boxes) >= 3
    for box in boxes:
        w, x, y, z = box["quat"]
        local = (
            Rotation.from_quat([x, y, z, w])
            .inv()
            .apply(points[cloud["instance"] == box["instance"]] - box["center"])
        )
        inside = (np.abs(local) <= np.array(box["size"]) / 2 + 0.005).all(axis=1)
        assert inside.mean() > 0.8, box
        assert (np.abs(local).max(axis=0) > 0.35 * np.array(box["size"])).all(), (
            "the box is no larger than that"
        )


def test_overlays_lie_on_the_photographs_where_the_data_are_given(mapped, scene, tmp_path):
    """A photograph has detail that a map of 120 steps lacks; what is not labelled is dimmed, not blurred."""
    assert ovs3d("query", mapped[0], *PROMPTS, "-o", tmp_path / "on_photo", "--data", scene) == 0
    assert ovs3d("query", mapped[0], *PROMPTS, "-o", tmp_path / "on_render") == 0
    names = sorted(path.name for path in (tmp_path / "on_photo" / "overlays").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "on_render" / "overlays").iterdir())
    dataset = open_dataset(scene)
    for name in names[:2]:
        photograph = dataset[dataset.names.index(name.removesuffix(".png"))].image
        errors = []
        for kind in ("on_photo", "on_render"):
            picture = np.array(Image.open(tmp_path / kind / "overlays" / name).convert("RGB"))
            height = round(photograph.shape[0] * picture.shape[1] / photograph.shape[1])
            shown = cv2.resize(picture[:height], photograph.shape[1::-1], interpolation=cv2.INTER_AREA)
            mask = np.array(Image.open(tmp_path / kind / "masks" / name))
            free = cv2.resize(mask, photograph.shape[1::-1], interpolation=cv2.INTER_NEAREST) == 0
            free &= cv2.dilate((~free).astype(np.uint8), np.ones((9, 9))) == 0
            grey, truth = shown[free].mean(1), photograph[free].mean(1)
            errors.append(np.std(grey - np.polyval(np.polyfit(truth, grey, 1), truth)))
        assert errors[0] < 0.7 * errors[1]
