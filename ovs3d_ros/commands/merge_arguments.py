"""The arguments of `ovs3d merge`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_merge(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `ovs3d merge`."""
    parser.add_argument("map", type=Path, metavar="MAP", help="map whose frame the result is in")
    parser.add_argument("other", type=Path, metavar="OTHER", help="map that is put into MAP")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="map to write")
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--transform",
        type=float,
        nargs=7,
        metavar=("X", "Y", "Z", "QX", "QY", "QZ", "QW"),
        help="where the frame of OTHER lies in that of MAP (default: they are the same), in units of MAP",
    )
    place.add_argument(
        "--align", action="store_true", help="find that place by what both maps show, or refuse if unsure"
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="steps that heal the seams (default 20 a keyframe, up to 4000)"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the figures as JSON to this file; - writes to standard output"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")
