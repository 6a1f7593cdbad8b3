"""Even subsets of a sequence."""

from __future__ import annotations

import numpy as np


def evenly_spaced_indices(count: int, limit: int) -> np.ndarray:
    """Indices [min(count, limit)] int64, ascending, evenly spaced over 0..count - 1.

    Both ends are among them if there are two or more.
    """
    if count <= limit:
        return np.arange(count)
    return np.linspace(0, count - 1, limit).round().astype(np.int64)
