"""Starts the mapping node and, on request, the player and RViz.

ros2 launch ovs3d_ros ovs3d.launch.py preset:=realsense rviz:=true
ros2 launch ovs3d_ros ovs3d.launch.py image:=/camera/color/image_raw camera_info:=/camera/color/camera_info \
    depth:=/camera/aligned_depth_to_color/image_raw pose_source:=tf
ros2 launch ovs3d_ros ovs3d.launch.py data:=/path/to/dataset rviz:=true
"""

from pathlib import Path

import yaml
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

INPUTS = (
    "image",
    "camera_info",
    "depth",
    "pose",
    "odom",
    "transform",
    "pose_with_covariance",
    "keyframe_path",
    "costmap",
)
CONFIG = PathJoinSubstitution([FindPackageShare("ovs3d_ros"), "config"])
# Topics that the drivers publish by default. They are relative: with namespace:=robot1 they are those of a
# driver that was started in that namespace too. An argument on the command line replaces a value of a preset.
PRESETS = {
    "none": {},
    "realsense": {  # realsense2_camera with align_depth.enable:=true
        "image": "camera/camera/color/image_raw",
        "camera_info": "camera/camera/color/camera_info",
        "depth": "camera/camera/aligned_depth_to_color/image_raw",
        "pose_source": "tf",
    },
    "zed": {  # zed_wrapper up to version 4; version 5 calls the image rgb/color/rect/image
        "image": "zed/zed_node/rgb/image_rect_color",
        "camera_info": "zed/zed_node/rgb/camera_info",
        "depth": "zed/zed_node/depth/depth_registered",
        "pose_source": "tf",
    },
    "oak": {  # depthai_ros_driver, depth aligned to the colour camera
        "image": "oak/rgb/image_raw",
        "camera_info": "oak/rgb/camera_info",
        "depth": "oak/stereo/image_raw",
        "pose_source": "tf",
    },
    "gazebo": {  # an rgbd_camera on the topic `camera`, bridged by ros_gz_bridge
        "image": "camera/image",
        "camera_info": "camera/camera_info",
        "depth": "camera/depth_image",
        "pose_source": "tf",
        "use_sim_time": "true",
    },
    "isaac": {  # the ROS 2 camera helper of Isaac Sim
        "image": "rgb",
        "camera_info": "camera_info",
        "depth": "depth",
        "pose_source": "tf",
        "use_sim_time": "true",
    },
    "bag": {"use_sim_time": "true", "qos_input": "reliable"},  # ros2 bag play --clock
}
ARGUMENTS = {
    "namespace": ("", "Namespace of the node and of its relative topics"),
    "params_file": (
        PathJoinSubstitution([CONFIG, "ovs3d.yaml"]),
        "Parameter file; `ovs3d config` prints a template",
    ),
    "tf": (
        "/tf",
        "Topic of transforms; static ones are on the same name with _static. tf:=tf follows the namespace",
    ),
    "preset": ("none", "Camera driver or simulator whose topics and settings to use"),
    "pose_source": (
        "",
        "Source of camera poses: pose, odom, transform, pose_with_covariance or tf; empty: as in the "
        "preset or the parameter file",
    ),
    "clip_model": ("", "Image-text encoder, e.g. ViT-B-16; empty: as in the parameter file"),
    "world_frame": ("", "Frame of the map; empty: as in the parameter file"),
    "qos_input": (
        "",
        "Reliability of the inputs: sensor_data or reliable; empty: as in the preset or the parameter file",
    ),
    "sync_timeout": (
        "",
        "Seconds an image may wait for pose and depth; empty: 10 with data, else as in the parameter file",
    ),
    "autostart": (
        "",
        "Set it to false if a lifecycle manager configures and activates the node; empty: as in the "
        "parameter file",
    ),
    "use_sim_time": ("", "true takes the time from /clock; empty: as in the preset, else false"),
    "log_level": ("info", "Log level of the node: debug, info, warn, error or fatal"),
    "data": ("", "Dataset that the player publishes in place of a camera; empty: no player"),
    "rate": ("2.0", "Frames per second of the player"),
    "loop": ("false", "true repeats the dataset forever"),
    "rviz": ("false", "true starts RViz"),
    "viewer_port": ("", "Port of the web viewer; empty: as in the parameter file, where 0 means none"),
    "shared_memory": (
        "",
        "true lets the launched processes exchange messages over shared memory (Fast DDS, "
        "config/fastdds_shm.xml); other machines then do not see them. Empty: true with data, else false",
    ),
    **{name: ("", f"Topic of the input {name}; empty: as in the preset, else {name}") for name in INPUTS},
}
STOP_TIMEOUT = "60"  # seconds between SIGINT, SIGTERM and SIGKILL: writing a large map takes time
PLAYER_WAIT = "600"  # seconds the player waits for the node, which may download a large encoder
DATA_TIMEOUT = "10"  # seconds an image of a dataset may wait for its pose and depth, which no one sends again
# Launch argument -> parameter that it overrides unless it is empty.
OVERRIDES = {
    "pose_source": "pose_source",
    "clip_model": "clip.model",
    "world_frame": "input.world_frame",
    "qos_input": "qos.input",
}


def generate_launch_description() -> LaunchDescription:
    """All arguments with their defaults; `_make_nodes` turns their values into processes."""
    declared = [
        DeclareLaunchArgument(
            name,
            default_value=default,
            description=description,
            choices=list(PRESETS) if name == "preset" else None,
        )
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_make_nodes)])


def _make_nodes(context) -> list[Node]:
    """The mapping node, the player when there is data, and RViz."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    params_file = Path(given["params_file"]).expanduser()
    if not params_file.is_file():
        raise RuntimeError(
            f"params_file:={given['params_file']}: no such file; `ovs3d config` prints a template"
        )
    if given["data"] and not given["qos_input"]:
        given["qos_input"] = "reliable"  # the player is reliable, and every frame of a dataset counts
    given |= {name: value for name, value in PRESETS[given["preset"]].items() if not given[name]}
    remappings = [(name, given[name]) for name in INPUTS if given[name] and given[name] != name]
    transforms = [("/tf", given["tf"]), ("/tf_static", f"{given['tf']}_static")]
    overrides = {parameter: given[name] for name, parameter in OVERRIDES.items() if given[name]}
    if given["data"] and not given["sync_timeout"]:
        given["sync_timeout"] = DATA_TIMEOUT
    if given["sync_timeout"]:
        overrides["tf.timeout_s"] = float(given["sync_timeout"])
    if given["autostart"]:
        overrides["autostart"] = _is_true(given, "autostart")
    if given["viewer_port"]:
        if not given["viewer_port"].isdecimal():
            raise RuntimeError(
                f"viewer_port:={given['viewer_port']}: write a number, such as viewer_port:=8080"
            )
        overrides["viewer.port"] = int(given["viewer_port"])
    sim_time = {"use_sim_time": _is_true(given, "use_sim_time")}
    # A player on this machine loses up to half of its images over UDP.
    shared_memory = _is_true(given, "shared_memory") if given["shared_memory"] else bool(given["data"])
    common = {
        "package": "ovs3d_ros",
        "namespace": given["namespace"],
        "remappings": remappings + transforms,
        "output": "screen",
        "additional_env": _make_environment() if shared_memory else {},
    }
    nodes = [
        Node(
            executable="node",
            name="ovs3d",
            **common,
            parameters=[str(params_file), overrides, sim_time],
            arguments=["--ros-args", "--log-level", given["log_level"]],
            sigterm_timeout=STOP_TIMEOUT,
            sigkill_timeout=STOP_TIMEOUT,
        )
    ]
    if given["data"]:
        arguments = [given["data"], "--rate", given["rate"], "--wait", PLAYER_WAIT]
        arguments += ["--loop"] if _is_true(given, "loop") else []
        arguments += ["--pose-source", given["pose_source"]] if given["pose_source"] else []
        arguments += ["--world-frame", given["world_frame"]] if given["world_frame"] else []
        nodes.append(Node(executable="play", name="player", arguments=arguments, **common))
    nodes.append(
        Node(
            package="rviz2",
            executable="rviz2",
            name="rviz2",
            output="screen",
            namespace=given["namespace"],
            arguments=["-d", PathJoinSubstitution([CONFIG, "ovs3d.rviz"]), *_fixed_frame(given)],
            parameters=[sim_time],
            remappings=transforms,
            additional_env=common["additional_env"],
            condition=IfCondition(LaunchConfiguration("rviz")),
        )
    )
    return nodes


def _fixed_frame(given: dict[str, str]) -> list[str]:
    """The arguments that make RViz show the frame of the map; none if only its default is known."""
    document = yaml.safe_load(Path(given["params_file"]).expanduser().read_text(encoding="utf-8")) or {}
    frames = [
        sections["ros__parameters"]["input"]["world_frame"]
        for sections in document.values()
        if "world_frame" in sections.get("ros__parameters", {}).get("input", {})
    ]
    frame = given["world_frame"] or next(iter(frames), "")
    return ["-f", frame] if frame else []


def _is_true(given: dict[str, str], name: str) -> bool:
    """Whether an argument is true; an empty one is false."""
    word = given[name].strip().lower()
    if word not in ("true", "false", ""):
        raise RuntimeError(f"{name}:={given[name]}: write {name}:=true or {name}:=false")
    return word == "true"


def _make_environment() -> dict:
    """Environment variables that make Fast DDS use shared memory, under its names before and since 3.0."""
    profile = PathJoinSubstitution([CONFIG, "fastdds_shm.xml"])
    return {
        "FASTRTPS_DEFAULT_PROFILES_FILE": profile,
        "FASTDDS_DEFAULT_PROFILES_FILE": profile,
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",
    }
