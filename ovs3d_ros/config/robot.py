"""Parameters of what comes in and goes out: topics, bags, transforms, outputs."""

from __future__ import annotations

from dataclasses import dataclass

from ovs3d_ros.config.leaf import leaf


@dataclass(frozen=True, slots=True)
class QosConfig:
    input: str = leaf(
        "sensor_data", "Quality of service of the input subscriptions", choices=("sensor_data", "reliable")
    )
    depth: int = leaf(10, "Queue length of the input subscriptions", low=1, high=1000)


@dataclass(frozen=True, slots=True)
class InputConfig:
    sync_slop: float = leaf(
        0.02, "Image, depth and pose within this time belong together", unit="s", low=0.0, high=10.0
    )
    inbox: int = leaf(
        8,
        "Frames waiting for the mapping thread; when full the oldest is dropped and counted",
        low=1,
        high=1000,
    )
    silence: float = leaf(
        5.0, "Report what is missing when no usable frame arrived for this long", unit="s", low=0.5
    )
    world_frame: str = leaf("map", "Frame of the map and of all outputs")
    use_depth: bool = leaf(True, "Subscribe to depth; without it images alone are mapped")
    image_transport: str = leaf(
        "raw", "Subscribe to image or image/compressed", choices=("raw", "compressed")
    )
    depth_transport: str = leaf(
        "raw", "Subscribe to depth or depth/compressedDepth", choices=("raw", "compressedDepth")
    )
    rectification: str = leaf(
        "auto",
        "Raw images are undistorted by camera_info; auto: images are rectified if their "
        "topic's name contains rect",
        choices=("auto", "raw", "rectified"),
    )
    cameras: tuple[str, ...] = leaf(
        ("",),
        "Names of several cameras, before their topics: [front, rear] takes "
        "front/image, rear/image, ...; an empty name: one camera, image",
    )
    extrinsics: tuple[float, ...] = leaf(
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
        "Optical frame in the odometry's child "
        "frame, for pose_source odom, and in that of keyframe_path: x y z qx qy qz "
        "qw of each camera",
    )
    pose_gap: float = leaf(0.5, "Longest gap poses are interpolated over", unit="s", low=0.0, high=60.0)
    clock_jump: float = leaf(
        2.0,
        "A stamp this much older than the newest: the clock was set back, time buffers are "
        "emptied, the map is kept",
        unit="s",
        low=0.1,
    )


@dataclass(frozen=True, slots=True)
class BagConfig:
    image: str = leaf(
        "",
        "Colour topic of a bag that is read offline (the node's topics are remapped); empty: the "
        "only one there is",
    )
    camera_info: str = leaf("", "Its camera_info topic in the bag; empty: the one beside the colour topic")
    depth: str = leaf(
        "", "Depth topic in the bag; empty: the only one, or the one in the colour camera's frame"
    )
    pose: str = leaf(
        "",
        "PoseStamped, Odometry, TransformStamped or /tf topic in the bag; empty: the only one, or that "
        "of pose_source",
    )


@dataclass(frozen=True, slots=True)
class TfConfig:
    timeout_s: float = leaf(
        1.0,
        "Images whose pose or depth does not arrive within this time are dropped and counted",
        unit="s",
        low=0.0,
        high=60.0,
    )


@dataclass(frozen=True, slots=True)
class OutputConfig:
    rate: float = leaf(
        1.0,
        "How often the map cloud is published while it changes, and the vocabulary's answer",
        unit="Hz",
        low=0.01,
        high=60.0,
    )
    vocabulary: tuple[str, ...] = leaf(
        ("",), "Names that the node keeps labelled from the start, see ~/set_vocabulary; an empty name: none"
    )
    max_points: int = leaf(200_000, "Points per published cloud", low=100, high=20_000_000)
    min_opacity: float = leaf(
        0.1, "Gaussians more transparent than this are left out of clouds", low=0.0, high=1.0
    )
    stand_off: float = leaf(
        0.8, "Distance of ~/goal_pose from the box of the object", unit="m", low=0.0, high=100.0
    )
    grid_resolution: float = leaf(0.05, "Side of a cell of ~/query_grid", unit="m", low=0.001, high=10.0)
    save_on_exit: str = leaf("", "File the map is written to when the node ends; empty: it is not")
