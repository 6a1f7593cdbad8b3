"""Takes the training of a map out of a mapper, for its file, and puts it into another mapper."""

from __future__ import annotations

import sys
from dataclasses import replace

from ovs3d_ros.mapping.cells import viewing_reach
from ovs3d_ros.mapping.keyframe_store import view_of
from ovs3d_ros.mapping.loop_closure import all_owners, set_owners
from ovs3d_ros.mapping.mapper import Mapper
from ovs3d_ros.types import Keyframe, TrainingState


def capture_training(mapper: Mapper) -> TrainingState:
    """A copy of the training. Adam's moments are not in it: they are built up again in a few steps."""
    return mapper.log.state(all_owners(mapper.gaussians, mapper.blocks))


def restore_training(mapper: Mapper, state: TrainingState) -> None:
    """Takes up the training of Gaussians.

    Args:
        mapper: has the Gaussians, see `Mapper.load_params`, and no keyframes yet.
        state: of the map that they are from.
    """
    device = mapper.gaussians.device

    def moved(keyframe: Keyframe) -> Keyframe:
        mapper.blocks.enter(view_of(keyframe), viewing_reach(keyframe, mapper.median_depth), sys.maxsize)
        depth, mask = (None if t is None else t.to(device) for t in (keyframe.depth, keyframe.mask))
        return replace(keyframe, image=keyframe.image.to(device), depth=depth, mask=mask)

    mapper.log.restore(state, moved)
    set_owners(mapper.gaussians, state.owners)
    if mapper.keyframes:
        mapper.update_extent()
