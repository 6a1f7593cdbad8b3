"""Starts the mapping node, and on request the player and RViz.

ros2 launch ovs3d_ros ovs3d.launch.py image:=/camera/color/image_raw camera_info:=/camera/color/camera_info \
    depth:=/camera/aligned_depth_to_color/image_raw pose_source:=tf rviz:=true
ros2 launch ovs3d_ros ovs3d.launch.py data:=/path/to/dataset rviz:=true
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

INPUTS = ("image", "camera_info", "depth", "pose", "odom", "transform")
CONFIG = PathJoinSubstitution([FindPackageShare("ovs3d_ros"), "config"])
ARGUMENTS = {
    "namespace": ("", "Namespace of the node and of its relative topics"),
    "params_file": (PathJoinSubstitution([CONFIG, "ovs3d.yaml"]), "Parameters; `ovs3d config` prints a template"),
    "pose_source": ("", "pose, odom, transform or tf; empty: as in the parameter file"),
    "clip_model": ("", "Image-text encoder; empty: as in the parameter file"),
    "world_frame": ("", "Frame of the map; empty: as in the parameter file"),
    "use_sim_time": ("false", "Take the time from /clock"),
    "data": ("", "Dataset to publish instead of a camera; empty: none"),
    "rate": ("2.0", "Frames per second of the dataset"),
    "loop": ("false", "Publish the dataset again and again"),
    "rviz": ("false", "Start RViz"),
    **{name: (name, f"Topic to take {name} from") for name in INPUTS},
}
PLAYER_WAIT = "600"  # seconds: a large encoder takes its time to load or to be fetched
# launch argument -> parameter it overrides when it is not empty
OVERRIDES = {"pose_source": "pose_source", "clip_model": "clip.model", "world_frame": "input.world_frame"}


def generate_launch_description() -> LaunchDescription:
    """All arguments with their defaults; the processes follow from their values."""
    declared = [DeclareLaunchArgument(name, default_value=default, description=about)
                for name, (default, about) in ARGUMENTS.items()]
    rviz = Node(package="rviz2", executable="rviz2", name="rviz2", output="screen",
                namespace=LaunchConfiguration("namespace"),
                arguments=["-d", PathJoinSubstitution([CONFIG, "ovs3d.rviz"])],
                parameters=[{"use_sim_time": LaunchConfiguration("use_sim_time")}],
                condition=IfCondition(LaunchConfiguration("rviz")))
    return LaunchDescription([*declared, OpaqueFunction(function=_processes), rviz])


def _processes(context) -> list[Node]:
    """The mapping node, and the player when there is data."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    remappings = [(name, given[name]) for name in INPUTS if given[name] != name]
    overrides = {parameter: given[name] for name, parameter in OVERRIDES.items() if given[name]}
    common = {"package": "ovs3d_ros", "namespace": given["namespace"], "remappings": remappings, "output": "screen"}
    sim_time = given["use_sim_time"].lower() == "true"
    nodes = [Node(executable="node", name="ovs3d", **common,
                  parameters=[given["params_file"], overrides, {"use_sim_time": sim_time}])]
    if given["data"]:
        arguments = [given["data"], "--rate", given["rate"], "--wait", PLAYER_WAIT]
        arguments += ["--loop"] if given["loop"].lower() == "true" else []
        arguments += ["--pose-source", given["pose_source"]] if given["pose_source"] else []
        arguments += ["--world-frame", given["world_frame"]] if given["world_frame"] else []
        nodes.append(Node(executable="play", name="player", arguments=arguments, **common))
    return nodes
