"""The arguments of the `ovs3d` command."""

from __future__ import annotations

import argparse
from pathlib import Path

from ovs3d_ros import __version__
from ovs3d_ros.commands.fleet_arguments import add_fleet
from ovs3d_ros.commands.merge_arguments import add_merge
from ovs3d_ros.commands.shared_arguments import (
    add_common,
    add_config,
    add_data,
    add_holdout,
    add_map_file,
    add_set,
)
from ovs3d_ros.types import UserError

_EXAMPLES = """examples:
  ovs3d demo                                        map a small scene and query it on this machine
  ovs3d map DATA -o room.ovs3d --holdout 8 --set clip.model=ViT-B-16
  ovs3d query room.ovs3d "red mug" "sofa" -o out/
  ovs3d refine room.ovs3d DATA --names "red mug" sofa floor wall
  ovs3d render room.ovs3d --path orbit -o room.mp4
  ovs3d view room.ovs3d
"""
PLAY = "play"  # the player parses its own arguments, which include ROS remappings


class _Parser(argparse.ArgumentParser):
    """Reports wrong arguments like any other bad input."""

    def error(self, message: str) -> None:
        raise UserError(f"{message}; see `{self.prog} --help`")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        "ovs3d",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Online, open-vocabulary 3D Gaussian maps: posed frames in, text queries out.",
    )
    parser.add_argument("--version", action="version", version=f"ovs3d_ros {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands.add_parser("demo", help="map a small scene and query it; writes out/demo/"))
    _add_map(commands.add_parser("map", help="build a map from a dataset of posed images"))
    _add_query(commands.add_parser("query", help="find things in a map by their names"))
    _add_render(
        commands.add_parser(
            "render", help="render a camera path through a map: colour, depth, features, segmentation"
        )
    )
    _add_refine(commands.add_parser("refine", help="refine a map, so that names are told apart better"))
    _add_eval(commands.add_parser("eval", help="score a map's segmentation against a labelled dataset"))
    _add_calibrate(
        commands.add_parser(
            "calibrate", help="calibrate an encoder on labelled datasets: when a prompt counts as found"
        )
    )
    _add_export(
        commands.add_parser(
            "export", help="write a map as the standard 3DGS PLY, or as .splat or .spz for web viewers"
        )
    )
    add_merge(commands.add_parser("merge", help="put two maps of one place into one"))
    add_fleet(
        commands.add_parser("fleet", help="map many datasets in parallel, and find things in all their maps")
    )
    _add_view(commands.add_parser("view", help="show a map in the browser, and find things in it"))
    _add_mcp(
        commands.add_parser("mcp", help="offer a map to a language agent as MCP tools, over standard streams")
    )
    _add_info(commands.add_parser("info", help="tell what a map, a dataset or a bag holds"))
    add_set(commands.add_parser("config", help="print all parameters as commented YAML"))
    commands.add_parser(
        "compile", help="compile the kernels now, so that the first start need not: for images and robots"
    )
    commands.add_parser(PLAY, help="publish a dataset as ROS topics; needs ROS 2, even for --help")
    return parser


def _add_export(parser: argparse.ArgumentParser) -> None:
    add_map_file(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="file to write; its suffix, .ply, .splat or .spz, is the format",
    )
    parser.add_argument(
        "--local",
        action="store_true",
        help="positions from the map's own origin (see `ovs3d info`), for viewers that round large ones",
    )
    parser.set_defaults(json=None)


def _add_mcp(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("map", type=Path, nargs="?", metavar="MAP", help="map file, e.g. room.ovs3d")
    parser.add_argument("--node", metavar="NAME", help="ask a running node, e.g. /ovs3d, instead of a file")
    parser.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds to wait for the node, and for each of its answers (default 30)",
    )
    add_set(parser)


def _add_view(parser: argparse.ArgumentParser) -> None:
    add_map_file(parser)
    parser.add_argument(
        "--port", type=int, metavar="N", help="port to serve on (default: a free one from 8080)"
    )
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        help="address to listen to (default viewer.host, this computer alone); 0.0.0.0 lets everybody in the "
        "network look and ask",
    )
    parser.add_argument("--browser", action="store_true", help="open a browser")
    add_set(parser)


def _add_info(parser: argparse.ArgumentParser) -> None:
    add_data(parser, "map, or ")
    add_config(parser)
    add_common(parser)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("out/demo"),
        metavar="FOLDER",
        help="output folder (default out/demo)",
    )
    parser.add_argument(
        "--photos",
        action="store_true",
        help="map photographs of a real office, with clip.model=conse (needs the extra photos)",
    )
    parser.add_argument("--no-ros", dest="ros", action="store_false", help="run in one process, without ROS")
    parser.add_argument("--rate", type=float, default=2.0, metavar="HZ", help="frames per second (default 2)")
    add_common(parser)


def _add_map(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    add_holdout(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="map to write, e.g. room.ovs3d"
    )
    add_config(parser)
    parser.add_argument(
        "--onto",
        type=Path,
        metavar="MAP",
        help="map of the same world to which the data are added; made with map.keep_keyframes",
    )
    parser.add_argument(
        "--no-clip",
        dest="clip",
        action="store_false",
        help="map colour and shape only: loads no models, and the map takes no text queries",
    )
    add_common(parser)


def _add_query(parser: argparse.ArgumentParser) -> None:
    add_map_file(parser)
    parser.add_argument(
        "prompts",
        nargs="+",
        metavar="PROMPT",
        help='name of a thing to find, e.g. "red mug"; spellings that differ in letter case are one',
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="write objects.json, cloud.ply, masks/ and overlays/ to this folder",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help="the dataset the map was made from: overlays then lie on its photographs, not on renders",
    )
    parser.add_argument(
        "--negatives", metavar="A,B", help="names the prompts compete against (default: query.negatives)"
    )
    parser.add_argument(
        "--mode",
        choices=("relevancy", "argmax"),
        default="relevancy",
        help="relevancy compares each prompt with the negatives; argmax gives every Gaussian its best prompt "
        "(default relevancy)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="relevancy above which a Gaussian gets a label, 0 to 1 (default: calibrated)",
    )
    parser.add_argument(
        "--max-instances", type=int, default=0, metavar="N", help="most instances per prompt (default 0: all)"
    )
    parser.add_argument(
        "--refine", action="store_true", help="refine the map for these prompts first, which takes seconds"
    )
    add_common(parser)


def _add_render(parser: argparse.ArgumentParser) -> None:
    add_map_file(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="PATH",
        help="video file (.mp4 or .webm), or a folder for PNG pictures",
    )
    parser.add_argument(
        "--path",
        choices=("orbit", "keyframes"),
        default="orbit",
        help="orbit moves around the scene; keyframes follows the poses of the keyframes (default orbit)",
    )
    parser.add_argument(
        "--channels",
        metavar="A,B",
        help="pictures to render: rgb, depth, features, segmentation (default: all the map and the prompts "
        "allow)",
    )
    parser.add_argument("--prompts", nargs="+", action="extend", metavar="PROMPT", help="names to segment")
    parser.add_argument("--frames", type=int, default=120, metavar="N", help="number of frames (default 120)")
    parser.add_argument("--fps", type=float, default=24.0, help="frames per second of the video (default 24)")
    parser.add_argument(
        "--image-size",
        type=int,
        default=0,
        metavar="PX",
        help="longer side of a picture (default 0: as the keyframes)",
    )
    add_common(parser)


def _add_refine(parser: argparse.ArgumentParser) -> None:
    add_map_file(parser)
    add_data(parser, "to check the result on; not needed if MAP holds its keyframes. ", nargs="?")
    parser.add_argument(
        "--names",
        nargs="+",
        action="extend",
        required=True,
        metavar="NAME",
        help="names to tell apart; include walls and floor",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="map to write (default: overwrite MAP)"
    )
    add_common(parser)


def _add_eval(parser: argparse.ArgumentParser) -> None:
    add_map_file(parser)
    add_data(parser)
    add_holdout(parser)
    parser.add_argument(
        "--protocol",
        default="dataset",
        metavar="NAME",
        help="how to score: dataset (one confusion matrix), 3dovs-a, 3dovs-c, 3dovs-d or lerf "
        "(default dataset)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="only for lerf: relevancy above which a pixel counts, 0 to 1 (default: calibrated)",
    )
    add_common(parser)


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", type=Path, nargs="+", metavar="DATA", help="labelled datasets, at least two; or see --names"
    )
    parser.add_argument(
        "--names",
        action="store_true",
        help="no labels: DATA are folders, each with a presence.json that names things that are there and "
        'things that are not, {"present": ["sofa"], "absent": ["piano"]}',
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="calibration file to write; use it with --set query.calibration=FILE",
    )
    parser.add_argument(
        "--absent",
        metavar="A,B",
        help="names of things that none of the datasets shows; they are queried too",
    )
    add_config(parser)
    parser.add_argument(
        "--format",
        metavar="NAME",
        help="as for `ovs3d map`; needed only if the folders hold data of several formats",
    )
    parser.add_argument("--skip-missing", action="store_true", help="leave out frames without a photograph")
    add_common(parser)
