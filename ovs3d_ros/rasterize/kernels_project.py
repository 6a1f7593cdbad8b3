"""Numba kernels: Gaussians to screen-space splats, forward and analytic backward.

The maths is EWA splatting (Zwicker et al. 2001; Kerbl et al. 2023, eq. 5) with the constants of gsplat 1.5.3:
`eps2d` on the diagonal of the 2D covariance, opacity-aware radii, and a Jacobian evaluated at a point clamped
to 1.3 times the field of view. Arrays are float32, arithmetic is float64: scalar code costs the same, and the
conic of a needle-shaped Gaussian would lose half its digits in float32.

Every kernel works on one contiguous range of the Gaussians, so threads never write the same memory.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from .kernel_cache import cached_njit

KERNEL = {"nogil": True, "fastmath": True, "error_model": "numpy", "boundscheck": False}
KERNEL["no_cfunc_wrapper"] = True  # no code calls kernels by address, and every wrapper takes time to compile
# Kernels inline the helpers. Helpers without cache files and Python wrappers compile a fifth faster.
HELPER = {**KERNEL, "no_cpython_wrapper": True}

MIN_ALPHA = 1.0 / 255.0
MAX_EXTENT = 3.33  # standard deviations; 3.33^2 / 2 > ln 255, so it never cuts a visible alpha
EPS2D = 0.3  # pixels^2
NEAR_PLANE = 0.01  # metres
FOV_MARGIN = 0.3  # of the half field of view, on each side


class GaussianArrays(NamedTuple):
    """The geometry of the Gaussians, or its gradient."""

    means: np.ndarray  # [N, 3] float32
    quats: np.ndarray  # [N, 4] float32, wxyz, any norm
    scales: np.ndarray  # [N, 3] float32
    opacities: np.ndarray  # [N] float32


class CameraArrays(NamedTuple):
    """One pinhole camera."""

    viewmat: np.ndarray  # [4, 4] float64
    K: np.ndarray  # [3, 3] float64
    width: int
    height: int


class ProjectedArrays(NamedTuple):
    """All Gaussians as seen by one camera; radii are 0 where a Gaussian is culled."""

    means2d: np.ndarray  # [N, 2] float32, pixels
    conics: np.ndarray  # [N, 3] float32, inverse 2D covariance: xx, xy, yy
    depths: np.ndarray  # [N] float32, camera z
    radii: np.ndarray  # [N, 2] int32, pixels
    half_sizes: np.ndarray  # [N, 2] float32, pixels: alpha stays below 1/255 outside this box


@njit(**HELPER)
def thread_range(thread, num_threads, count):
    """(first, last + 1) of the items, out of `count`, that one thread works on."""
    return thread * count // num_threads, (thread + 1) * count // num_threads


@njit(**HELPER)
def sigma_threshold(opacity):
    """The largest sigma at which opacity * exp(-sigma) reaches 1/255, with room for float32 rounding."""
    return max(math.log(opacity / MIN_ALPHA), 0.0) * 1.0001 + 1e-4


@njit(**HELPER)
def _rotation_matrix(w, x, y, z, out):
    """Rotation matrix of a unit quaternion."""
    out[0, 0] = 1.0 - 2.0 * (y * y + z * z)
    out[0, 1] = 2.0 * (x * y - w * z)
    out[0, 2] = 2.0 * (x * z + w * y)
    out[1, 0] = 2.0 * (x * y + w * z)
    out[1, 1] = 1.0 - 2.0 * (x * x + z * z)
    out[1, 2] = 2.0 * (y * z - w * x)
    out[2, 0] = 2.0 * (x * z - w * y)
    out[2, 1] = 2.0 * (y * z + w * x)
    out[2, 2] = 1.0 - 2.0 * (x * x + y * y)


@njit(**HELPER)
def _rotation_matrix_backward(w, x, y, z, v):
    """Gradient of `_rotation_matrix` with respect to the unit quaternion; v is that of its output."""
    v_w = 2.0 * (x * (v[2, 1] - v[1, 2]) + y * (v[0, 2] - v[2, 0]) + z * (v[1, 0] - v[0, 1]))
    v_x = 2.0 * (
        y * (v[0, 1] + v[1, 0])
        + z * (v[0, 2] + v[2, 0])
        + w * (v[2, 1] - v[1, 2])
        - 2.0 * x * (v[1, 1] + v[2, 2])
    )
    v_y = 2.0 * (
        x * (v[0, 1] + v[1, 0])
        + z * (v[1, 2] + v[2, 1])
        + w * (v[0, 2] - v[2, 0])
        - 2.0 * y * (v[0, 0] + v[2, 2])
    )
    v_z = 2.0 * (
        x * (v[0, 2] + v[2, 0])
        + y * (v[1, 2] + v[2, 1])
        + w * (v[1, 0] - v[0, 1])
        - 2.0 * z * (v[0, 0] + v[1, 1])
    )
    return v_w, v_x, v_y, v_z


@njit(**HELPER)
def _to_camera(viewmat, means, n):
    """Mean of Gaussian n in camera axes."""
    x, y, z = float(means[n, 0]), float(means[n, 1]), float(means[n, 2])
    return (
        viewmat[0, 0] * x + viewmat[0, 1] * y + viewmat[0, 2] * z + viewmat[0, 3],
        viewmat[1, 0] * x + viewmat[1, 1] * y + viewmat[1, 2] * z + viewmat[1, 3],
        viewmat[2, 0] * x + viewmat[2, 1] * y + viewmat[2, 2] * z + viewmat[2, 3],
    )


@njit(**HELPER)
def _clamped_slope(slope, focal, centre, size):
    """x/z (or y/z) clamped to the field of view plus a margin; and 1.0 if it lay inside, else 0.0."""
    margin = FOV_MARGIN * 0.5 * size / focal
    low, high = -(centre / focal + margin), (size - centre) / focal + margin
    return min(max(slope, low), high), 1.0 if low <= slope <= high else 0.0


@njit(**HELPER)
def _camera_axes(quats, viewmat, n, rotation, axes):
    """Fills the rotation matrix of Gaussian n, in world and in camera axes.

    Returns (w, x, y, z, norm): its unit quaternion, and the norm before normalisation.
    """
    w, x, y, z = float(quats[n, 0]), float(quats[n, 1]), float(quats[n, 2]), float(quats[n, 3])
    norm = max(math.sqrt(w * w + x * x + y * y + z * z), 1e-12)
    w, x, y, z = w / norm, x / norm, y / norm, z / norm
    _rotation_matrix(w, x, y, z, rotation)
    for i in range(3):
        for j in range(3):
            axes[i, j] = (
                viewmat[i, 0] * rotation[0, j]
                + viewmat[i, 1] * rotation[1, j]
                + viewmat[i, 2] * rotation[2, j]
            )
    return w, x, y, z, norm


@njit(**HELPER)
def _screen_axes(camera, point, axes, scales, n, out):
    """Fills `out` [2, 3] with J·(camera axes)·diag(scales), whose outer product is the 2D covariance.

    Returns (j_xx, j_xz, j_yy, j_yz), the non-zero entries of the projection's Jacobian J.
    """
    x, y, z = point
    fx, fy = camera.K[0, 0], camera.K[1, 1]
    slope_x, _ = _clamped_slope(x / z, fx, camera.K[0, 2], camera.width)
    slope_y, _ = _clamped_slope(y / z, fy, camera.K[1, 2], camera.height)
    j_xx, j_xz, j_yy, j_yz = fx / z, -fx * slope_x / z, fy / z, -fy * slope_y / z
    for j in range(3):
        out[0, j] = (j_xx * axes[0, j] + j_xz * axes[2, j]) * scales[n, j]
        out[1, j] = (j_yy * axes[1, j] + j_yz * axes[2, j]) * scales[n, j]
    return j_xx, j_xz, j_yy, j_yz


@njit(**HELPER)
def _covariance(screen):
    """(xx, xy, yy, determinant) of the 2D covariance, with gsplat's low-pass on its diagonal."""
    xx = screen[0, 0] * screen[0, 0] + screen[0, 1] * screen[0, 1] + screen[0, 2] * screen[0, 2] + EPS2D
    xy = screen[0, 0] * screen[1, 0] + screen[0, 1] * screen[1, 1] + screen[0, 2] * screen[1, 2]
    yy = screen[1, 0] * screen[1, 0] + screen[1, 1] * screen[1, 1] + screen[1, 2] * screen[1, 2] + EPS2D
    return xx, xy, yy, xx * yy - xy * xy


@cached_njit(**KERNEL)
def project_forward(thread, num_threads, gaussians, camera, projected):
    """Projects one thread's range of the Gaussians into `projected`."""
    rotation, axes, screen = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3))
    K, width, height = camera.K, camera.width, camera.height
    first, last = thread_range(thread, num_threads, gaussians.means.shape[0])
    for n in range(first, last):
        projected.radii[n, 0] = 0
        projected.radii[n, 1] = 0
        projected.means2d[n, 0] = 0.0
        projected.means2d[n, 1] = 0.0
        x, y, z = _to_camera(camera.viewmat, gaussians.means, n)
        projected.depths[n] = z
        opacity = float(gaussians.opacities[n])
        if z < NEAR_PLANE or opacity < MIN_ALPHA:
            continue
        _camera_axes(gaussians.quats, camera.viewmat, n, rotation, axes)
        _screen_axes(camera, (x, y, z), axes, gaussians.scales, n, screen)
        xx, xy, yy, det = _covariance(screen)
        u, v = K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]
        extent = min(MAX_EXTENT, math.sqrt(2.0 * math.log(max(opacity / MIN_ALPHA, 1.0))))
        radius_x, radius_y = math.ceil(extent * math.sqrt(xx)), math.ceil(extent * math.sqrt(yy))
        outside = u + radius_x <= 0 or u - radius_x >= width or v + radius_y <= 0 or v - radius_y >= height
        if det <= 0.0 or outside:
            continue
        projected.means2d[n, 0] = u
        projected.means2d[n, 1] = v
        projected.conics[n, 0] = yy / det
        projected.conics[n, 1] = -xy / det
        projected.conics[n, 2] = xx / det
        threshold = sigma_threshold(opacity)
        projected.half_sizes[n, 0] = math.sqrt(2.0 * threshold * xx)
        projected.half_sizes[n, 1] = math.sqrt(2.0 * threshold * yy)
        projected.radii[n, 0] = min(radius_x, 2.0**30)
        projected.radii[n, 1] = min(radius_y, 2.0**30)


@njit(**HELPER)
def _covariance_backward(screen, v_conic, out):
    """Fills `out` [2, 3] with the gradient of the screen axes, from that of the conic.

    dL/dS = -Q (dL/dQ) Q for the inverse Q of S, and dL/dB = 2 (dL/dS) B for S = B B^T. The exponent holds
    the conic's xy entry once, the matrix Q holds it twice: hence the halves.
    """
    xx, xy, yy, det = _covariance(screen)
    a, b, c = yy / det, -xy / det, xx / det
    v_a, v_b, v_c = v_conic[0], 0.5 * v_conic[1], v_conic[2]
    left, mid_l, mid_r, right = v_a * a + v_b * b, v_a * b + v_b * c, v_b * a + v_c * b, v_b * b + v_c * c
    s_xx = -(a * left + b * mid_r)
    s_xy = -(a * mid_l + b * right)
    s_yy = -(b * mid_l + c * right)
    for j in range(3):
        out[0, j] = 2.0 * (s_xx * screen[0, j] + s_xy * screen[1, j])
        out[1, j] = 2.0 * (s_xy * screen[0, j] + s_yy * screen[1, j])


@njit(**HELPER)
def _point_backward(camera, point, v_jacobian, v_uv):
    """Gradient of the camera-space mean, through the pixel position and the Jacobian."""
    x, y, z = point
    fx, fy = camera.K[0, 0], camera.K[1, 1]
    v_jxx, v_jxz, v_jyy, v_jyz = v_jacobian
    slope_x, free_x = _clamped_slope(x / z, fx, camera.K[0, 2], camera.width)
    slope_y, free_y = _clamped_slope(y / z, fy, camera.K[1, 2], camera.height)
    v_x = fx / z * v_uv[0] - free_x * fx / (z * z) * v_jxz
    v_y = fy / z * v_uv[1] - free_y * fy / (z * z) * v_jyz
    # J_xz = -fx slope / z: z enters once if the slope is clamped, twice if the slope is x/z.
    v_z = (
        -(fx * x * v_uv[0] + fy * y * v_uv[1])
        - fx * v_jxx
        - fy * v_jyy
        + (1.0 + free_x) * fx * slope_x * v_jxz
        + (1.0 + free_y) * fy * slope_y * v_jyz
    ) / (z * z)
    return v_x, v_y, v_z


@njit(**HELPER)
def _axes_backward(scales, n, rows, v_screen, axes, v_axes, v_scales):
    """Adds to the gradient of the scales and fills that of the camera axes, from that of the screen axes.

    Returns the gradients of the Jacobian's entries (j_xx, j_xz, j_yy, j_yz).
    """
    j_xx, j_xz, j_yy, j_yz = rows
    v_jxx, v_jxz, v_jyy, v_jyz = 0.0, 0.0, 0.0, 0.0
    for j in range(3):
        scale, v_0, v_1 = float(scales[n, j]), v_screen[0, j], v_screen[1, j]
        v_jxx += v_0 * axes[0, j] * scale
        v_jxz += v_0 * axes[2, j] * scale
        v_jyy += v_1 * axes[1, j] * scale
        v_jyz += v_1 * axes[2, j] * scale
        m_0, m_1, m_2 = j_xx * v_0, j_yy * v_1, j_xz * v_0 + j_yz * v_1
        v_scales[n, j] += m_0 * axes[0, j] + m_1 * axes[1, j] + m_2 * axes[2, j]
        v_axes[0, j] = m_0 * scale
        v_axes[1, j] = m_1 * scale
        v_axes[2, j] = m_2 * scale
    return v_jxx, v_jxz, v_jyy, v_jyz


@njit(**HELPER)
def _add_viewmat_gradient(means, n, rotation, v_point, v_axes, v_viewmat):
    """Adds one Gaussian's share to `v_viewmat` [4, 4]: camera mean = V m + t, camera axes = V R."""
    for i in range(3):
        for k in range(3):
            v_viewmat[i, k] += v_point[i] * means[n, k] + (
                v_axes[i, 0] * rotation[k, 0] + v_axes[i, 1] * rotation[k, 1] + v_axes[i, 2] * rotation[k, 2]
            )
        v_viewmat[i, 3] += v_point[i]


@cached_njit(**KERNEL)
def project_backward(
    thread, num_threads, gaussians, camera, visible, v_splats, v_gaussians, v_means2d_abs, v_viewmats
):
    """Adds the gradients of one thread's range of the visible Gaussians to `v_gaussians`.

    Args:
        thread, num_threads: select the range.
        gaussians, camera: as given to `project_forward`.
        visible: [M] int64, the Gaussian of each splat.
        v_splats: [threads, M, 8] float32, partial sums of the gradients from the tile kernels:
            u, v, |u|, |v|, conic xx, xy, yy, opacity.
        v_gaussians: GaussianArrays of gradients, added to.
        v_means2d_abs: [N, 2] float32, sums of absolute per-pixel gradients, added to.
        v_viewmats: [threads, 4, 4] float64, each thread adds to its own; [0, 4, 4] to skip this gradient.
    """
    rotation, axes, v_axes = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    screen, v_screen, v_splat = np.empty((2, 3)), np.empty((2, 3)), np.empty(8)
    viewmat = camera.viewmat
    first, last = thread_range(thread, num_threads, visible.shape[0])
    for i in range(first, last):
        n = visible[i]
        for k in range(8):
            v_splat[k] = 0.0
            for part in range(v_splats.shape[0]):
                v_splat[k] += v_splats[part, i, k]
        v_means2d_abs[n, 0] += v_splat[2]
        v_means2d_abs[n, 1] += v_splat[3]
        v_gaussians.opacities[n] += v_splat[7]

        point = _to_camera(viewmat, gaussians.means, n)
        w, x, y, z, norm = _camera_axes(gaussians.quats, viewmat, n, rotation, axes)
        rows = _screen_axes(camera, point, axes, gaussians.scales, n, screen)
        _covariance_backward(screen, (v_splat[4], v_splat[5], v_splat[6]), v_screen)
        v_jacobian = _axes_backward(gaussians.scales, n, rows, v_screen, axes, v_axes, v_gaussians.scales)
        v_point = _point_backward(camera, point, v_jacobian, (v_splat[0], v_splat[1]))
        if v_viewmats.shape[0]:
            _add_viewmat_gradient(gaussians.means, n, rotation, v_point, v_axes, v_viewmats[thread])
        for j in range(3):
            v_gaussians.means[n, j] += (
                viewmat[0, j] * v_point[0] + viewmat[1, j] * v_point[1] + viewmat[2, j] * v_point[2]
            )
        # Camera axes = V R, so dL/dR = V^T dL/d(axes). `rotation` is free to hold it.
        for k in range(3):
            for j in range(3):
                rotation[k, j] = (
                    viewmat[0, k] * v_axes[0, j] + viewmat[1, k] * v_axes[1, j] + viewmat[2, k] * v_axes[2, j]
                )
        v_w, v_x, v_y, v_z = _rotation_matrix_backward(w, x, y, z, rotation)
        along = v_w * w + v_x * x + v_y * y + v_z * z  # normalisation passes no gradient along the quaternion
        v_gaussians.quats[n, 0] += (v_w - along * w) / norm
        v_gaussians.quats[n, 1] += (v_x - along * x) / norm
        v_gaussians.quats[n, 2] += (v_y - along * y) / norm
        v_gaussians.quats[n, 3] += (v_z - along * z) / norm
