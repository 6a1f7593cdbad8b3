"""`ovs3d compile`: compiles the kernels ahead of the first start, as when the image of a robot is built."""

from __future__ import annotations

import argparse
import sys

from ovs3d_ros.types import UserError


def run(options: argparse.Namespace) -> int:
    """Compiles what is not compiled yet, and tells where it is kept.

    Raises:
        UserError: no folder that keeps the kernels can be written.
    """
    from ovs3d_ros.warm_up import compile_kernels  # needs torch

    folder = compile_kernels()
    if folder is None:
        raise UserError(
            "compiled kernels cannot be kept; set NUMBA_CACHE_DIR to a folder that can be written"
        )
    sys.stdout.write(f"The kernels are compiled and kept in {folder}\n")
    return 0
