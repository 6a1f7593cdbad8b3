"""Numba kernels: spherical harmonics to the colours of the visible Gaussians, forward and analytic backward.

The harmonics are those of `spherical_harmonics`, as polynomials of the unit viewing direction. Gradients
reach the coefficients and, through the direction, the means and the camera centre, as in gsplat 1.5.3.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .kernel_cache import cached_njit
from .kernels_project import HELPER, KERNEL, thread_range

RGB = 3  # channels


@njit(**HELPER)
def _direction(means, n, center):
    """Unit vector from the camera centre to Gaussian n, and its length."""
    x, y, z = means[n, 0] - center[0], means[n, 1] - center[1], means[n, 2] - center[2]
    length = max(math.sqrt(x * x + y * y + z * z), 1e-12)
    return x / length, y / length, z / length, length


@njit(**HELPER)
def _fill_basis(x, y, z, count, out):
    """Fills `out` with the first `count` (1, 4, 9 or 16) harmonics of a unit direction."""
    out[0] = 0.28209479177387814
    if count > 1:
        out[1], out[2], out[3] = -0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x
    if count > 4:
        out[4] = 1.0925484305920792 * x * y
        out[5] = -1.0925484305920792 * y * z
        out[6] = 0.31539156525252005 * (2.0 * z * z - x * x - y * y)
        out[7] = -1.0925484305920792 * x * z
        out[8] = 0.5462742152960396 * (x * x - y * y)
    if count > 9:
        out[9] = -0.5900435899266435 * y * (3.0 * x * x - y * y)
        out[10] = 2.890611442640554 * x * y * z
        out[11] = -0.4570457994644658 * y * (4.0 * z * z - x * x - y * y)
        out[12] = 0.3731763325901154 * z * (2.0 * z * z - 3.0 * x * x - 3.0 * y * y)
        out[13] = -0.4570457994644658 * x * (4.0 * z * z - x * x - y * y)
        out[14] = 1.445305721320277 * z * (x * x - y * y)
        out[15] = -0.5900435899266435 * x * (x * x - 3.0 * y * y)


@njit(**HELPER)
def _basis_backward(x, y, z, count, v):
    """Gradient of the direction, with its three components as free numbers, from that of the basis."""
    a, b, c = 0.4886025119029199, 1.0925484305920792, 0.31539156525252005
    v_x, v_y, v_z = -a * v[3], -a * v[1], a * v[2]
    if count > 4:
        d = 0.5462742152960396
        v_x += b * (y * v[4] - z * v[7]) + 2.0 * x * (d * v[8] - c * v[6])
        v_y += b * (x * v[4] - z * v[5]) - 2.0 * y * (d * v[8] + c * v[6])
        v_z += -b * (y * v[5] + x * v[7]) + 4.0 * c * z * v[6]
    if count > 9:
        e, f, g = 0.5900435899266435, 2.890611442640554, 0.4570457994644658
        h, k = 0.3731763325901154, 1.445305721320277
        xx, yy, zz, xy = x * x, y * y, z * z, x * y
        v_x += -6.0 * e * xy * v[9] + f * y * z * v[10] + 2.0 * g * xy * v[11] - 6.0 * h * x * z * v[12]
        v_x += g * (3.0 * xx + yy - 4.0 * zz) * v[13] + 2.0 * k * x * z * v[14] + 3.0 * e * (yy - xx) * v[15]
        v_y += 3.0 * e * (yy - xx) * v[9] + f * x * z * v[10] + g * (xx + 3.0 * yy - 4.0 * zz) * v[11]
        v_y += (
            -6.0 * h * y * z * v[12] + 2.0 * g * xy * v[13] - 2.0 * k * y * z * v[14] + 6.0 * e * xy * v[15]
        )
        v_z += f * xy * v[10] - 8.0 * g * z * (y * v[11] + x * v[13]) + k * (xx - yy) * v[14]
        v_z += h * (6.0 * zz - 3.0 * xx - 3.0 * yy) * v[12]
    return v_x, v_y, v_z


@cached_njit(**KERNEL)
def shade_forward(thread, num_threads, visible, means, center, sh, packed_colors):
    """Fills the first three packed colors of one thread's range of the visible Gaussians.

    Args:
        thread, num_threads: select the range.
        visible: [M] int64, the Gaussian of each row.
        means: [N, 3] float32.
        center: [3] float64, camera position.
        sh: [N, K, 3] float32, K = 1, 4, 9 or 16.
        packed_colors: [M, >= 3] float32; colours below 0 become 0.
    """
    basis, count = np.empty(16), sh.shape[1]
    first, last = thread_range(thread, num_threads, visible.shape[0])
    for i in range(first, last):
        n = visible[i]
        x, y, z, _ = _direction(means, n, center)
        _fill_basis(x, y, z, count, basis)
        for c in range(RGB):
            color = 0.5
            for k in range(count):
                color += basis[k] * sh[n, k, c]
            packed_colors[i, c] = max(color, 0.0)


@cached_njit(**KERNEL)
def shade_backward(
    thread, num_threads, visible, means, center, sh, packed_colors, v_colors, v_means, v_sh, v_centers
):
    """Adds the gradients of one thread's range of the visible Gaussians to `v_means` and `v_sh`.

    Args:
        thread, num_threads, visible, means, center, sh, packed_colors: as in `shade_forward`.
        v_colors: [threads, M, >= 3] float32, partial sums of the gradient of the packed colors.
        v_means: [N, 3] float32, added to.
        v_sh: [N, K, 3] float32, added to.
        v_centers: [threads, 3] float64, gradient of the centre, each thread adds to its own.
    """
    basis, v_basis, count = np.empty(16), np.empty(16), sh.shape[1]
    first, last = thread_range(thread, num_threads, visible.shape[0])
    for i in range(first, last):
        n = visible[i]
        x, y, z, length = _direction(means, n, center)
        _fill_basis(x, y, z, count, basis)
        for k in range(count):
            v_basis[k] = 0.0
        for c in range(RGB):
            v_color = 0.0
            if packed_colors[i, c] > 0.0:
                for part in range(v_colors.shape[0]):
                    v_color += v_colors[part, i, c]
            for k in range(count):
                v_sh[n, k, c] += basis[k] * v_color
                v_basis[k] += sh[n, k, c] * v_color
        if count > 1:
            v_x, v_y, v_z = _basis_backward(x, y, z, count, v_basis)
            along = v_x * x + v_y * y + v_z * z  # normalisation passes no gradient along the direction
            v_x, v_y, v_z = (v_x - along * x) / length, (v_y - along * y) / length, (v_z - along * z) / length
            v_means[n, 0] += v_x
            v_means[n, 1] += v_y
            v_means[n, 2] += v_z
            v_centers[thread, 0] -= v_x
            v_centers[thread, 1] -= v_y
            v_centers[thread, 2] -= v_z
