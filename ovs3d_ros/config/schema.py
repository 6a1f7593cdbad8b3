"""Every parameter of the system, declared once.

`Config` is a tree of frozen dataclasses. Each leaf carries its default, policy, unit, range and description.
The YAML file and the command line (see `yaml_io`) and the ROS parameters are generated from it. This module
imports no torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from ovs3d_ros.config.asking import QueryConfig, RefineConfig
from ovs3d_ros.config.leaf import MAP, SESSION, Leaf, check_value, leaf
from ovs3d_ros.config.mapping import KeyframeConfig, LiftConfig, MapConfig, SeedConfig, TrainConfig
from ovs3d_ros.config.models import ClipConfig, ComputeConfig, DinoConfig
from ovs3d_ros.config.robot import (
    BagConfig,
    InputConfig,
    NavigationConfig,
    OutputConfig,
    QosConfig,
    TfConfig,
)
from ovs3d_ros.config.viewer import ViewerConfig
from ovs3d_ros.types import UserError


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration; see `leaves` for a flat view."""

    autostart: bool = leaf(
        True,
        SESSION,
        "The node configures and activates itself. Set it to false if a lifecycle manager does that.",
    )
    pose_source: str = leaf(
        "pose",
        MAP,
        "Source of the camera poses: topic pose (PoseStamped of the optical frame), odom (Odometry), "
        "transform (TransformStamped) or pose_with_covariance (PoseWithCovarianceStamped), all three of the "
        "robot or the camera, see input.extrinsics, or the transforms of /tf.",
        choices=("pose", "odom", "transform", "pose_with_covariance", "tf"),
    )
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
    navigation: NavigationConfig = field(default_factory=NavigationConfig)
    viewer: ViewerConfig = field(default_factory=ViewerConfig)

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Config:
        """The defaults with dotted parameters replaced, e.g. `{"clip.model": "ViT-B-16"}`; see `override`."""
        return override(cls(), settings)


def leaves(config: Any = None, prefix: str = "") -> Iterator[tuple[Leaf, Any]]:
    """Yields (leaf, value) for every parameter of a config (default: `Config()`), in declaration order."""
    config = Config() if config is None else config
    hints = _type_hints(type(config))
    for f in fields(config):
        value, path = getattr(config, f.name), prefix + f.name
        if is_dataclass(value):
            yield from leaves(value, path + ".")
        else:
            kind, (item, *_) = hints[f.name], typing.get_args(hints[f.name]) or (None,)
            kind = typing.get_origin(kind) or kind
            yield Leaf(path=path, type=kind, item=item, default=f.default, **f.metadata), value


@functools.cache
def _type_hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, once: `typing` compiles each annotation, and every snapshot asks."""
    return typing.get_type_hints(kind)


def group_descriptions() -> dict[str, str]:
    """One line about each group of parameters, by its name."""
    groups = {f.name: getattr(Config(), f.name) for f in fields(Config)}
    return {name: type(group).__doc__ or "" for name, group in groups.items() if is_dataclass(group)}


def override(config: Config, values: dict[str, Any]) -> Config:
    """A copy of `config` with dotted paths replaced, e.g. `{"clip.model": "bundled"}`.

    Raises:
        UserError: unknown path, wrong type, or out of range.
    """
    specs = {spec.path: spec for spec, _ in leaves(config)}
    for path, value in values.items():
        if path not in specs:
            close = [p for p in specs if p.rpartition(".")[2] == path.rpartition(".")[2]]
            close += difflib.get_close_matches(path, specs, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UserError(f"{path}: no such parameter; {hint}`ovs3d config` lists all parameters")
        config = _replace(config, path.split("."), check_value(specs[path], value))
    return config


def _replace(node: Any, names: list[str], value: Any) -> Any:
    if len(names) > 1:
        value = _replace(getattr(node, names[0]), names[1:], value)
    return dataclasses.replace(node, **{names[0]: value})
