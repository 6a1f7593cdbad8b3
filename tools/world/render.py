"""Renders a scene with Cycles and writes it in nerfstudio layout with depth, labels and instances."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import bpy
import cv2
import numpy as np
import OpenEXR
from room import Scene

WIDTH, HEIGHT = 320, 240


@dataclass(frozen=True)
class Quality:
    """Cycles settings of one kind of scene.

    Attributes:
        samples: samples per pixel before denoising.
        exact_geometry: render depth and instances again through pixel centres. Otherwise they come from the
            first colour sample, whose ray is jittered inside the pixel.
    """

    samples: int
    exact_geometry: bool


def reset(threads: int) -> None:
    """An empty Blender file with Cycles on `threads` CPU threads and the passes we need."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.render.resolution_x, scene.render.resolution_y = WIDTH, HEIGHT
    scene.render.resolution_percentage = 100
    scene.render.threads_mode, scene.render.threads = "FIXED", threads
    scene.render.use_persistent_data = True
    scene.render.image_settings.file_format = "OPEN_EXR_MULTILAYER"
    scene.render.image_settings.color_depth = "32"
    scene.render.image_settings.exr_codec = "NONE"
    layer = bpy.context.view_layer
    layer.use_pass_z = layer.use_pass_object_index = True
    cycles = scene.cycles
    cycles.device = "CPU"
    cycles.use_adaptive_sampling = cycles.use_light_tree = False
    cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 2, 1, 1
    cycles.transmission_bounces, cycles.transparent_max_bounces = 0, 3
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.sample_clamp_indirect = 2.0
    cycles.denoiser = "OPENIMAGEDENOISE"
    cycles.denoising_input_passes = "RGB_ALBEDO_NORMAL"
    cycles.denoising_prefilter = "FAST"
    cycles.denoising_quality = "BALANCED"


def add_camera(field_of_view: float):
    """A pinhole camera with a horizontal field of view in radians."""
    data = bpy.data.cameras.new("camera")
    data.sensor_fit = "HORIZONTAL"
    data.angle = field_of_view
    data.clip_start = 0.02
    camera = bpy.data.objects.new("camera", data)
    bpy.context.scene.collection.objects.link(camera)
    bpy.context.scene.camera = camera
    return camera


def encode(radiance: np.ndarray) -> np.ndarray:
    """Linear radiance [H, W, 3] to sRGB uint8; a soft shoulder above 0.7 stands for the camera's response."""
    excess = np.clip(radiance - 0.7, 0, None)
    value = np.where(radiance > 0.7, 0.7 + 0.3 * (1 - np.exp(-excess / 0.3)), np.clip(radiance, 0, None))
    srgb = np.where(value <= 0.0031308, 12.92 * value, 1.055 * np.maximum(value, 1e-9) ** (1 / 2.4) - 0.055)
    return np.round(srgb * 255).astype(np.uint8)


def _read(path: Path) -> dict[str, np.ndarray]:
    """The passes of a multilayer EXR by name: 'Combined' [H, W, 3], 'Depth' and 'IndexOB' [H, W]."""
    channels = OpenEXR.File(str(path), separate_channels=True).channels()
    planes = {name.split(".", 1)[1]: channel.pixels for name, channel in channels.items() if "." in name}
    return {
        "Combined": np.stack([planes[f"Combined.{c}"] for c in "RGB"], axis=-1),
        "Depth": next(plane for name, plane in planes.items() if name.startswith("Depth")),
        "IndexOB": next(
            plane for name, plane in planes.items() if name.startswith(("IndexOB", "Object Index"))
        ),
    }


def _shoot(folder: Path, samples: int, denoise: bool, filter_width: float) -> dict[str, np.ndarray]:
    """One Cycles render of the current camera through a temporary EXR."""
    scene = bpy.context.scene
    scene.cycles.samples = samples
    scene.cycles.use_denoising = denoise
    scene.cycles.pixel_filter_type = "BLACKMAN_HARRIS"
    scene.cycles.filter_width = filter_width
    scene.render.filepath = str(folder / "frame.exr")
    bpy.ops.render.render(write_still=True)
    passes = _read(folder / "frame.exr")
    os.unlink(folder / "frame.exr")
    return passes


def render_frame(folder: Path, quality: Quality) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Render the current camera.

    Returns:
        RGB uint8 [H, W, 3]; planar z depth uint16 millimetres [H, W]; instance uint8 [H, W]; 0 = none.
    """
    passes = _shoot(folder, quality.samples, True, 1.5)
    rgb = encode(passes["Combined"])
    if quality.exact_geometry:
        passes = _shoot(folder, 1, False, 0.01)
    depth = passes["Depth"].astype(np.float64) * 1000
    millimetres = np.where(depth < 20000, np.round(depth), 0).astype(np.uint16)
    return rgb, millimetres, np.round(passes["IndexOB"]).astype(np.uint8)


def class_names(scene: Scene) -> list[str]:
    """'unlabelled' and then the distinct label names in order of first use."""
    return ["unlabelled", *dict.fromkeys(instance.label_name for instance in scene.instances)]


def write_frame(folder: Path, number: int, images: tuple, lookup: np.ndarray) -> dict:
    """Write the four images of a frame; `lookup` [256] maps instance to class. Returns the file paths."""
    rgb, depth, instances = images
    paths = {
        "file_path": f"images/{number:05d}.jpg",
        "depth_file_path": f"depth/{number:05d}.png",
        "label_file_path": f"labels/{number:05d}.png",
        "instance_file_path": f"instances/{number:05d}.png",
    }
    for path in paths.values():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / paths["file_path"]), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    for key, image in (
        ("depth_file_path", depth),
        ("label_file_path", lookup[instances]),
        ("instance_file_path", instances),
    ):
        cv2.imwrite(str(folder / paths[key]), image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return paths


def render_scene(folder: Path, scene: Scene, poses: list, field_of_view: float, quality: Quality) -> None:
    """Render all poses of a scene into `folder` (see the README for the layout)."""
    folder.mkdir(parents=True, exist_ok=True)
    camera = add_camera(field_of_view)
    names = class_names(scene)
    lookup = np.zeros(256, np.uint8)
    for instance in scene.instances:
        lookup[instance.index] = names.index(instance.label_name)
    focal = WIDTH / 2 / np.tan(field_of_view / 2)
    frames = []
    for number, pose in enumerate(poses):
        camera.matrix_world = pose
        paths = write_frame(folder, number, render_frame(folder, quality), lookup)
        frames.append({**paths, "transform_matrix": [list(row) for row in pose]})
    transforms = {
        "camera_model": "PINHOLE",
        "w": WIDTH,
        "h": HEIGHT,
        "fl_x": focal,
        "fl_y": focal,
        "cx": WIDTH / 2,
        "cy": HEIGHT / 2,
        "depth_unit_m": 0.001,
        "frames": frames,
    }
    (folder / "transforms.json").write_text(json.dumps(transforms, indent=1))
    (folder / "classes.txt").write_text("".join(f"{k} {name}\n" for k, name in enumerate(names)))
    objects = {}
    for instance in scene.instances:
        record = {
            key: value for key, value in asdict(instance).items() if key not in ("index", "low", "high")
        }
        size = np.round(instance.high - instance.low, 4).tolist()
        objects[instance.index] = {
            **record,
            "size": size,
            "centre": ((instance.low + instance.high) / 2).round(4).tolist(),
        }
    (folder / "objects.json").write_text(json.dumps(objects, indent=1))
