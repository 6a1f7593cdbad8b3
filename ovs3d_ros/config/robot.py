"""Parameters of inputs and outputs: topics, bags, transforms, clouds."""

from __future__ import annotations

from dataclasses import dataclass

from ovs3d_ros.config.leaf import MACHINE, MAP, RUNTIME, SESSION, leaf


@dataclass(frozen=True, slots=True)
class QosConfig:
    """Quality of service of the node's input subscriptions."""

    input: str = leaf(
        "sensor_data",
        SESSION,
        "Reliability of the input subscriptions. sensor_data is best effort and receives from every "
        "publisher; reliable loses no message, but receives nothing from best-effort publishers.",
        choices=("sensor_data", "reliable"),
    )
    depth: int = leaf(
        10, SESSION, "Queue length of the input subscriptions.", unit="messages", low=1, high=1000
    )


@dataclass(frozen=True, slots=True)
class InputConfig:
    """Frames of the camera: images, depth and poses, and how they are put together."""

    sync_slop: float = leaf(
        0.02,
        MAP,
        "An image, a depth image and a pose belong together if their stamps differ by at most this.",
        unit="s",
        low=0.0,
        high=10.0,
    )
    inbox: int = leaf(
        8,
        SESSION,
        "Number of frames that may wait for the mapping thread. When they are more, the oldest is dropped "
        "and counted.",
        unit="frames",
        low=1,
        high=1000,
    )
    silence: float = leaf(
        5.0,
        SESSION,
        "After this time without a usable frame, the node reports the topic or transform that is missing.",
        unit="s",
        low=0.5,
    )
    world_frame: str = leaf("map", MAP, "Frame in which the map and all outputs are given.")
    use_depth: bool = leaf(
        True,
        MAP,
        "Use depth images; an image without its depth image is dropped. Set it to false for cameras without "
        "depth.",
    )
    depth_scale: float = leaf(
        1.0,
        MAP,
        "Factor on the depth of topics and bags after their encoding was read (32FC1: metres, 16UC1: "
        "millimetres). 0.001 for millimetres in 32FC1, 1000 for metres in 16UC1.",
        low=1e-6,
        high=1e6,
    )
    camera_frame: str = leaf(
        "",
        MAP,
        "Optical frame of the images, if their header.frame_id is empty or wrong; for a single camera. "
        "Empty: header.frame_id.",
    )
    image_transport: str = leaf(
        "raw",
        SESSION,
        "Topic of colour images: image (raw) or image/compressed (compressed).",
        choices=("raw", "compressed"),
    )
    depth_transport: str = leaf(
        "raw",
        SESSION,
        "Topic of depth images: depth (raw) or depth/compressedDepth (compressedDepth).",
        choices=("raw", "compressedDepth"),
    )
    rectification: str = leaf(
        "auto",
        MAP,
        "Whether images arrive rectified. Images that are raw are undistorted by their camera_info. auto "
        "takes images for rectified if a part of their topic's name, between / and _, is rect or rectified.",
        choices=("auto", "raw", "rectified"),
    )
    cameras: tuple[str, ...] = leaf(
        (),
        MAP,
        "Names of several cameras, which stand before their topics: [front, rear] subscribes to front/image, "
        "rear/image and so on. Empty: one camera on image.",
    )
    extrinsics: tuple[float, ...] = leaf(
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
        MAP,
        "Pose of the camera's optical frame in the child frame of the poses (pose_source odom, transform, "
        "pose_with_covariance) or "
        "in the frame that keyframe_path moves: x y z in metres, then qx qy qz qw. Several cameras: seven "
        "numbers for each. With the default, /tf_static leads from a child frame to the camera.",
    )
    pose_gap: float = leaf(
        0.5,
        MAP,
        "Poses further apart than this are not interpolated; images between them are dropped.",
        unit="s",
        low=0.0,
        high=60.0,
    )
    max_speed: float = leaf(
        0.0,
        SESSION | RUNTIME,
        "A camera that moves faster than this has been misplaced by the localisation: the node then ignores "
        "frames until ~/set_ingest or keyframe_path resumes it. Take twice the speed of the robot. 0: off.",
        unit="m/s",
        low=0.0,
        high=1000.0,
    )
    clock_jump: float = leaf(
        2.0,
        SESSION,
        "A stamp older than the newest one by more than this means that the clock was set back, as by a bag "
        "that starts again. The waiting images, depth images and poses are then forgotten; the map stays.",
        unit="s",
        low=0.1,
    )


@dataclass(frozen=True, slots=True)
class BagConfig:
    """Topics of a bag that a command reads without ROS. The node takes remappings instead."""

    image: str = leaf("", MAP, "Topic of the colour images. Empty: the only one in the bag.")
    camera_info: str = leaf(
        "", MAP, "Topic of the colour camera's camera_info. Empty: the one beside the colour topic."
    )
    depth: str = leaf(
        "", MAP, "Topic of the depth images. Empty: the only one, or the one in the colour camera's frame."
    )
    pose: str = leaf(
        "",
        MAP,
        "Topic of the poses, of a type that pose_source names, or /tf. Empty: the only one, "
        "or the one that fits pose_source.",
    )


@dataclass(frozen=True, slots=True)
class TfConfig:
    """Waiting for poses and depth images."""

    timeout_s: float = leaf(
        1.0,
        SESSION,
        "Longest time an image waits for its pose and its depth image. After it the image is dropped and "
        "counted. Raise it if localisation lags behind the camera.",
        unit="s",
        low=0.0,
        high=60.0,
    )


@dataclass(frozen=True, slots=True)
class OutputConfig:
    """Clouds, goals and files that leave the node."""

    rate: float = leaf(
        1.0,
        SESSION,
        "Largest rate at which the node publishes a growing map, and labels output.vocabulary in it anew.",
        unit="Hz",
        low=0.01,
        high=60.0,
    )
    vocabulary: tuple[str, ...] = leaf(
        (),
        SESSION,
        "Names the node keeps labelled in the growing map from the start; ~/set_vocabulary changes them "
        "later. Empty: none.",
    )
    max_points: int = leaf(
        200_000,
        SESSION | RUNTIME,
        "Largest number of points in a published cloud. Lower it to save bandwidth.",
        low=100,
        high=20_000_000,
    )
    min_opacity: float = leaf(
        0.1,
        SESSION | RUNTIME,
        "Clouds leave out Gaussians of a lower opacity. Raise it if haze surrounds the things.",
        low=0.0,
        high=1.0,
    )
    stand_off: float = leaf(
        0.8,
        SESSION | RUNTIME,
        "Distance of ~/goal_pose from the box of the object. Set it to what the robot needs to stop and "
        "turn.",
        unit="m",
        low=0.0,
        high=100.0,
    )
    grid_resolution: float = leaf(
        0.05, SESSION | RUNTIME, "Side of a cell of ~/query_grid.", unit="m", low=0.001, high=10.0
    )
    camera_tf: bool = leaf(
        False,
        SESSION,
        "Broadcast the camera's frame below input.world_frame on /tf, for RViz and for robots without "
        "transforms. Only with pose_source pose.",
    )
    mask_size: int = leaf(
        360,
        SESSION | RUNTIME,
        "Longer side of ~/segmentation and of the masks in an answer. 0: that of the camera's images, which "
        "take longer to render.",
        unit="px",
        low=0,
        high=16384,
    )
    save_on_exit: str = leaf(
        "", MACHINE, "File to which the node writes the map when it ends. Empty: it does not write the map."
    )


@dataclass(frozen=True, slots=True)
class NavigationConfig:
    """Goals on free ground (with a costmap on `costmap`) and places to keep out of, for nav2."""

    robot_radius: float = leaf(
        0.3,
        SESSION | RUNTIME,
        "Goals keep this distance from occupied cells of the costmap. Take half the robot's width.",
        unit="m",
        low=0.0,
        high=10.0,
    )
    keep_out: tuple[str, ...] = leaf(
        (),
        SESSION | RUNTIME,
        "Names of things that ~/mask marks for nav2's keepout filter. Empty: no mask.",
    )
    keep_out_margin: float = leaf(
        0.1,
        SESSION | RUNTIME,
        "Distance from the boxes of these things up to which ~/mask is marked.",
        unit="m",
        low=0.0,
        high=10.0,
    )
