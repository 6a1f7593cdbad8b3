"""The nouns that every prompt competes against in the presence decision, as a map and a query see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ovs3d_ros.query.presence import PresenceCalibration
from ovs3d_ros.types import MapSnapshot


@dataclass(frozen=True, slots=True)
class Rivals:
    """What P prompts compete against in one map.

    Attributes:
        directions: [d + 1, K] of the distractors, see `FeatureCodec.directions`.
        competing: [P, K] bool, the distractor is another thing than the prompt.
    """

    directions: torch.Tensor
    competing: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of one calibration.

    Attributes:
        calibration: holds the K distractors.
        features: [K, D] of them.
        competing: [K] of each prompt that was asked for.
    """

    calibration: PresenceCalibration
    features: torch.Tensor
    competing: dict[str, torch.Tensor]


class DistractorMemo:
    """Remembers hundreds of distractors from query to query. Any thread may use it.

    Args:
        encode: unit text features [M, D] of M texts.
        most: number of prompts that are remembered.
    """

    def __init__(self, encode: Callable[[Sequence[str]], torch.Tensor], most: int) -> None:
        self._encode = encode
        self._most = most
        self._known: _Known | None = None
        self._directions: tuple[object, torch.Tensor, torch.Tensor] | None = None

    def rivals(
        self,
        prompts: Sequence[str],
        features: torch.Tensor,
        snapshot: MapSnapshot,
        calibration: PresenceCalibration,
    ) -> Rivals:
        """What prompts with these features [P, D] compete against in a map."""
        known, directions = self._remembered(calibration), self._directions
        # The codec stays while a map grows by Gaussians alone.
        if directions is None or directions[0] is not snapshot.codec or directions[1] is not known.features:
            directions = snapshot.codec, known.features, snapshot.directions(known.features)
            self._directions = directions
        rows = known.competing if len(known.competing) < self._most else {}
        for prompt, feature in zip(prompts, features, strict=True):
            if prompt not in rows:
                rows[prompt] = known.features @ feature < calibration.synonym
        competing = torch.stack([rows[prompt] for prompt in prompts])
        if rows is not known.competing:
            self._known = _Known(calibration, known.features, rows)
        return Rivals(directions[2], competing)

    def _remembered(self, calibration: PresenceCalibration) -> _Known:
        known = self._known
        if known is None or known.calibration is not calibration:
            known = self._known = _Known(calibration, self._encode(calibration.distractors), {})
        return known
