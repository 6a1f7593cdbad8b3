"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_set(parser: argparse.ArgumentParser) -> None:
    """Adds `--set`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set a parameter, e.g. clip.model=ViT-B-16 or 'query.negatives=[object, floor]'; more may "
        "follow; `ovs3d config` lists all parameters",
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    """Adds `--set`, `--json` and `--quiet`."""
    add_set(parser)
    parser.add_argument(
        "--json", metavar="FILE", help="write the results as JSON to this file; - writes to standard output"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")


def add_map_file(parser: argparse.ArgumentParser) -> None:
    """Adds the map that a command reads."""
    parser.add_argument("map", type=Path, metavar="MAP", help="map file, e.g. room.ovs3d")


def add_data(parser: argparse.ArgumentParser, others: str = "", nargs: str | None = None) -> None:
    """Adds the dataset, after `others` that may stand in its place, and how it is read."""
    parser.add_argument(
        "data",
        type=Path,
        nargs=nargs,
        metavar="DATA",
        help=f"{others}dataset: a folder with transforms.json, a COLMAP model or poses_bounds.npy, or of TUM "
        "RGB-D, 7-Scenes or ScanNet; a nerfstudio .json; or a bag: a rosbag2 folder, .mcap, .db3 or .bag",
    )
    parser.add_argument(
        "--format",
        metavar="NAME",
        help="nerfstudio, colmap, llff, tum, 7scenes, scannet or bag; needed only if a folder holds several",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the photographs, if elsewhere")
    parser.add_argument("--skip-missing", action="store_true", help="leave out frames without a photograph")


def add_holdout(parser: argparse.ArgumentParser) -> None:
    """Adds `--holdout`."""
    parser.add_argument(
        "--holdout",
        type=int,
        default=0,
        metavar="N",
        help="hold out frames i with i %% N == N // 2 for the evaluation (default 0: the val_filenames and "
        "test_filenames of transforms.json, else none)",
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds `--config`."""
    parser.add_argument(
        "--config", type=Path, metavar="YAML", help="parameter file; --set overrides its values"
    )
