"""`ovs3d view`: shows a map in the browser."""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import threading
import webbrowser
from dataclasses import replace

from ovs3d_ros.commands import common
from ovs3d_ros.config import ViewerConfig
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import UserError
from ovs3d_ros.viewer import MapSource, MapViewer, keyframe_photo

_PORTS = range(8080, 8100)  # tried one after the other, unless the user names one


def run(options: argparse.Namespace) -> int:
    """Serves the map until it is interrupted.

    Raises:
        UserError: bad settings, map or address, or viser is not installed.
    """
    pipeline = Ovs3d.load(options.map, common.read_settings(options))
    snapshot = pipeline.snapshot()
    if not snapshot.num_gaussians:
        raise UserError(f"{options.map}: the map is empty; map some frames first")
    config = _choose_address(pipeline.config.viewer, options)
    source = MapSource(pipeline, lambda: snapshot, keyframe_photo(pipeline))
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    viewer = MapViewer(source, config, options.map.stem)
    try:
        sys.stdout.write(f"{options.map} is shown at {viewer.address} (Ctrl-C ends)\n")
        sys.stdout.flush()
        if options.browser:
            webbrowser.open(viewer.address)
        stopping.wait()
    finally:
        viewer.close()
    return 0


def _choose_address(config: ViewerConfig, options: argparse.Namespace) -> ViewerConfig:
    """The configuration with the address of the command line; without a port the first that is free."""
    host = options.host or config.host
    port = options.port if options.port is not None else config.port or _free_port()
    return replace(config, host=host, port=port)


def _free_port() -> int:
    """The first of `_PORTS` on which nobody listens, or 0 for any free one."""
    for port in _PORTS:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    return 0
