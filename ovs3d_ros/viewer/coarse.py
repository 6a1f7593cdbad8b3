"""A coarse map for the first picture: few large Gaussians that stand for many. Imports no torch.

Without a graphics card, the time to the first picture grows with the number of Gaussians.
"""

from __future__ import annotations

import numpy as np

from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.viewer.drawing import Drawn

MOST = 1500  # Gaussians of a coarse map; maps with up to twice as many are shown as they are
_SAMPLE = 20_000  # Gaussians that tell the size of the cells
_HALVINGS = 10  # of the interval in which that size lies
_WIDER = 3.0  # factor of the spread of centres: neighbours on a surface then close without a pattern
_OPAQUE = 0.95  # largest opacity


def is_large(drawn: Drawn) -> bool:
    """Whether a coarse map is much smaller than these Gaussians."""
    return len(drawn.centers) > 2 * MOST


def merge(drawn: Drawn) -> Drawn:
    """About `MOST` Gaussians, each for all whose centres are in one cell of a grid.

    Centre, colour and covariance are means in which a Gaussian counts by its opacity and the area that it
    covers; the spread of the centres widens the covariance.
    """
    _, owners = np.unique(_cells(drawn.centers, _cell_size(drawn.centers)), return_inverse=True)
    count = int(owners.max()) + 1
    areas = np.trace(drawn.covariances, axis1=1, axis2=2).clip(min=1e-12)
    weights = drawn.opacities[:, 0].clip(min=1e-3) * areas
    totals = np.bincount(owners, weights, count)

    def mean(values: np.ndarray) -> np.ndarray:
        columns = values.reshape(len(values), -1)
        sums = [np.bincount(owners, weights * column, count) for column in columns.T]
        return (np.stack(sums, axis=1) / totals[:, None]).reshape(count, *values.shape[1:])

    centers = mean(drawn.centers)
    off = drawn.centers - centers[owners]
    covariances = mean(drawn.covariances + _WIDER * off[:, :, None] * off[:, None, :])
    opacities = np.zeros(count)
    np.maximum.at(opacities, owners, drawn.opacities[:, 0])
    return Drawn(
        centers.astype(np.float32),
        covariances.astype(np.float32),
        mean(drawn.colors).round().astype(np.uint8),
        opacities.clip(max=_OPAQUE).astype(np.float32)[:, None],
    )


def _cells(centers: np.ndarray, size: float) -> np.ndarray:
    """The number [M] of the cell in which each centre [M, 3] is."""
    places = np.floor((centers - centers.min(axis=0)) / size).astype(np.int64)
    _, y, z = places.max(axis=0) + 1
    return (places[:, 0] * y + places[:, 1]) * z + places[:, 2]


def _cell_size(centers: np.ndarray) -> float:
    """The least size of cells, metres, of which these centres [M, 3] fill at most `MOST`."""
    sample = centers[evenly_spaced_indices(len(centers), _SAMPLE)].astype(np.float64)
    extent = float(np.ptp(sample, axis=0).max()) + 1e-6
    low, high = 0.0, extent
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if len(np.unique(_cells(sample, middle))) > MOST:
            low = middle
        else:
            high = middle
    return high
