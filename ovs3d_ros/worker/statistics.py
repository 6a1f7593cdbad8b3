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
        latencies_ms: times from submission to publication of the newest keyframes.
    """

    received: int = 0
    dropped: int = 0
    ignored: int = 0
    rejected: int = 0
    mapped: int = 0
    skipped: int = 0
    last_rejection: str = ""
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_NUM_LATENCIES))

    def reject(self, reason: str) -> None:
        """Counts a frame that could not be used."""
        self.rejected += 1
        self.last_rejection = reason

    def accept(self, is_keyframe: bool) -> None:
        """Counts a frame that became a keyframe, or that showed nothing new."""
        self.mapped += is_keyframe
        self.skipped += not is_keyframe

    def figures(self) -> dict[str, object]:
        """The counts and the latency percentiles for diagnostics; NaN before the first keyframe."""
        p50, p95 = np.percentile(self.latencies_ms or [np.nan], [50, 95])
        return dict(
            frames_received=self.received,
            frames_mapped=self.mapped,
            frames_skipped=self.skipped,
            frames_dropped=self.dropped,
            frames_ignored=self.ignored,
            frames_rejected=self.rejected,
            last_rejection=self.last_rejection,
            frame_to_map_p50_ms=float(p50),
            frame_to_map_p95_ms=float(p95),
        )
