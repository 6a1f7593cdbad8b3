"""The `ovs3d` command: arguments, dispatch and errors. The modules in `commands/` do the work.

Exit codes: 0 success, 1 a bug or a broken machine (with a traceback, or one line if standard output cannot be
written), 2 bad input (one line says what to do), 130 interrupted, 141 the reader of standard output left.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys

from ovs3d_ros.commands.arguments import PLAY, make_parser
from ovs3d_ros.commands.common import import_ros
from ovs3d_ros.commands.completion import offer_completion
from ovs3d_ros.commands.inputs import check_inputs, repeat_set
from ovs3d_ros.commands.streams import OutputError, checked_streams
from ovs3d_ros.config import Config, override, yaml_io
from ovs3d_ros.types import UserError

_BROKEN_PIPE = 141  # 128 + SIGPIPE, what a shell reports for other programs


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line (default: that of this process) and returns the exit code."""
    try:
        with checked_streams():
            return _run(sys.argv[1:] if arguments is None else arguments)
    except OutputError as error:
        if error.reader_left:
            return _BROKEN_PIPE
        if sys.stderr is not None:
            sys.stderr.write(f"ovs3d: error: cannot write to standard output ({error})\n")
        return 1


def _run(arguments: list[str]) -> int:
    logging.basicConfig(level=logging.WARNING, format="ovs3d: %(levelname)s: %(message)s")
    try:
        if arguments[:1] == [PLAY]:
            return _play(repeat_set(arguments[1:]))
        parser = make_parser()
        offer_completion(parser)
        return _dispatch(parser.parse_args(repeat_set(arguments)))
    except UserError as error:
        sys.stderr.write(f"ovs3d: error: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\novs3d: interrupted; unfinished files were not written\n")
        return 130


def _dispatch(options: argparse.Namespace) -> int:
    check_inputs(options)
    if options.command == "config":
        sys.stdout.write(yaml_io.to_yaml(override(Config(), yaml_io.parse_assignments(options.set))))
        return 0
    if options.command == "demo":
        from ovs3d_ros import demo

        values = yaml_io.parse_assignments(options.set)
        scene = demo.PHOTOS if options.photos else demo.SHIPPED
        return demo.run(options.output, options.ros, values, options.json, options.rate, options.quiet, scene)
    return importlib.import_module(f"ovs3d_ros.commands.{options.command}").run(options)


def _play(arguments: list[str]) -> int:
    """Runs the ROS player."""
    return import_ros("play", "play").main(arguments)


if __name__ == "__main__":
    sys.exit(main())
