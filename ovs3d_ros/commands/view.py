"""`ovs3d view`: shows a map in the browser."""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import webbrowser
from dataclasses import replace
from pathlib import Path

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
    settings = common.read_settings(options)
    # The models take longer to load than the map, so the map is shown before.
    source = open_map(options.map, settings, encode=False)
    config = _choose_address(source.pipeline.config.viewer, options)
    viewer = MapViewer(source, config, options.map.stem)
    try:
        stop = catch_signals()
        sys.stdout.write(f"{options.map} is shown at {viewer.address} (Ctrl-C ends)\n")
        sys.stdout.flush()
        if options.browser:
            webbrowser.open(viewer.address)
        if not source.ready:
            viewer.take_source(open_map(options.map, settings, encode=True))
        del source  # the models came with a map of their own
        stop.recv(1)
    except KeyboardInterrupt:  # also while models are loaded, or downloaded
        pass
    finally:
        viewer.close()
    return 0


def open_map(path: Path, settings: dict, encode: bool) -> MapSource:
    """A map from a file, with or without the models that read names and the photographs.

    Raises:
        UserError: the map cannot be used, or is empty.
    """
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
