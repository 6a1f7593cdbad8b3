"""Two halves of one room, mapped apart."""

from __future__ import annotations

import pytest
from helpers import synthetic
from helpers.stored_maps import store

from ovs3d_ros.merging.merge import StoredMap

FRAMES = synthetic.make_frames(16)


@pytest.fixture(scope="package")
def halves(tmp_path_factory) -> tuple[StoredMap, StoredMap]:
    """The first and the last frames of the orbit, which share two thirds of the room."""
    folder = tmp_path_factory.mktemp("halves")
    return store(FRAMES[:8], folder / "first.ovs3d"), store(FRAMES[8:], folder / "second.ovs3d")
