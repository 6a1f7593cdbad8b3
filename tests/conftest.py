"""Markers that say what a test needs; what this machine lacks is skipped with the reason."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

MARKERS = {
    "slow": "takes more than a few seconds; leave it out with -m 'not slow'",
    "gpu": "needs a CUDA GPU and gsplat",
    "ros": "needs rclpy and ovs3d_interfaces",
}


def pytest_configure(config: pytest.Config) -> None:
    for name, description in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {description}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = {"gpu": _why_no_gpu, "ros": _why_no_ros}
    for name, reason in reasons.items():
        marked = [item for item in items if item.get_closest_marker(name)]
        why = reason() if marked else ""
        for item in marked:
            if why:
                item.add_marker(pytest.mark.skip(reason=why))


def _why_no_ros() -> str:
    missing = [name for name in ("rclpy", "ovs3d_interfaces") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} not installed" if missing else ""


def _why_no_gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no CUDA GPU"
    return "" if importlib.util.find_spec("gsplat") else "gsplat not installed"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout under test."""
    return REPOSITORY
