"""The arguments of `ovs3d fleet map` and `ovs3d fleet query`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ovs3d_ros.commands.shared_arguments import add_common, add_config, add_holdout


def add_fleet(parser: argparse.ArgumentParser) -> None:
    """Adds the two commands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_map(
        actions.add_parser("map", help="map many datasets in parallel, on this machine or a Ray cluster")
    )
    _add_query(actions.add_parser("query", help="find things by their names in all maps of a folder"))


def _add_map(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", type=Path, nargs="+", metavar="DATA", help="datasets and bags, as for `ovs3d map`"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder for the maps, their index and their records; what is done there is not done again",
    )
    parser.add_argument(
        "--address",
        metavar="A",
        help="Ray cluster, e.g. auto or head:6379, whose machines see the data and the folder under the same "
        "paths (default: this machine alone)",
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="datasets at a time (default 0: as many as fit)"
    )
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="cores per dataset (default 1)")
    parser.add_argument(
        "--memory", type=float, default=2.0, metavar="GIB", help="memory per dataset in GiB (default 2)"
    )
    parser.add_argument(
        "--gpus", type=float, default=0.0, metavar="N", help="GPUs per dataset, e.g. 0.5 (default 0)"
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=2,
        metavar="N",
        help="how often a dataset is tried again after its worker died (default 2)",
    )
    add_holdout(parser)
    parser.add_argument("--format", metavar="NAME", help="as for `ovs3d map`, for all datasets")
    parser.add_argument("--skip-missing", action="store_true", help="leave out frames without a photograph")
    parser.add_argument(
        "--no-clip",
        dest="clip",
        action="store_false",
        help="map colour and shape only: the maps take no text queries",
    )
    add_config(parser)
    add_common(parser)


def _add_query(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("maps", type=Path, metavar="FOLDER", help="folder of maps, *.ovs3d")
    parser.add_argument(
        "prompts", nargs="+", metavar="PROMPT", help='name of a thing to find, e.g. "forklift"'
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="write hits.json and a picture of each hit there"
    )
    parser.add_argument(
        "--limit", type=int, default=20, metavar="N", help="most places per prompt (default 20)"
    )
    parser.add_argument(
        "--negatives", metavar="A,B", help="names the prompts compete against (default: query.negatives)"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="relevancy above which a place counts, 0 to 1 (default: calibrated)",
    )
    add_common(parser)
