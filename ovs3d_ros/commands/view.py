"""`ovs3d view`: shows a map in the browser."""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys
import time
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ovs3d_ros.commands import common
from ovs3d_ros.config import Config, ViewerConfig, override
from ovs3d_ros.types import UserError
from ovs3d_ros.viewer.preview import read_preview
from ovs3d_ros.viewer.stage import Stage

if TYPE_CHECKING:
    from ovs3d_ros.viewer.server import MapViewer
    from ovs3d_ros.viewer.source import MapSource

# Seconds for which the cores are left to a browser and the first picture, and then to drawing it.
_HEAD_START, _DRAWING = 3.0, 0.5
_PORTS = range(8080, 8100)  # tried one after the other, unless the user names one


def run(options: argparse.Namespace) -> int:
    """Serves the map until it is interrupted.

    Raises:
        UserError: bad settings, map or address, or viser is not installed.
    """
    settings = common.read_settings(options)
    config = _choose_address(settings, options)
    # Torch takes longer to load than the browser to draw the map, and the models longer than the map.
    preview = read_preview(options.map, config.max_splats)
    if preview is None:  # then this says why
        open_map(options.map, settings, encode=False)
        raise UserError(f"{options.map}: the map has nothing to show")
    stage = viewer = Stage(config, options.map.stem, preview.drawn, preview.outlook)
    try:
        # Ctrl-C ends the command, also while models are loaded or downloaded.
        with contextlib.suppress(KeyboardInterrupt):
            stop = catch_signals()
            sys.stdout.write(f"{options.map} is shown at {stage.address} (Ctrl-C ends)\n")
            sys.stdout.flush()
            stage.prepare_pictures()
            if options.browser:
                webbrowser.open(stage.address)
            if stage.wait_for_visitor(_HEAD_START):
                time.sleep(_DRAWING)
            source = open_map(options.map, settings, encode=False)
            viewer = _open_viewer(source, config, stage, options.map.stem)
            if not source.ready:
                viewer.take_source(open_map(options.map, settings, encode=True))
            del source  # the models came with a map of their own
            stop.recv(1)
    finally:
        viewer.close()
    return 0


def _open_viewer(source: MapSource, config: ViewerConfig, stage: Stage, title: str) -> MapViewer:
    from ovs3d_ros.viewer.server import MapViewer

    return MapViewer(source, config, title, stage)


def open_map(path: Path, settings: dict, encode: bool) -> MapSource:
    """A map from a file, with or without the models that read names and the photographs.

    Raises:
        UserError: the map cannot be used, or is empty.
    """
    from ovs3d_ros.pipeline import Ovs3d
    from ovs3d_ros.viewer.source import MapSource, keyframe_photo

    pipeline = Ovs3d.load(path, settings, encode=encode, training=encode)
    snapshot = pipeline.snapshot()
    if not snapshot.num_gaussians:
        raise UserError(f"{path}: the map is empty; map some frames first")
    ready = encode or snapshot.codec is None
    return MapSource(pipeline, lambda: snapshot, keyframe_photo(pipeline), ready=ready)


def catch_signals() -> socket.socket:
    """Makes SIGTERM raise KeyboardInterrupt as Ctrl-C does, and returns a socket that either ends a wait for.

    A signal between the last look for one and the wait would be lost without it, and the wait had no end.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    return reader


def _choose_address(settings: dict, options: argparse.Namespace) -> ViewerConfig:
    """The viewer's settings with the address of the command line; without a port the first that is free.

    Raises:
        UserError: no such port.
    """
    given = {"viewer.host": options.host or None, "viewer.port": options.port}
    given = {name: value for name, value in given.items() if value is not None}
    config = override(Config(), settings | given).viewer
    return replace(config, port=_free_port()) if options.port is None and not config.port else config


def _free_port() -> int:
    """The first of `_PORTS` on which nobody listens, or 0 for any free one."""
    for port in _PORTS:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    return 0
