"""The results of a mapping run, over ROS or in one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Progress = Callable[[dict[str, Any]], None]  # takes the current figures, named as in `MappingWorker.stats`


@dataclass(frozen=True, slots=True)
class PromptAnswer:
    """The answer to one prompt: the presence decision, its probability, and the time the client waited."""

    prompt: str
    found: bool
    presence: float
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Session:
    """A finished mapping run.

    Attributes:
        how_run: one line that says how the demo ran.
        map_path: the saved map.
        frames_sent: frames published or submitted.
        frames_received: frames that reached the mapping thread.
        frames_dropped: frames without a matching pose, rejected frames, and frames that a full inbox dropped.
        keyframes: number of keyframes of the map.
        frame_to_map_p95_ms: 95th percentile of the time from a keyframe's arrival to its first snapshot.
        frame_to_features_p95_ms: the same to the first snapshot with its features, which come later.
        answers: one per prompt, each asked alone.
        pictures: images received on `~/segmentation/*` for the last query, by topic, RGB uint8 [H, W, 3].
    """

    how_run: str
    map_path: Path
    frames_sent: int
    frames_received: int
    frames_dropped: int
    keyframes: int
    frame_to_map_p95_ms: float
    frame_to_features_p95_ms: float
    answers: list[PromptAnswer]
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
