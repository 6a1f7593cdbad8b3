"""The server of the viewer: growing maps, its address, and its end."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

pytest.importorskip("viser", reason="viser not installed; pip install -e '.[view]'")

from helpers.web_page import Page

from ovs3d_ros.config import ViewerConfig
from ovs3d_ros.types import UserError
from ovs3d_ros.viewer import requests, server
from ovs3d_ros.viewer.server import MapViewer
from ovs3d_ros.viewer.source import MapSource, keyframe_photo


def test_growing_map_is_shown_and_asked_again(pipeline, monkeypatch):
    monkeypatch.setattr(server, "LIVE_PERIOD", 0.1)
    whole = pipeline.snapshot()
    half = {name: values[::2] for name, values in whole.gaussians.items()}
    early = replace(
        whole,
        version=whole.version - 1,
        gaussians=half,
        packed_codes=whole.packed_codes[::2],
        packed_levels=whole.packed_levels[::2],
        weight=whole.weight[::2],
        views=whole.views[::2],
        selection=whole.selection[::2],
        camtoworlds=whole.camtoworlds[:2],
        cameras=whole.cameras[:2],
        names=whole.names[:2],
        stamps=whole.stamps[:2],
    )
    shown: list = [None]
    viewer = MapViewer(
        MapSource(pipeline, lambda: shown[0], keyframe_photo(pipeline), live=True), ViewerConfig(), "live"
    )
    try:
        page = Page(viewer.port).arrive()
        page.set("Find", "red box")
        time.sleep(0.5)
        assert not page.splats()
        shown[0] = early
        page.wait_for(lambda: page.splats() and len(page.scene("CameraFrustumMessage")) == 2)
        page.set("Find", "red box, blue box")
        page.wait_for(lambda: "found" in page.words())
        size = len(page.splats()[0]["buffer"])
        shown[0] = whole
        page.wait_for(lambda: len(page.scene("CameraFrustumMessage")) == 4)
        page.wait_for(lambda: all(len(s["buffer"]) > 1.5 * size for s in page.splats()))
        page.close()
    finally:
        viewer.close()


def test_large_growing_map_leaves_half_of_the_time_to_mapping(pipeline, monkeypatch):
    monkeypatch.setattr(server, "LIVE_PERIOD", 0.05)
    monkeypatch.setattr(requests, "IDLE", 0.05)
    spent = []
    monkeypatch.setattr(MapViewer, "_show_growth", lambda viewer: spent.append(time.sleep(0.3)))
    viewer = MapViewer(
        MapSource(pipeline, pipeline.snapshot, lambda *_: None, live=True), ViewerConfig(), "live"
    )
    try:
        page = Page(viewer.port).arrive()
        page.wait_for(lambda: spent)
        started, before = time.monotonic(), len(spent)
        page.wait_for(lambda: len(spent) >= before + 6)
        assert time.monotonic() - started > 6 * 0.3 / 0.6, "it took more than 60 % of the time"
        page.close()
    finally:
        viewer.close()


def test_used_port_and_unknown_host_are_refused(pipeline):
    snapshot = pipeline.snapshot()
    source = MapSource(pipeline, lambda: snapshot, keyframe_photo(pipeline))
    viewer = MapViewer(source, ViewerConfig(), "first")
    with pytest.raises(UserError, match=rf"cannot use 127\.0\.0\.1:{viewer.port}"):
        MapViewer(source, ViewerConfig(port=viewer.port), "second")
    with pytest.raises(UserError, match=r"cannot use no\.such\.host\.invalid:0"):
        MapViewer(source, ViewerConfig(host="no.such.host.invalid"), "lost")
    viewer.close()


def test_closing_ends_the_threads(pipeline):
    before = threading.active_count()
    snapshot = pipeline.snapshot()
    viewer = MapViewer(MapSource(pipeline, lambda: snapshot, lambda *_: None), ViewerConfig(), "short")
    page = Page(viewer.port).arrive()
    page.wait_for(page.splats)
    viewer.close()
    page.wait_for(lambda: page.closed)
    page.close()
    assert threading.active_count() <= before, threading.enumerate()
