"""A picture of coloured Gaussians straight from arrays. Imports no torch, which takes seconds to load."""

from __future__ import annotations

import numpy as np

from .cpu_passes import composite_view
from .cpu_view import SceneArrays, prepare_view
from .kernels_project import CameraArrays
from .thread_pool import ThreadPool


def render_picture(
    pool: ThreadPool, scene: SceneArrays, camera: CameraArrays
) -> tuple[np.ndarray, np.ndarray]:
    """Renders finite Gaussians over black: image [H, W, D] and transmittance [H, W], float32."""
    image = np.empty((camera.height, camera.width, scene.rgb_channels + scene.colors.shape[1]), np.float32)
    transmittance = np.empty(image.shape[:2], np.float32)
    composite_view(pool, prepare_view(pool, scene, camera), image, transmittance)
    return image, transmittance
