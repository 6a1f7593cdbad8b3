"""Declares every parameter once; YAML, command line and ROS parameters are generated from here."""

from ovs3d_ros.config.asking import QueryConfig, RefineConfig
from ovs3d_ros.config.mapping import KeyframeConfig, LiftConfig, MapConfig, SeedConfig, TrainConfig
from ovs3d_ros.config.models import ClipConfig, ComputeConfig, DinoConfig
from ovs3d_ros.config.resolve import resolve_device, resolve_rasterizer, resolve_threads
from ovs3d_ros.config.robot import BagConfig, InputConfig, OutputConfig, QosConfig, TfConfig
from ovs3d_ros.config.schema import Config, group_descriptions, leaves, override
from ovs3d_ros.config.stored import restore_config, stored_settings
from ovs3d_ros.config.viewer import ViewerConfig

__all__ = [
    "BagConfig",
    "ClipConfig",
    "ComputeConfig",
    "Config",
    "DinoConfig",
    "InputConfig",
    "KeyframeConfig",
    "LiftConfig",
    "MapConfig",
    "OutputConfig",
    "QosConfig",
    "QueryConfig",
    "RefineConfig",
    "SeedConfig",
    "TfConfig",
    "TrainConfig",
    "ViewerConfig",
    "group_descriptions",
    "leaves",
    "override",
    "resolve_device",
    "resolve_rasterizer",
    "resolve_threads",
    "restore_config",
    "stored_settings",
]
