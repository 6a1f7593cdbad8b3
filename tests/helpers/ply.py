"""What PLY files hold."""

from __future__ import annotations

import numpy as np

PLY_TYPES = {"float": "<f4", "double": "<f8", "uchar": "u1", "uint": "<u4", "int": "<i4"}


def gaussian_columns(num_sh_rest: int = 0) -> list[str]:
    """The columns of the standard 3DGS PLY, in order (Kerbl et al. 2023)."""
    axes, base = ["x", "y", "z", "nx", "ny", "nz"], [f"f_dc_{i}" for i in range(3)]
    rest, scales = [f"f_rest_{i}" for i in range(3 * num_sh_rest)], [f"scale_{i}" for i in range(3)]
    return [*axes, *base, *rest, "opacity", *scales, *(f"rot_{i}" for i in range(4))]


def read_ply(path) -> np.ndarray:
    """A binary little-endian PLY with one element, as a structured array; written from the PLY standard."""
    data = path.read_bytes()
    header, body = data.split(b"end_header\n", 1)
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    (element,) = [line.split() for line in lines if line.startswith("element")]
    fields = [(line.split()[2], PLY_TYPES[line.split()[1]]) for line in lines if line.startswith("property")]
    table = np.frombuffer(body, np.dtype(fields))
    assert element[1] == "vertex" and int(element[2]) == len(table)
    return table
