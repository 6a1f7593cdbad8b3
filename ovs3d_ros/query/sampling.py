"""Draws points of components, evenly spread over the rows of a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ovs3d_ros.rasterize.kernel_cache import cached_njit
from ovs3d_ros.rasterize.kernels_project import thread_range
from ovs3d_ros.rasterize.thread_pool import ThreadPool


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws points of components, evenly spread over the rows.

    Attributes:
        number: [N] component of each labelled point.
        labels: [N] 0 = none.
        means: [N, 3] metres.
        parts: [parts, C] number of points of each component in each part of the rows.
        pool: has as many threads as there are parts.
    """

    number: np.ndarray
    labels: np.ndarray
    means: np.ndarray
    parts: np.ndarray
    pool: ThreadPool

    def sample(self, chosen: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
        """At most so many points [S, 3] of each of the chosen components [K]; see `draw`."""
        place = np.zeros(self.parts.shape[1], np.int64)
        place[chosen] = np.arange(1, len(chosen) + 1)
        parts = self.parts[:, chosen]
        return self.draw(place, parts, 1 + parts.sum(0) // most)

    def draw(self, place: np.ndarray, parts: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every `steps`-th point of each of K sets of components.

        Args:
            place: [C] the set of each component, counted from 1; 0 = none.
            parts: [parts, K] number of points of each set in each part of the rows.
            steps: [K].

        Returns:
            points [S, 3] in metres, set after set; where each starts and stops [K, 2].
        """
        before, counts = np.cumsum(parts, axis=0) - parts, -(-parts.sum(0) // steps)
        segments = np.stack([counts.cumsum() - counts, counts.cumsum()], axis=1)
        points = np.empty((counts.sum(), 3))
        free, wait = segments[:, 0] + -(-before // steps), -before % steps  # [parts, K]: where a part goes on
        arrays = self.number, self.labels, self.means
        self.pool.run(
            lambda *part: _draw_part(part, arrays, place, steps, free[part[0]], wait[part[0]], points)
        )
        return points, segments


@cached_njit(nogil=True)
def _draw_part(part, arrays, place, steps, free, wait, points):
    """Draws the points of one part of the rows; `free` is the next row of `points`, `wait` counts."""
    number, labels, means = arrays
    start, stop = thread_range(part[0], part[1], len(labels))
    for i in range(start, stop):
        k = place[number[i]] - 1 if labels[i] else -1
        if k >= 0:
            if wait[k] == 0:
                for a in range(3):
                    points[free[k], a] = means[i, a]
                free[k] += 1
                wait[k] = steps[k]
            wait[k] -= 1
