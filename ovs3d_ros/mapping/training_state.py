"""Takes the training of a map out of a mapper, for its file, and puts it into another mapper."""

from __future__ import annotations

import sys

from ovs3d_ros.mapping.cells import viewing_reach
from ovs3d_ros.mapping.keyframe_log import KeyframeLog
from ovs3d_ros.mapping.keyframe_store import view_of
from ovs3d_ros.mapping.keyframes import to_device
from ovs3d_ros.mapping.loop_closure import all_owners, set_owners
from ovs3d_ros.mapping.mapper import Mapper
from ovs3d_ros.mapping.sight import Sight
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
    mapper.log.restore(state, lambda keyframe: _enter(mapper, mapper.log, keyframe))
    set_owners(mapper.gaussians, state.owners)
    if mapper.keyframes:
        mapper.update_extent()


def put_keyframes_first(mapper: Mapper, earlier: TrainingState) -> None:
    """Puts the keyframes of another map before those of a mapper, whose newest ones stay the newest.

    Args:
        mapper: has the Gaussians of both maps, none of which are parked.
        earlier: of the other map; with the owners [N] of all Gaussians, in the new numbers.
    """
    own = mapper.log.state(earlier.owners)
    log = KeyframeLog(mapper.gaussians.device, mapper.config.map.memory_limit_mib << 20)
    mapper.blocks.sight = Sight()
    log.join(earlier, own, lambda keyframe: _enter(mapper, log, keyframe))
    log.rendered = mapper.log.rendered
    mapper.log, mapper.keyframes = log, log.keyframes
    set_owners(mapper.gaussians, earlier.owners)
    mapper.update_extent()


def _enter(mapper: Mapper, log: KeyframeLog, keyframe: Keyframe) -> Keyframe:
    """Notes what the next keyframe of a log sees; returns it on the device of the map."""
    mapper.blocks.enter(view_of(keyframe), viewing_reach(keyframe, log.median_depth), sys.maxsize)
    return to_device(keyframe, mapper.gaussians.device)
