"""What PLY files of Gaussians hold."""

from __future__ import annotations


def gaussian_columns(num_sh_rest: int = 0) -> list[str]:
    """The columns of the standard 3DGS PLY, in order (Kerbl et al. 2023)."""
    axes, base = ["x", "y", "z", "nx", "ny", "nz"], [f"f_dc_{i}" for i in range(3)]
    rest, scales = [f"f_rest_{i}" for i in range(3 * num_sh_rest)], [f"scale_{i}" for i in range(3)]
    return [*axes, *base, *rest, "opacity", *scales, *(f"rot_{i}" for i in range(4))]
