"""Chooses device, rasterizer and threads on this machine where a parameter leaves them open."""

from __future__ import annotations

import os

from ovs3d_ros.config.models import ComputeConfig
from ovs3d_ros.types import UserError


def resolve_device(config: ComputeConfig) -> str:
    """The torch device name: "cpu" or "cuda".

    Raises:
        UserError: compute.device is cuda and torch sees no GPU.
    """
    if config.device == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if config.device == "cuda":
        raise UserError(
            "compute.device is cuda but torch sees no GPU; install a CUDA build or set compute.device=cpu"
        )
    return "cpu"


def resolve_rasterizer(config: ComputeConfig) -> str:
    """The rasterizer name for the resolved device: "gsplat" or "cpu".

    Raises:
        UserError: as `resolve_device`, or compute.rasterizer does not work on that device.
    """
    device = resolve_device(config)
    if (config.rasterizer, device) == ("cpu", "cuda") or (config.rasterizer, config.device) == (
        "gsplat",
        "cpu",
    ):
        raise UserError(
            f"compute.rasterizer is {config.rasterizer} but compute.device is {device}: set "
            f"compute.device={'cpu' if config.rasterizer == 'cpu' else 'cuda'} too, or "
            "compute.rasterizer=auto"
        )
    if config.rasterizer != "auto":
        return config.rasterizer
    return "gsplat" if device == "cuda" else "cpu"


def resolve_threads(threads: int) -> int:
    """The number of threads that `compute.threads` means: for 0 one per core that the process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return threads or cores
