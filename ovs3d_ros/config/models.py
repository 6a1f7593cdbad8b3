"""Parameters of the machine and of the encoders."""

from __future__ import annotations

from dataclasses import dataclass

from ovs3d_ros.config.leaf import leaf


@dataclass(frozen=True, slots=True)
class ComputeConfig:
    device: str = leaf(
        "auto", "Where to compute; auto takes the GPU when there is one", choices=("auto", "cpu", "cuda")
    )
    threads: int = leaf(0, "CPU threads of the rasterizer, 0 = one per core", low=0, high=256)
    torch_threads: int = leaf(
        1,
        "CPU threads of torch; its spinning threads cost more than they bring when other "
        "processes share the cores",
        low=1,
        high=256,
    )
    rasterizer: str = leaf(
        "auto", "auto: gsplat on a GPU, our own on a CPU", choices=("auto", "cpu", "gsplat")
    )
    seed: int = leaf(0, "Seed of all random choices", low=0, high=2**32 - 1)


_FORMATS = "auto", "float32", "bfloat16"
_PRECISION = (
    "Number format the image tower computes in; auto takes bfloat16 on a processor that multiplies it natively, where "
    "large towers are about twice as fast, else float32"
)


@dataclass(frozen=True, slots=True)
class ClipConfig:
    model: str = leaf(
        "bundled",
        "open_clip model name such as ViT-B-16 (real scenes), 'bundled' for the small "
        "offline model that knows the rendered demo world, or an import string "
        "pkg.module:Class",
    )
    pretrained: str = leaf(
        "openai", "open_clip pretrained tag or a path to a checkpoint; ignored for bundled"
    )
    mode: str = leaf(
        "auto",
        "crop pyramid of 3D-OVS, or one dense forward pass; auto takes what the model was "
        "calibrated with, else pyramid on a GPU and dense on a CPU",
        choices=("auto", "pyramid", "dense"),
    )
    crop_divisors: tuple[float, ...] = leaf(
        (3.0, 5.0, 8.0), "Crop side of each pyramid level is the shorter image side divided by this", low=1.0
    )
    crop_metres: tuple[float, ...] = leaf(
        (0.0,),
        "Crop side of each pyramid level in the scene, for images with depth: a "
        "level means the same from near and far; replaces crop_divisors. 0: "
        "crops are relative to the image",
        unit="m",
        low=0.0,
        high=100.0,
    )
    crop_stride: float = leaf(0.25, "Distance between crops", unit="crop sides", low=0.05, high=1.0)
    batch_size: int = leaf(256, "Crops per forward pass", low=1, high=65536)
    image_size: int = leaf(
        640, "Longer side of the image that is encoded, 0 = as it comes", unit="px", low=0, high=8192
    )
    dense_sizes: tuple[int, ...] = leaf(
        (0,),
        "Longer side of the image in dense mode, smaller ones are enlarged; features of "
        "several are averaged. 0: what it was calibrated with, else image_size",
        unit="px",
        low=0,
        high=8192,
    )
    precision: str = leaf("auto", _PRECISION, choices=_FORMATS)
    cache: str = leaf(
        "", "Folder where crop tables are kept on disk, so that the same image is encoded once; empty: none"
    )

    @property
    def metric_sides(self) -> tuple[float, ...]:
        """Sides in metres, one per level; none where crops are relative to the image."""
        return tuple(side for side in self.crop_metres if side > 0)


@dataclass(frozen=True, slots=True)
class DinoConfig:
    model: str = leaf(
        "bundled",
        "timm model name such as vit_base_patch8_224.dino (real scenes), 'bundled' for the "
        "small offline model that knows the rendered demo world, or an import string "
        "pkg.module:Class",
    )
    image_size: int = leaf(
        320,
        "Longer side of the image that is encoded, smaller ones are enlarged",
        unit="px",
        low=32,
        high=4096,
    )
    precision: str = leaf("auto", _PRECISION, choices=_FORMATS)
    cache: str = leaf("", "Folder where tokens are kept on disk, clip.cache or another; empty: none")
