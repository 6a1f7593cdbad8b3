"""Parameters of the map: its keyframes, Gaussians, training and language features."""

from __future__ import annotations

from dataclasses import dataclass

from ovs3d_ros.config.leaf import MACHINE, MAP, RUNTIME, SESSION, leaf


@dataclass(frozen=True, slots=True)
class MapConfig:
    """Size and resolution of the map, and the folder of map files."""

    directory: str = leaf(
        "~/.ros/ovs3d_maps",
        MACHINE,
        "Folder in which the node's services read and write maps and PLY files. They touch nothing outside "
        "it.",
    )
    max_gaussians: int = leaf(
        150_000,
        MAP | RUNTIME,
        "Largest number of Gaussians that are trained. When the map reaches it, what was out of view for the "
        "longest time is parked in a temporary file until it is seen again; if all is in view, or "
        "map.memory_limit_mib is 0, the Gaussians that contribute least are removed. Memory and time per "
        "step grow with it.",
        low=100,
        high=20_000_000,
    )
    unit: float = leaf(
        0.0,
        MAP,
        "Length of one unit of the poses, for the steps that compare with metres. 0: a metre; but for data "
        "without depth, `ovs3d map` takes the typical depth to be 2 m, unless that is about right already.",
        unit="m",
        low=0.0,
        high=1e6,
    )
    image_size: int = leaf(
        360,
        MAP,
        "Longer side of the images the map is trained on. Raise it for finer detail at a slower pace. 0: "
        "keep the size.",
        unit="px",
        low=0,
        high=8192,
    )
    sh_degree: int = leaf(
        0,
        MAP,
        "Degree of the spherical harmonics of the colour. 0 gives each Gaussian one colour; higher degrees "
        "let it change with the viewing direction.",
        low=0,
        high=3,
    )
    keep_keyframes: bool = leaf(
        False,
        MAP,
        "Map files hold the keyframes too: images, depth and features. A map that was loaded from such a "
        "file is trained, refined and moved by loop closures as if it had never been closed.",
    )
    memory_limit_mib: int = leaf(
        1024,
        MACHINE,
        "Memory for keyframes (images, depth and features, about 1 MB each). Beyond it, those that were not "
        "used for the longest time move to a temporary file, in TMPDIR or else /var/tmp. The default leaves "
        "room for the models and a robot's other programs in 8 GB. 0: no limit, and no Gaussians are parked.",
        unit="MiB",
        low=0,
        high=1_000_000,
    )
    codec_dim: int = leaf(
        61,
        MAP,
        "Numbers per Gaussian into which the language feature is compressed. 29 halves the memory of "
        "features and the time of masks, at some loss of accuracy.",
        low=2,
        high=125,
    )


@dataclass(frozen=True, slots=True)
class KeyframeConfig:
    """When a frame becomes a keyframe, which the map is trained on. Lower values make more keyframes."""

    translation: float = leaf(
        0.06,
        MAP | RUNTIME,
        "The camera must move this far since the last keyframe, in multiples of the median depth it saw "
        "there.",
        unit="median depths",
        low=0.0,
        high=10.0,
    )
    rotation: float = leaf(
        6.0,
        MAP | RUNTIME,
        "Or it must turn this far.",
        unit="degrees",
        low=0.0,
        high=180.0,
    )
    max_interval: float = leaf(
        2.0,
        MAP | RUNTIME,
        "Or this time must pass while the camera moves by at least 1 % of the median depth or turns by 1 "
        "degree.",
        unit="s",
        low=0.0,
    )


@dataclass(frozen=True, slots=True)
class SeedConfig:
    """Where a new keyframe adds Gaussians."""

    spacing: float = leaf(
        3.0,
        MAP | RUNTIME,
        "Distance in the image between neighbouring new Gaussians. Lower it for a denser map.",
        unit="px",
        low=1.0,
        high=64.0,
    )
    opacity: float = leaf(
        0.6, MAP | RUNTIME, "Initial opacity of Gaussians made from measured depth.", low=0.01, high=0.99
    )
    alpha_below: float = leaf(
        0.6,
        MAP | RUNTIME,
        "Add Gaussians at pixels where the opacity of the rendered map is below this.",
        low=0.0,
        high=1.0,
    )
    depth_margin: float = leaf(
        0.05,
        MAP | RUNTIME,
        "Add Gaussians also where measured depth is smaller than rendered depth by more than this fraction: "
        "something stands in front of the mapped surface.",
        low=0.0,
        high=1.0,
    )
    max_depth: float = leaf(
        10.0,
        MAP | RUNTIME,
        "Largest depth that is trusted; measured depth beyond it is ignored. Set it to the range of the "
        "depth camera.",
        unit="m",
        low=0.1,
        high=1000.0,
    )


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Optimisation of the Gaussians."""

    steps_per_keyframe: int = leaf(
        30,
        MAP | RUNTIME,
        "Optimisation steps for each new keyframe. Raise it for better images, lower it to keep up with the "
        "camera.",
        low=0,
        high=10_000,
    )
    least_share: float = leaf(
        0.1,
        SESSION | RUNTIME,
        "Least share of the mapping thread's time that optimisation gets while frames wait. Frames for which "
        "no time is left are dropped and counted. 0: frames always go first.",
        low=0.0,
        high=0.9,
    )
    final_steps: int = leaf(
        5000, MAP, "Optimisation steps of `ovs3d map` after the last frame.", low=0, high=1_000_000
    )
    newest_share: float = leaf(
        0.2,
        MAP,
        "Fraction of the steps that train on the newest keyframe; the others take a random one.",
        low=0.0,
        high=1.0,
    )
    ssim_weight: float = leaf(
        0.2,
        MAP,
        "Weight of the loss 1 - SSIM; the L1 loss of the colours has the rest. 3DGS takes 0.2.",
        low=0.0,
        high=1.0,
    )
    depth_weight: float = leaf(
        0.1,
        MAP,
        "Weight of the L1 loss between rendered and measured depth. 0: train on colours alone.",
        low=0.0,
        high=10.0,
    )
    exposure: bool = leaf(
        True,
        MAP,
        "Learn the exposure of each keyframe, a gain and an offset per colour channel. Leave it on for "
        "cameras with automatic exposure. Renders show the mean exposure.",
    )
    lr_means: float = leaf(8e-4, MAP, "Learning rate of the means.", unit="scene extents", low=0.0, high=1.0)
    lr_scales: float = leaf(2e-2, MAP, "Learning rate of the logarithms of the scales.", low=0.0, high=1.0)
    lr_quats: float = leaf(4e-3, MAP, "Learning rate of the quaternions.", low=0.0, high=1.0)
    lr_opacities: float = leaf(3e-2, MAP, "Learning rate of the opacity logits.", low=0.0, high=1.0)
    lr_colors: float = leaf(
        5e-3,
        MAP,
        "Learning rate of the base colour. The higher spherical harmonics learn at 1/20 of it.",
        low=0.0,
        high=1.0,
    )
    densify_every: int = leaf(
        100, MAP, "Optimisation steps between two rounds of densification and pruning. 0: never.", low=0
    )
    densify_gradient: float = leaf(
        5e-3,
        MAP,
        "A Gaussian is split or cloned if its mean absolute screen-space gradient exceeds this. Lower it for "
        "more and finer Gaussians.",
        unit="loss per half image side",
        low=0.0,
    )
    prune_opacity: float = leaf(0.01, MAP, "Gaussians of a lower opacity are removed.", low=0.0, high=0.5)


@dataclass(frozen=True, slots=True)
class LiftConfig:
    """How language features of the images reach the Gaussians."""

    image_size: int = leaf(
        240,
        MAP,
        "Longer side of the renders through which features are lifted. Raise it for small things; lifting "
        "slows down.",
        unit="px",
        low=16,
        high=4096,
    )
    decay: float = leaf(
        1.0,
        MAP,
        "Factor on a Gaussian's earlier features each time a keyframe sees it again. Lower it below 1 so "
        "that the map forgets things that were moved away.",
        low=0.0,
        high=1.0,
    )
    residual: float = leaf(
        0.15,
        MAP,
        "Refit the feature codec if it leaves more than this fraction of the variance of new features "
        "unexplained.",
        low=0.0,
        high=1.0,
    )
    selection: str = leaf(
        "sharp",
        MAP,
        "How each Gaussian weighs the levels of the crop pyramid: all alike (uniform), a mild blend as in "
        "3D-OVS (faithful), or almost only the level whose feature matches one name most clearly (sharp).",
        choices=("uniform", "faithful", "sharp"),
    )
