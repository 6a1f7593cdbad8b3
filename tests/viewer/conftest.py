"""A small map, and a viewer of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from helpers import synthetic

from ovs3d_ros import Ovs3d
from ovs3d_ros.config import ViewerConfig

if TYPE_CHECKING:
    from ovs3d_ros.viewer.server import MapViewer


@pytest.fixture(scope="module")
def pipeline() -> Ovs3d:
    return synthetic.build_map(synthetic.make_frames(4), steps=20)


@pytest.fixture(scope="module")
def viewer(pipeline: Ovs3d) -> Iterator[MapViewer]:
    from ovs3d_ros.viewer.server import MapViewer
    from ovs3d_ros.viewer.source import MapSource, keyframe_photo

    snapshot = pipeline.snapshot()
    source = MapSource(pipeline, lambda: snapshot, keyframe_photo(pipeline))
    viewer = MapViewer(source, ViewerConfig(), "room")
    yield viewer
    viewer.close()
