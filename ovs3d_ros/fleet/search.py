"""Finds things by name in all maps of a folder at once."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from ovs3d_ros.config import Config, QueryConfig, override, resolve_device
from ovs3d_ros.config.stored import restore_config
from ovs3d_ros.encoders import make_clip
from ovs3d_ros.fleet.hits import Hit, find_hits
from ovs3d_ros.fleet.indexing import open_parts
from ovs3d_ros.fleet.parts import IndexedMap
from ovs3d_ros.fleet.stack import MapStack
from ovs3d_ros.query.presence import verdicts
from ovs3d_ros.query.request import check_prompts, check_threshold
from ovs3d_ros.semantics.names import distinct_names
from ovs3d_ros.types import UserError


@dataclass(frozen=True, slots=True)
class FleetAnswer:
    """The answer of all maps.

    Attributes:
        prompts: the P names.
        hits: where they are, prompt after prompt, the surest first.
        found: [P] number of maps that hold each thing.
        unsure: [P] number of maps that may hold it.
        num_maps: number of maps that were searched.
        latency_ms: time of the search in milliseconds, without the encoding of the texts.
    """

    prompts: tuple[str, ...]
    hits: list[Hit]
    found: np.ndarray
    unsure: np.ndarray
    num_maps: int
    latency_ms: float


class FleetIndex:
    """The object index of a folder of maps, in memory: about 0.7 MB per map.

    Args:
        parts: the maps.
        settings: dotted parameters of the session, e.g. `{"query.presence": 0.5}`.
        skipped: the reason for each map file that cannot be searched, by its name.

    Attributes:
        skipped: see above.

    Raises:
        UserError: an encoder cannot be loaded, or is not the one that made the maps.
    """

    def __init__(
        self, parts: Sequence[IndexedMap], settings: dict[str, Any], skipped: dict[str, str] | None = None
    ) -> None:
        self.skipped = skipped or {}
        self._config = override(Config(), settings)
        groups: dict[tuple[str, int], list[IndexedMap]] = defaultdict(list)
        for part in parts:
            if len(part.regions.codes):
                groups[part.encoder, part.extended.shape[1]].append(part)
            else:
                self.skipped[part.path.name] = f"{part.path}: none of its Gaussians has a feature"
        clips: dict[str, Any] = {}
        self._stacks = []
        for (encoder, _), group in groups.items():
            config = override(restore_config(group[0].settings), settings)
            clip = clips.get(encoder) or make_clip(config.clip, resolve_device(config.compute))
            if clip.name != encoder:
                raise UserError(
                    f"{group[0].path}: made with the encoder {encoder}, but clip.model and clip.pretrained "
                    f"name {clip.name}; leave them unset to use the map's own"
                )
            clips[encoder] = clip
            self._stacks.append(MapStack(group, clip, config.query))

    @classmethod
    def open(
        cls,
        folder: str | Path,
        settings: dict[str, Any] | None = None,
        on_map: Callable[[int, int], None] = lambda done, total: None,
    ) -> FleetIndex:
        """Opens the index of the maps in a folder, after making what is missing of it.

        Args:
            folder: holds `*.ovs3d` files.
            settings: see the class.
            on_map: is told how many of how many maps are done.

        Raises:
            UserError: as for the class, or the folder holds no map.
        """
        parts, skipped = open_parts(Path(folder).expanduser(), settings or {}, on_map)
        return cls(parts, settings or {}, skipped)

    @property
    def num_maps(self) -> int:
        """Number of maps that are searched."""
        return sum(len(stack.parts) for stack in self._stacks)

    @property
    def num_regions(self) -> int:
        """Number of regions of all maps."""
        return sum(len(part.regions.codes) for stack in self._stacks for part in stack.parts)

    def query(
        self,
        prompts: Sequence[str],
        *,
        negatives: Sequence[str] = (),
        threshold: float | None = None,
        limit: int = 20,
    ) -> FleetAnswer:
        """Finds things by name.

        Args:
            prompts: 1 to 128 names, each searched on its own.
            negatives: names the prompts compete against; empty: `query.negatives`.
            threshold: relevancy from which a place counts, 0..1; None: the calibrated one.
            limit: most places per prompt.

        Raises:
            UserError: bad prompts, negatives or threshold.
        """
        names = distinct_names(check_prompts(prompts))
        rivals = check_prompts(negatives or self._config.query.negatives, "negative")
        check_threshold(threshold)
        texts = [stack.encode(names, rivals) for stack in self._stacks]
        started = time.perf_counter()
        named = tuple(rivals) != QueryConfig().negatives
        scores = [stack.score(names, words, named) for stack, words in zip(self._stacks, texts, strict=True)]
        hits, config = [], self._config.query
        found, unsure = np.zeros((2, len(names)), np.int64)
        for p, name in enumerate(names):
            maps = [
                (float(of.presence[m, p]), s, m)
                for s, of in enumerate(scores)
                for m in range(len(of.presence))
            ]
            kinds = verdicts(np.array([presence for presence, *_ in maps]), config)
            found[p], unsure[p] = kinds.count("yes"), kinds.count("unsure")
            ranked = sorted(
                (entry for entry, kind in zip(maps, kinds, strict=True) if kind != "no"), key=lambda e: -e[0]
            )
            places: list[Hit] = []
            for presence, s, m in ranked:
                if len(places) >= limit:
                    break
                stack, of = self._stacks[s], scores[s]
                least = stack.engine.label_threshold(threshold)
                relevancy = expit(of.logits[m][p])
                places += find_hits(
                    stack.parts[m], name, relevancy, presence, float(of.peak[m, p]), least, config
                )
            hits += places[:limit]
        latency = 1e3 * (time.perf_counter() - started)
        return FleetAnswer(tuple(names), hits, found, unsure, self.num_maps, latency)
