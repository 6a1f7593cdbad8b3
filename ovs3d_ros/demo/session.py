"""What a mapping run leaves behind, whether it went over ROS or through one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Progress = Callable[[dict[str, Any]], None]  # takes running figures, named as in `MappingWorker.stats`


@dataclass(frozen=True, slots=True)
class PromptAnswer:
    """The answer to one prompt: the presence decision, its probability, and the time the asker waited."""

    prompt: str
    found: bool
    presence: float
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Session:
    """A finished mapping run.

    Attributes:
        how: one line that says how it was run.
        map_path: the saved map.
        frames_sent: frames published or submitted.
        frames_received: frames that reached the mapping thread.
        frames_dropped: frames lost on the way: unmatched, rejected, or pushed out of the full inbox.
        keyframes: frames the map is made from.
        frame_to_map_p95_ms: from a keyframe's arrival to the snapshot that holds it, 95th percentile.
        answers: one per prompt, each asked alone.
        pictures: what came over `~/segmentation/*` after the last question, by topic: RGB uint8 [H, W, 3].
    """

    how: str
    map_path: Path
    frames_sent: int
    frames_received: int
    frames_dropped: int
    keyframes: int
    frame_to_map_p95_ms: float
    answers: list[PromptAnswer]
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
