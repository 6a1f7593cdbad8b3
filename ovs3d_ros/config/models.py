"""Parameters of the machine and of the encoders."""

from __future__ import annotations

from dataclasses import dataclass

from ovs3d_ros.config.leaf import MACHINE, MAP, RUNTIME, SESSION, leaf


@dataclass(frozen=True, slots=True)
class ComputeConfig:
    """Devices and threads of this computer."""

    device: str = leaf(
        "auto",
        MACHINE,
        "Device to compute on. auto takes the GPU if torch sees one, else the CPU.",
        choices=("auto", "cpu", "cuda"),
    )
    threads: int = leaf(
        0,
        MACHINE,
        "CPU threads of the rasterizer and of the image encoder. 0: one per core.",
        low=0,
        high=256,
    )
    torch_threads: int = leaf(
        1,
        MACHINE,
        "CPU threads of torch for all but the image encoder, whose steps are long. For short steps more "
        "threads rarely pay.",
        low=1,
        high=256,
    )
    rasterizer: str = leaf(
        "auto",
        MACHINE,
        "Rasterizer that renders and trains the Gaussians. auto takes gsplat on a GPU and the package's own "
        "rasterizer on a CPU.",
        choices=("auto", "cpu", "gsplat"),
    )
    memory_limit: int = leaf(
        0,
        MACHINE | RUNTIME,
        "Memory the process of the node may use. From four fifths of it on, /diagnostics warns; when it is "
        "used up, frames are ignored. 0: four fifths of the memory of the machine or the container.",
        unit="MiB",
        low=0,
        high=2**40,
    )
    seed: int = leaf(
        0,
        SESSION,
        "Seed of all random choices. Change it to see how much a result depends on them.",
        low=0,
        high=2**32 - 1,
    )


_FORMATS = "auto", "float32", "bfloat16"
_PRECISION = (
    "Number format of the image encoder. bfloat16 is about twice as fast for large models on a processor "
    "that multiplies it natively; auto takes it there, and float32 elsewhere."
)


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """Image-text encoder: the model that understands prompts, and how it sees images."""

    model: str = leaf(
        "bundled",
        MAP,
        "Name of an open_clip model. Take ViT-B-16 for real scenes, or offline 'conse', for things only "
        "(extra photos). 'bundled' is a small offline model that knows only the rendered demo world. An "
        "import string pkg.module:Class names an encoder of your own.",
    )
    pretrained: str = leaf(
        "openai",
        MAP,
        "Weights of the open_clip model: a pretrained tag, or the path of a checkpoint. Ignored by bundled "
        "and conse.",
    )
    mode: str = leaf(
        "auto",
        MAP,
        "How an image is encoded: as many overlapping crops (pyramid, as in 3D-OVS; slower) or in one pass "
        "over the whole image (dense). auto takes the mode the model was calibrated with, else pyramid on a "
        "GPU and dense on a CPU.",
        choices=("auto", "pyramid", "dense"),
    )
    crop_divisors: tuple[float, ...] = leaf(
        (3.0, 5.0, 8.0),
        MAP,
        "Crop sizes of the pyramid, one per level: the crop side is the shorter image side divided by this "
        "number. Larger numbers give smaller crops, for smaller things.",
        low=1.0,
    )
    crop_metres: tuple[float, ...] = leaf(
        (),
        MAP,
        "Crop sides of the pyramid in the scene, one per level, for images with depth. A level then means "
        "the same from near and far. Replaces crop_divisors. Empty: crops are sized by crop_divisors.",
        unit="m",
        low=0.001,
        high=100.0,
    )
    crop_stride: float = leaf(
        0.25,
        MAP,
        "Distance between neighbouring crops of the pyramid. Smaller is finer and slower.",
        unit="crop sides",
        low=0.05,
        high=1.0,
    )
    batch_size: int = leaf(
        256,
        MACHINE,
        "Crops encoded at once. Lower it if the GPU runs out of memory.",
        low=1,
        high=65536,
    )
    image_size: int = leaf(
        640,
        MAP,
        "Longer side to which larger images are reduced before encoding. 0: keep the size.",
        unit="px",
        low=0,
        high=8192,
    )
    dense_sizes: tuple[int, ...] = leaf(
        (),
        MAP,
        "Longer sides at which dense mode encodes the image; smaller images are enlarged. The features of "
        "several sizes are averaged. Empty: the model's own sizes, else image_size.",
        unit="px",
        low=1,
        high=8192,
    )
    precision: str = leaf("auto", MACHINE, _PRECISION, choices=_FORMATS)
    cache: str = leaf(
        "",
        MACHINE,
        "Folder that keeps encoded images on disk, so that the same image is encoded once. Nothing in it is "
        "ever deleted. Empty: no cache.",
    )


@dataclass(frozen=True, slots=True)
class DinoConfig:
    """Image encoder without text, which checks refinements."""

    model: str = leaf(
        "bundled",
        MAP,
        "Name of a timm model. Take vit_base_patch8_224.dino for real scenes, or offline 'conse' (extra "
        "photos). 'bundled' is a small offline model that knows only the rendered demo world. An import "
        "string pkg.module:Class names an encoder of your own.",
    )
    image_size: int = leaf(
        320,
        MAP,
        "Longer side at which images are encoded; smaller images are enlarged.",
        unit="px",
        low=32,
        high=4096,
    )
    precision: str = leaf("auto", MACHINE, _PRECISION, choices=_FORMATS)
    cache: str = leaf(
        "",
        MACHINE,
        "Folder that keeps encoded images on disk; it may be that of clip.cache. Empty: no cache.",
    )
