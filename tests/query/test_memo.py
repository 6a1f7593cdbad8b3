"""What is computed from a map once is not computed again, and never taken for another map."""

from __future__ import annotations

import dataclasses
import gc
import weakref

from helpers import synthetic

from ovs3d_ros.query.memo import SnapshotMemo
from ovs3d_ros.types import MapSnapshot


def test_value_is_kept_for_one_snapshot_and_its_settings() -> None:
    seen = []

    def describe(snapshot: MapSnapshot, weight: float) -> tuple[int, float]:
        seen.append(snapshot.version)
        return snapshot.version, weight

    memo, pipeline = SnapshotMemo(describe), synthetic.build_map(synthetic.make_frames(2), steps=1)
    first = pipeline.snapshot()
    assert memo(first, 1.0) == memo(first, 1.0) == (first.version, 1.0) and len(seen) == 1
    assert memo(first, 2.0) == (first.version, 2.0) and len(seen) == 2
    second = pipeline.snapshot()
    assert memo(second, 2.0) == (second.version, 2.0)
    assert (
        memo(dataclasses.replace(second, stamps=second.stamps), 2.0)[0] == second.version and len(seen) == 3
    )
    codes = weakref.ref(second.codes)
    del second
    gc.collect()
    assert codes() is None, "the memo keeps no map alive"
