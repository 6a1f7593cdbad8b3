"""Gaussians as visitors see them. Imports no torch, so that the first picture does not wait for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ovs3d_ros.geometry import SH_C0, unit_quats_to_matrices
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.visualization import pictures

_MIN_OPACITY = 0.02  # fainter Gaussians cost the browser time and show nothing
_HALF_MAX = 60_000.0  # the browser holds covariances as 16-bit floats


class Drawn(NamedTuple):
    """What the browser or the painter gets.

    Attributes:
        centers: [M, 3] float32 metres.
        covariances: [M, 3, 3] float32 square metres, for the browser.
        colors: [M, 3] uint8.
        opacities: [M, 1] float32, 0..1.
        quats: [M, 4] float32 wxyz of any norm, for the painter.
        scales: [M, 3] float32 metres, for the painter.
    """

    centers: np.ndarray
    covariances: np.ndarray
    colors: np.ndarray
    opacities: np.ndarray
    quats: np.ndarray
    scales: np.ndarray

    @property
    def splats(self) -> tuple[np.ndarray, ...]:
        """What viser sends to a page: centers, covariances, colors and opacities."""
        return self.centers, self.covariances, self.colors, self.opacities

    def tinted(self, colors: np.ndarray, opacity: float) -> Drawn:
        """The same in other colours [M, 3] uint8; `opacity` is a factor."""
        return self._replace(colors=colors, opacities=self.opacities * np.float32(opacity))


def visible_rows(opacities: np.ndarray, max_count: int) -> np.ndarray:
    """Indices of Gaussians that show, by their opacities [N], evenly thinned to `max_count`."""
    visible = np.flatnonzero(opacities >= _MIN_OPACITY)
    return visible[evenly_spaced_indices(len(visible), max_count)]


def draw(
    means: np.ndarray, quats: np.ndarray, scales: np.ndarray, opacities: np.ndarray, harmonics: np.ndarray
) -> Drawn:
    """Gaussians for visitors.

    Args:
        means: [M, 3] metres.
        quats: [M, 4] wxyz of any norm.
        scales: [M, 3] metres.
        opacities: [M], 0..1.
        harmonics: [M, 3] constant spherical harmonics of the colours.
    """
    lengths = np.linalg.norm(quats, axis=1, keepdims=True).clip(min=1e-12)
    factors = unit_quats_to_matrices(quats / lengths) * scales[:, None, :]
    covariances = (factors @ factors.transpose(0, 2, 1)).clip(-_HALF_MAX, _HALF_MAX)
    colors = pictures.to_uint8(0.5 + SH_C0 * harmonics)
    return Drawn(means, covariances, colors, opacities[:, None], quats, scales)
