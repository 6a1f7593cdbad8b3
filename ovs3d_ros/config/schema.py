"""Every parameter of the system, once.

A tree of frozen dataclasses. Each leaf carries its default, unit, range and description; the YAML file, the command
line (`--set map.max_gaussians=50000`), see `config_io`, and the ROS parameters are all generated from it. This module
imports no torch.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from ovs3d_ros.config.leaf import Leaf, checked, leaf
from ovs3d_ros.types import UserError

# Groups and parameters that say how a map is asked or where copies lie, not how it was made: they are not taken from a map
# file.
ASKING = ("query.", "refine.", "clip.cache", "dino.cache")


@dataclass(frozen=True, slots=True)
class ComputeConfig:
    device: str = leaf("auto", "Where to compute; auto takes the GPU when there is one",
                       choices=("auto", "cpu", "cuda"))
    threads: int = leaf(0, "CPU threads of the rasterizer, 0 = one per core", low=0, high=256)
    torch_threads: int = leaf(1, "CPU threads of torch; its spinning threads cost more than they bring when other "
                                 "processes share the cores", low=1, high=256)
    rasterizer: str = leaf("auto", "auto: gsplat on a GPU, our own on a CPU", choices=("auto", "cpu", "gsplat"))
    seed: int = leaf(0, "Seed of all random choices", low=0, high=2**32 - 1)


_FORMATS = "auto", "float32", "bfloat16"
_PRECISION = ("Number format the image tower computes in; auto takes bfloat16 on a processor that multiplies it natively, where "
              "large towers are about twice as fast, else float32")


@dataclass(frozen=True, slots=True)
class ClipConfig:
    model: str = leaf("bundled", "open_clip model name such as ViT-B-16 (real scenes), 'bundled' for the small "
                                 "offline model that knows the rendered demo world, or an import string "
                                 "pkg.module:Class")
    pretrained: str = leaf("openai", "open_clip pretrained tag or a path to a checkpoint; ignored for bundled")
    mode: str = leaf("auto", "crop pyramid of 3D-OVS, or one dense forward pass; auto takes what the model was "
                             "calibrated with, else pyramid on a GPU and dense on a CPU",
                     choices=("auto", "pyramid", "dense"))
    crop_divisors: tuple[float, ...] = leaf((3.0, 5.0, 8.0), "Crop side of each pyramid level is the shorter image "
                                                             "side divided by this", low=1.0)
    crop_metres: tuple[float, ...] = leaf((0.0,), "Crop side of each pyramid level in the scene, for images with depth: a "
                                                  "level means the same from near and far; replaces crop_divisors. 0: "
                                                  "crops are relative to the image", unit="m", low=0.0, high=100.0)
    crop_stride: float = leaf(0.25, "Distance between crops", unit="crop sides", low=0.05, high=1.0)
    batch_size: int = leaf(256, "Crops per forward pass", low=1, high=65536)
    image_size: int = leaf(640, "Longer side of the image that is encoded, 0 = as it comes", unit="px", low=0,
                           high=8192)
    dense_sizes: tuple[int, ...] = leaf((0,), "Longer side of the image in dense mode, smaller ones are enlarged; features of "
                                              "several are averaged. 0: what it was calibrated with, else image_size",
                                        unit="px", low=0, high=8192)
    precision: str = leaf("auto", _PRECISION, choices=_FORMATS)
    cache: str = leaf("", "Folder where crop tables are kept on disk, so that the same image is encoded once; empty: none")

    @property
    def metric_sides(self) -> tuple[float, ...]:
        """Sides in metres, one per level; none where crops are relative to the image."""
        return tuple(side for side in self.crop_metres if side > 0)


@dataclass(frozen=True, slots=True)
class DinoConfig:
    model: str = leaf("bundled", "timm model name such as vit_base_patch8_224.dino (real scenes), 'bundled' for the "
                                 "small offline model that knows the rendered demo world, or an import string "
                                 "pkg.module:Class")
    image_size: int = leaf(320, "Longer side of the image that is encoded, smaller ones are enlarged",
                           unit="px", low=32, high=4096)
    precision: str = leaf("auto", _PRECISION, choices=_FORMATS)
    cache: str = leaf("", "Folder where tokens are kept on disk, clip.cache or another; empty: none")


@dataclass(frozen=True, slots=True)
class MapConfig:
    directory: str = leaf("~/.ros/ovs3d_maps", "Folder of the maps and PLY files that the node's services read and "
                                               "write; nothing outside it is touched")
    max_gaussians: int = leaf(150_000, "At the cap the least contributing Gaussians go", low=100, high=20_000_000)
    image_size: int = leaf(360, "Longer side of the images the map is trained on, 0 = as they come",
                           unit="px", low=0, high=8192)
    sh_degree: int = leaf(0, "Degree of the spherical harmonics of the colour", low=0, high=3)
    codec_dim: int = leaf(61, "Dimensions of the per-Gaussian code; 29 halves its memory and the time of masks",
                          low=2, high=125)


@dataclass(frozen=True, slots=True)
class KeyframeConfig:
    translation: float = leaf(0.06, "New keyframe after moving this far", unit="median depths", low=0.0, high=10.0)
    rotation: float = leaf(6.0, "New keyframe after turning this far", unit="degrees", low=0.0, high=180.0)
    max_interval: float = leaf(2.0, "New keyframe after this time if the camera moved by 1 % of the typical depth or 1 degree", unit="s", low=0.0)


@dataclass(frozen=True, slots=True)
class SeedConfig:
    spacing: float = leaf(3.0, "Distance between Gaussians seeded from depth", unit="px", low=1.0, high=64.0)
    opacity: float = leaf(0.6, "Initial opacity of Gaussians seeded from depth", low=0.01, high=0.99)
    alpha_below: float = leaf(0.6, "Seed where the render is more transparent than this", low=0.0, high=1.0)
    depth_margin: float = leaf(0.05, "Seed where measured depth lies in front of the render by more than this part",
                               low=0.0, high=1.0)
    max_depth: float = leaf(10.0, "Measured depth beyond this is ignored", unit="m", low=0.1, high=1000.0)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    steps_per_keyframe: int = leaf(30, "Optimisation steps for each new keyframe", low=0, high=10_000)
    final_steps: int = leaf(5000, "Optimisation steps of `ovs3d map` after the last frame", low=0, high=1_000_000)
    newest_share: float = leaf(0.2, "Part of the steps spent on the newest keyframe", low=0.0, high=1.0)
    ssim_weight: float = leaf(0.2, "Weight of (1 - SSIM) against L1", low=0.0, high=1.0)
    depth_weight: float = leaf(0.1, "Weight of the depth loss where depth is measured", low=0.0, high=10.0)
    exposure: bool = leaf(True, "Learn a gain and an offset per keyframe and channel (auto-exposed cameras); "
                                "renders show the mean exposure")
    lr_means: float = leaf(8e-4, "Learning rate of the means", unit="scene extents", low=0.0, high=1.0)
    lr_scales: float = leaf(2e-2, "Learning rate of the log scales", low=0.0, high=1.0)
    lr_quats: float = leaf(4e-3, "Learning rate of the quaternions", low=0.0, high=1.0)
    lr_opacities: float = leaf(3e-2, "Learning rate of the opacity logits", low=0.0, high=1.0)
    lr_colors: float = leaf(5e-3, "Learning rate of the base colour; higher harmonics take 1/20 of it",
                            low=0.0, high=1.0)
    densify_every: int = leaf(100, "Steps between densifications, 0 = never", low=0)
    densify_gradient: float = leaf(5e-3, "Mean absolute screen-space gradient that splits or clones a Gaussian",
                                   unit="loss per half image side", low=0.0)
    prune_opacity: float = leaf(0.01, "Gaussians more transparent than this are removed", low=0.0, high=0.5)


@dataclass(frozen=True, slots=True)
class LiftConfig:
    image_size: int = leaf(240, "Longer side of the views features are lifted from", unit="px", low=16, high=4096)
    decay: float = leaf(1.0, "Factor on old evidence where a Gaussian is seen again; below 1 the map forgets "
                             "what was moved", low=0.0, high=1.0)
    residual: float = leaf(0.15, "Refit the codec when new features leave more than this part of their variance "
                                 "unexplained", low=0.0, high=1.0)
    selection: str = leaf("sharp", "Which level of the crop pyramid speaks for a Gaussian: the one with the clearest "
                                   "name (sharp), a mild blend as in 3D-OVS (faithful), or all alike (uniform)",
                          choices=("uniform", "faithful", "sharp"))


@dataclass(frozen=True, slots=True)
class RefineConfig:
    views: int = leaf(24, "Keyframes whose poses cosines are sharpened from, evenly spread", low=1, high=100_000)
    image_size: int = leaf(240, "Longer side of the views rendered", unit="px", low=16, high=2048)
    background: tuple[str, ...] = leaf(("object", "things", "stuff", "texture"), "Rivals of the user's names")
    temperature: float = leaf(0.03, "Of the softmax over cosines with names; calibrated for the bundled CLIP",
                              low=0.001, high=10.0)
    sharpen_radius: float = leaf(0.02, "Blur of features, sigma", unit="longer image sides", low=0.001, high=0.5)
    sharpen_steps: int = leaf(3, "Rounds that take the surroundings out of small things' cosines; 0 = none", low=0,
                              high=20)
    neighbours: int = leaf(24, "Gaussians that each is aligned with", low=3, high=64)
    normal_scale: float = leaf(0.1, "Square root of the 1 - cosine of normals at which affinity has fallen to 1/e",
                               low=0.001, high=10.0)
    color_scale: float = leaf(10.0, "CIELAB distance of colours at which affinity has fallen to 1/e", low=0.1, high=1e4)
    strength: float = leaf(100.0, "Of the alignment among neighbours against that with the lifted evidence; 0 = none",
                           low=0.0, high=1e6)
    check_views: int = leaf(6, "Views kept aside that decide between old and new", low=1, high=1000)
    attract: float = leaf(210.0, "Weight there of FDA for patches that look alike; RDA has 1", low=0.0, high=1e4)
    repel: float = leaf(2.5, "Weight there of FDA for patches that look different", low=0.0, high=1e4)
    divergence: str = leaf("js", "Of class distributions in FDA there: js has an upper bound, with kl, as in the code of "
                                 "3D-OVS, single patches may decide", choices=("js", "kl"))
    similarity: float = leaf(0.85, "Cosine of DINO features from which FDA takes two patches for one thing; 0.7 for "
                                   "DINO ViT-B/8, as in 3D-OVS", low=-1.0, high=1.0)


@dataclass(frozen=True, slots=True)
class QueryConfig:
    negatives: tuple[str, ...] = leaf(("object", "things", "stuff", "texture"),
                                      "What a prompt competes against in relevancy mode")
    threshold: float = leaf(-1.0, "Relevancy above which a Gaussian carries the label; below 0: the calibrated "
                                  "default of the encoder", low=-1.0, high=1.0)
    calibration: str = leaf("", "File of `ovs3d calibrate` for the encoder in use; empty: the encoder's own, which only "
                                "the bundled one has")
    presence: float = leaf(0.6, "Probability from which a prompt counts as found", low=0.0, high=1.0)
    absent: float = leaf(0.2, "Probability below which it counts as absent; between the two nobody can be sure", low=0.0,
                         high=1.0)
    min_weight: float = leaf(1.0, "Gaussians with less blending weight than this take no part", unit="px", low=0.0)
    instance_gap: float = leaf(0.06, "Gaussians closer than this belong to one instance", unit="m", low=1e-4,
                               high=100.0)
    min_instance: int = leaf(12, "Smallest instance", unit="Gaussians", low=1)


@dataclass(frozen=True, slots=True)
class QosConfig:
    input: str = leaf("sensor_data", "Quality of service of the input subscriptions",
                      choices=("sensor_data", "reliable"))
    depth: int = leaf(10, "Queue length of the input subscriptions", low=1, high=1000)


@dataclass(frozen=True, slots=True)
class InputConfig:
    sync_slop: float = leaf(0.02, "Image, depth and pose within this time belong together", unit="s", low=0.0,
                            high=10.0)
    inbox: int = leaf(8, "Frames waiting for the mapping thread; when full the oldest is dropped and counted",
                      low=1, high=1000)
    silence: float = leaf(5.0, "Report what is missing when no usable frame arrived for this long", unit="s", low=0.5)
    world_frame: str = leaf("map", "Frame of the map and of all outputs")
    use_depth: bool = leaf(True, "Subscribe to depth; without it images alone are mapped")
    image_transport: str = leaf("raw", "Subscribe to image or image/compressed", choices=("raw", "compressed"))
    depth_transport: str = leaf("raw", "Subscribe to depth or depth/compressedDepth",
                                choices=("raw", "compressedDepth"))
    rectification: str = leaf("auto", "Raw images are undistorted by camera_info; auto: images are rectified if their "
                                      "topic's name contains rect", choices=("auto", "raw", "rectified"))
    cameras: tuple[str, ...] = leaf(("",), "Names of several cameras, before their topics: [front, rear] takes "
                                           "front/image, rear/image, ...; an empty name: one camera, image")
    extrinsics: tuple[float, ...] = leaf((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0), "Optical frame in the odometry's child "
                                         "frame, for pose_source odom, and in that of keyframe_path: x y z qx qy qz "
                                         "qw of each camera")
    pose_gap: float = leaf(0.5, "Longest gap poses are interpolated over", unit="s", low=0.0, high=60.0)
    clock_jump: float = leaf(2.0, "A stamp this much older than the newest: the clock was set back, time buffers are "
                                  "emptied, the map is kept", unit="s", low=0.1)


@dataclass(frozen=True, slots=True)
class BagConfig:
    image: str = leaf("", "Colour topic of a bag that is read offline (the node's topics are remapped); empty: the "
                          "only one there is")
    camera_info: str = leaf("", "Its camera_info topic in the bag; empty: the one beside the colour topic")
    depth: str = leaf("", "Depth topic in the bag; empty: the only one, or the one in the colour camera's frame")
    pose: str = leaf("", "PoseStamped, Odometry, TransformStamped or /tf topic in the bag; empty: the only one, or that "
                         "of pose_source")


@dataclass(frozen=True, slots=True)
class TfConfig:
    timeout_s: float = leaf(1.0, "Images whose pose or depth does not arrive within this time are dropped and counted",
                            unit="s", low=0.0, high=60.0)


@dataclass(frozen=True, slots=True)
class OutputConfig:
    rate: float = leaf(1.0, "How often the map cloud is published while it changes, and the vocabulary's answer",
                       unit="Hz", low=0.01, high=60.0)
    vocabulary: tuple[str, ...] = leaf(("",), "Names that the node keeps labelled from the start, see ~/set_vocabulary; "
                                              "an empty name: none")
    max_points: int = leaf(200_000, "Points per published cloud", low=100, high=20_000_000)
    min_opacity: float = leaf(0.1, "Gaussians more transparent than this are left out of clouds", low=0.0, high=1.0)
    stand_off: float = leaf(0.8, "Distance of ~/goal_pose from the box of the object", unit="m", low=0.0, high=100.0)
    grid_resolution: float = leaf(0.05, "Side of a cell of ~/query_grid", unit="m", low=0.001, high=10.0)
    save_on_exit: str = leaf("", "File the map is written to when the node ends; empty: it is not")


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration; see `leaves` for a flat view."""

    autostart: bool = leaf(True, "The node configures and activates itself; false leaves that to whoever manages its "
                                 "lifecycle")
    pose_source: str = leaf("pose", "Where camera poses come from", choices=("pose", "odom", "transform", "tf"))
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    dino: DinoConfig = field(default_factory=DinoConfig)
    map: MapConfig = field(default_factory=MapConfig)
    keyframe: KeyframeConfig = field(default_factory=KeyframeConfig)
    seed: SeedConfig = field(default_factory=SeedConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    lift: LiftConfig = field(default_factory=LiftConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    query: QueryConfig = field(default_factory=QueryConfig)
    qos: QosConfig = field(default_factory=QosConfig)
    input: InputConfig = field(default_factory=InputConfig)
    bag: BagConfig = field(default_factory=BagConfig)
    tf: TfConfig = field(default_factory=TfConfig)
    output: OutputConfig = field(default_factory=OutputConfig)


def leaves(config: Any = None, prefix: str = "") -> Iterator[tuple[Leaf, Any]]:
    """Yields (leaf, value) for every parameter of a config (default: `Config()`), in declaration order."""
    config = Config() if config is None else config
    hints = typing.get_type_hints(type(config))
    for f in fields(config):
        value, path = getattr(config, f.name), prefix + f.name
        if is_dataclass(value):
            yield from leaves(value, path + ".")
        else:
            kind = typing.get_origin(hints[f.name]) or hints[f.name]
            yield Leaf(path=path, type=kind, default=f.default, **f.metadata), value


def override(config: Config, values: dict[str, Any]) -> Config:
    """A copy of `config` with dotted paths replaced, e.g. `{"clip.model": "bundled"}`.

    Raises:
        UserError: unknown path, wrong type, or out of range.
    """
    specs = {spec.path: spec for spec, _ in leaves(config)}
    for path, value in values.items():
        if path not in specs:
            close = [p for p in specs if p.rpartition(".")[2] == path.rpartition(".")[2]]
            hint = f"; did you mean {close[0]}?" if close else "; `ovs3d config` lists all parameters"
            raise UserError(f"{path}: no such parameter{hint}")
        config = _replace(config, path.split("."), checked(specs[path], value))
    return config


def _replace(node: Any, names: list[str], value: Any) -> Any:
    if len(names) > 1:
        value = _replace(getattr(node, names[0]), names[1:], value)
    return dataclasses.replace(node, **{names[0]: value})


def resolve_device(config: ComputeConfig) -> str:
    """The torch device name: "cpu" or "cuda".

    Raises:
        UserError: a GPU was asked for and torch sees none.
    """
    if config.device == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if config.device == "cuda":
        raise UserError("compute.device is cuda but torch sees no GPU; install a CUDA build or set compute.device=cpu")
    return "cpu"


def resolve_rasterizer(config: ComputeConfig) -> str:
    """The rasterizer name for the resolved device: "gsplat" or "cpu".

    Raises:
        UserError: as `resolve_device`, or the rasterizer asked for does not work on that device.
    """
    device = resolve_device(config)
    if (config.rasterizer, device) == ("cpu", "cuda") or (config.rasterizer, config.device) == ("gsplat", "cpu"):
        raise UserError(f"compute.rasterizer is {config.rasterizer} but compute.device is {device}: set "
                        f"compute.device={'cpu' if config.rasterizer == 'cpu' else 'cuda'} too, or compute.rasterizer=auto")
    if config.rasterizer != "auto":
        return config.rasterizer
    return "gsplat" if device == "cuda" else "cpu"
