"""Parameters of the map: how it is trained, lifted, refined and asked."""

from __future__ import annotations

from dataclasses import dataclass

from ovs3d_ros.config.leaf import leaf


@dataclass(frozen=True, slots=True)
class MapConfig:
    directory: str = leaf(
        "~/.ros/ovs3d_maps",
        "Folder of the maps and PLY files that the node's services read and "
        "write; nothing outside it is touched",
    )
    max_gaussians: int = leaf(
        150_000, "At the cap the least contributing Gaussians go", low=100, high=20_000_000
    )
    image_size: int = leaf(
        360, "Longer side of the images the map is trained on, 0 = as they come", unit="px", low=0, high=8192
    )
    sh_degree: int = leaf(0, "Degree of the spherical harmonics of the colour", low=0, high=3)
    codec_dim: int = leaf(
        61, "Dimensions of the per-Gaussian code; 29 halves its memory and the time of masks", low=2, high=125
    )


@dataclass(frozen=True, slots=True)
class KeyframeConfig:
    translation: float = leaf(
        0.06, "New keyframe after moving this far", unit="median depths", low=0.0, high=10.0
    )
    rotation: float = leaf(6.0, "New keyframe after turning this far", unit="degrees", low=0.0, high=180.0)
    max_interval: float = leaf(
        2.0,
        "New keyframe after this time if the camera moved by 1 % of the typical depth or 1 degree",
        unit="s",
        low=0.0,
    )


@dataclass(frozen=True, slots=True)
class SeedConfig:
    spacing: float = leaf(3.0, "Distance between Gaussians seeded from depth", unit="px", low=1.0, high=64.0)
    opacity: float = leaf(0.6, "Initial opacity of Gaussians seeded from depth", low=0.01, high=0.99)
    alpha_below: float = leaf(0.6, "Seed where the render is more transparent than this", low=0.0, high=1.0)
    depth_margin: float = leaf(
        0.05,
        "Seed where measured depth lies in front of the render by more than this part",
        low=0.0,
        high=1.0,
    )
    max_depth: float = leaf(10.0, "Measured depth beyond this is ignored", unit="m", low=0.1, high=1000.0)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    steps_per_keyframe: int = leaf(30, "Optimisation steps for each new keyframe", low=0, high=10_000)
    final_steps: int = leaf(
        5000, "Optimisation steps of `ovs3d map` after the last frame", low=0, high=1_000_000
    )
    newest_share: float = leaf(0.2, "Part of the steps spent on the newest keyframe", low=0.0, high=1.0)
    ssim_weight: float = leaf(0.2, "Weight of (1 - SSIM) against L1", low=0.0, high=1.0)
    depth_weight: float = leaf(0.1, "Weight of the depth loss where depth is measured", low=0.0, high=10.0)
    exposure: bool = leaf(
        True,
        "Learn a gain and an offset per keyframe and channel (auto-exposed cameras); "
        "renders show the mean exposure",
    )
    lr_means: float = leaf(8e-4, "Learning rate of the means", unit="scene extents", low=0.0, high=1.0)
    lr_scales: float = leaf(2e-2, "Learning rate of the log scales", low=0.0, high=1.0)
    lr_quats: float = leaf(4e-3, "Learning rate of the quaternions", low=0.0, high=1.0)
    lr_opacities: float = leaf(3e-2, "Learning rate of the opacity logits", low=0.0, high=1.0)
    lr_colors: float = leaf(
        5e-3, "Learning rate of the base colour; higher harmonics take 1/20 of it", low=0.0, high=1.0
    )
    densify_every: int = leaf(100, "Steps between densifications, 0 = never", low=0)
    densify_gradient: float = leaf(
        5e-3,
        "Mean absolute screen-space gradient that splits or clones a Gaussian",
        unit="loss per half image side",
        low=0.0,
    )
    prune_opacity: float = leaf(0.01, "Gaussians more transparent than this are removed", low=0.0, high=0.5)


@dataclass(frozen=True, slots=True)
class LiftConfig:
    image_size: int = leaf(
        240, "Longer side of the views features are lifted from", unit="px", low=16, high=4096
    )
    decay: float = leaf(
        1.0,
        "Factor on old evidence where a Gaussian is seen again; below 1 the map forgets what was moved",
        low=0.0,
        high=1.0,
    )
    residual: float = leaf(
        0.15,
        "Refit the codec when new features leave more than this part of their variance unexplained",
        low=0.0,
        high=1.0,
    )
    selection: str = leaf(
        "sharp",
        "Which level of the crop pyramid speaks for a Gaussian: the one with the clearest "
        "name (sharp), a mild blend as in 3D-OVS (faithful), or all alike (uniform)",
        choices=("uniform", "faithful", "sharp"),
    )


@dataclass(frozen=True, slots=True)
class RefineConfig:
    views: int = leaf(
        24, "Keyframes whose poses cosines are sharpened from, evenly spread", low=1, high=100_000
    )
    image_size: int = leaf(240, "Longer side of the views rendered", unit="px", low=16, high=2048)
    background: tuple[str, ...] = leaf(("object", "things", "stuff", "texture"), "Rivals of the user's names")
    temperature: float = leaf(
        0.03, "Of the softmax over cosines with names; calibrated for the bundled CLIP", low=0.001, high=10.0
    )
    sharpen_radius: float = leaf(
        0.02, "Blur of features, sigma", unit="longer image sides", low=0.001, high=0.5
    )
    sharpen_steps: int = leaf(
        3, "Rounds that take the surroundings out of small things' cosines; 0 = none", low=0, high=20
    )
    neighbours: int = leaf(24, "Gaussians that each is aligned with", low=3, high=64)
    normal_scale: float = leaf(
        0.1,
        "Square root of the 1 - cosine of normals at which affinity has fallen to 1/e",
        low=0.001,
        high=10.0,
    )
    color_scale: float = leaf(
        10.0, "CIELAB distance of colours at which affinity has fallen to 1/e", low=0.1, high=1e4
    )
    strength: float = leaf(
        100.0,
        "Of the alignment among neighbours against that with the lifted evidence; 0 = none",
        low=0.0,
        high=1e6,
    )
    check_views: int = leaf(6, "Views kept aside that decide between old and new", low=1, high=1000)
    attract: float = leaf(
        210.0, "Weight there of FDA for patches that look alike; RDA has 1", low=0.0, high=1e4
    )
    repel: float = leaf(2.5, "Weight there of FDA for patches that look different", low=0.0, high=1e4)
    divergence: str = leaf(
        "js",
        "Of class distributions in FDA there: js has an upper bound, with kl, as in the code of "
        "3D-OVS, single patches may decide",
        choices=("js", "kl"),
    )
    similarity: float = leaf(
        0.85,
        "Cosine of DINO features from which FDA takes two patches for one thing; 0.7 for "
        "DINO ViT-B/8, as in 3D-OVS",
        low=-1.0,
        high=1.0,
    )


@dataclass(frozen=True, slots=True)
class QueryConfig:
    negatives: tuple[str, ...] = leaf(
        ("object", "things", "stuff", "texture"), "What a prompt competes against in relevancy mode"
    )
    threshold: float = leaf(
        -1.0,
        "Relevancy above which a Gaussian carries the label; below 0: the calibrated default of the encoder",
        low=-1.0,
        high=1.0,
    )
    calibration: str = leaf(
        "",
        "File of `ovs3d calibrate` for the encoder in use; empty: the encoder's own, which only "
        "the bundled one has",
    )
    presence: float = leaf(0.6, "Probability from which a prompt counts as found", low=0.0, high=1.0)
    absent: float = leaf(
        0.2,
        "Probability below which it counts as absent; between the two nobody can be sure",
        low=0.0,
        high=1.0,
    )
    min_weight: float = leaf(
        1.0, "Gaussians with less blending weight than this take no part", unit="px", low=0.0
    )
    instance_gap: float = leaf(
        0.06, "Gaussians closer than this belong to one instance", unit="m", low=1e-4, high=100.0
    )
    min_instance: int = leaf(12, "Smallest instance", unit="Gaussians", low=1)
