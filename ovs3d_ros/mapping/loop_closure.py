"""Moves Gaussians with the keyframes that spawned them, when a loop closure corrects keyframe poses."""

from __future__ import annotations

import numpy as np
import torch

from ovs3d_ros.geometry import check_pose, invert_rigid
from ovs3d_ros.mapping.blocks import Blocks
from ovs3d_ros.mapping.gaussians import Gaussians
from ovs3d_ros.mapping.keyframe_store import KeyframeStore

NO_OWNER = 0
_OWNER = "owner"  # statistic [N]: 1 + index of the keyframe that spawned a Gaussian, or NO_OWNER


def owner_of(keyframe_index: int) -> int:
    """The owner number of a keyframe, for `insert_owned`."""
    return 1 + keyframe_index


def owners(gaussians: Gaussians) -> torch.Tensor:
    """The owner number [N] of each Gaussian, int64."""
    unowned = torch.full((len(gaussians),), NO_OWNER, dtype=torch.int64, device=gaussians.device)
    return gaussians.stats.get(_OWNER, unowned)


def all_owners(gaussians: Gaussians, blocks: Blocks) -> torch.Tensor:
    """The owner number [N] of each Gaussian, parked ones first."""
    set_owners(gaussians, owners(gaussians))
    return blocks.gather(_OWNER)[_OWNER]


def set_owners(gaussians: Gaussians, numbers: torch.Tensor) -> None:
    """Replaces the owner numbers by [N] others."""
    gaussians.stats[_OWNER] = numbers.to(gaussians.device, torch.int64)


def insert_owned(
    gaussians: Gaussians,
    seeds: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    opacity: float,
    owner: int,
) -> None:
    """Inserts seeds and records their owner; clones and halves inherit it.

    Args:
        gaussians: the map.
        seeds: means [M, 3] in metres, colors [M, 3] and scales [M] in metres.
        opacity: initial opacity of all of them.
        owner: see `owner_of`; NO_OWNER for points that belong to no keyframe.
    """
    before = len(gaussians)
    set_owners(gaussians, owners(gaussians))
    gaussians.insert(*seeds, opacity)
    gaussians.stats[_OWNER][before:] = owner


def move_keyframes(
    keyframes: KeyframeStore, gaussians: Gaussians, camtoworlds: dict[int, np.ndarray], blocks: Blocks
) -> int:
    """Gives keyframes new poses and moves the Gaussians that each spawned rigidly with it.

    Gaussians without an owner stay, and so do keyframes that are not named.

    Args:
        keyframes: of the map, by index.
        gaussians: the active part of the map.
        camtoworlds: new poses [4, 4] float64 by keyframe index; stamps may repeat, indices do not.
        blocks: the parked part.

    Returns:
        The number of Gaussians that moved.

    Raises:
        UserError: a pose cannot be used. The map is unchanged.
    """
    poses = {index: check_pose(pose, f"pose of keyframe {index}") for index, pose in camtoworlds.items()}
    motions = {
        owner_of(index): pose @ invert_rigid(keyframes.views[index].camtoworld)
        for index, pose in poses.items()
    }
    for index, pose in poses.items():
        keyframes.move(index, pose)
    moved, numbers = blocks.move(motions, _OWNER), owners(gaussians)
    blocks.sight.refresh(keyframes.poses)
    for number, motion in motions.items():
        rows = (numbers == number).nonzero()[:, 0]
        gaussians.transform(rows, motion)
        moved += len(rows)
    return moved
