"""Counts of the frames given to the mapping thread, and their latencies."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

_NUM_LATENCIES = 500  # newest latencies, for the percentiles


@dataclass(slots=True)
class FrameCounts:
    """Frames by outcome. The lock of the worker guards all fields.

    Attributes:
        received: frames submitted.
        dropped: pushed out of a full inbox.
        ignored: submitted while ingest was off, or discarded with a replaced map.
        rejected: frames that could not be used.
        mapped: frames that became keyframes.
        skipped: frames that showed nothing new.
        last_rejection: why the last frame was rejected.
        featureless: of the keyframes, those that have colours alone, as the encoder could not encode them.
        latencies_ms: times from submission to publication of the newest keyframes, with their colours.
        feature_latencies_ms: the same with their features.
    """

    received: int = 0
    dropped: int = 0
    ignored: int = 0
    rejected: int = 0
    mapped: int = 0
    skipped: int = 0
    last_rejection: str = ""
    featureless: int = 0
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_NUM_LATENCIES))
    feature_latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_NUM_LATENCIES))

    def reject(self, reason: str) -> None:
        """Counts a frame that could not be used."""
        self.rejected += 1
        self.last_rejection = reason

    def lack_features(self, reason: str) -> None:
        """Counts a keyframe that could not be encoded."""
        self.featureless += 1
        self.last_rejection = reason

    def accept(self, is_keyframe: bool) -> None:
        """Counts a frame that became a keyframe, or that showed nothing new."""
        self.mapped += is_keyframe
        self.skipped += not is_keyframe

    def figures(self) -> dict[str, object]:
        """The counts and the latency percentiles for diagnostics; NaN before the first keyframe."""
        return dict(
            frames_received=self.received,
            frames_mapped=self.mapped,
            frames_skipped=self.skipped,
            frames_dropped=self.dropped,
            frames_ignored=self.ignored,
            frames_rejected=self.rejected,
            frames_featureless=self.featureless,
            last_rejection=self.last_rejection,
            **_percentiles("frame_to_map", self.latencies_ms),
            **_percentiles("frame_to_features", self.feature_latencies_ms),
        )


def _percentiles(name: str, latencies_ms: deque[float]) -> dict[str, float]:
    """Median and 95th percentile by their names in the diagnostics; NaN of nothing."""
    p50, p95 = np.percentile(latencies_ms or [np.nan], [50, 95])
    return {f"{name}_p50_ms": float(p50), f"{name}_p95_ms": float(p95)}
