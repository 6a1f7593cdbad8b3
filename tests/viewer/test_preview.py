"""The first picture of a map file shows what the loaded map shows, and comes without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import synthetic

from ovs3d_ros import Ovs3d
from ovs3d_ros.viewer import views
from ovs3d_ros.viewer.preview import read_preview
from ovs3d_ros.viewer.source import in_map_frame
from ovs3d_ros.viewer.splats import make_splats

FAR = np.array([4_000_000.0, -2_000_000.0, 0.0])


@pytest.fixture(scope="module", params=[np.zeros(3), FAR], ids=["near", "far"])
def room(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "room.ovs3d"
    frames = synthetic.make_frames(4)
    for frame in frames:
        frame.camtoworld[:3, 3] += request.param
    synthetic.build_map(frames, steps=10).save(path)
    return path


@pytest.mark.parametrize("limit", [1_000_000, 500])
def test_first_picture_is_that_of_the_loaded_map(room, limit):
    snapshot = in_map_frame(Ovs3d.load(room, encode=False).snapshot())
    preview = read_preview(room, limit)
    assert preview is not None
    for first, loaded in zip(preview.drawn, make_splats(snapshot, limit).drawn, strict=True):
        np.testing.assert_allclose(first, loaded, rtol=1e-5, atol=1e-6 if first.dtype != np.uint8 else 1)
    for first, loaded in zip(preview.outlook, views.overview(snapshot), strict=True):
        np.testing.assert_allclose(first, loaded, atol=1e-6)


def test_file_that_cannot_be_shown_has_no_first_picture(room, tmp_path):
    content = room.read_bytes()
    header = json.dumps({"means": {"dtype": "F32", "shape": [1, 3], "data_offsets": [0, 2**60]}}).encode()
    broken = dict(
        empty=b"",
        cut=content[: len(content) // 2],
        garbled=content[:8] + b"x" * 1000,
        longer=b"\xff" * 8 + content[8:],
        beyond=len(header).to_bytes(8, "little") + header,
        other=b"7 is not a map" * 10,
    )
    for name, damaged in broken.items():
        path = tmp_path / name
        path.write_bytes(damaged)
        assert read_preview(path, 1000) is None, name
    os.mkfifo(tmp_path / "pipe")
    assert read_preview(tmp_path / "pipe", 1000) is None
    assert read_preview(tmp_path, 1000) is None and read_preview(tmp_path / "absent", 1000) is None
    Ovs3d(synthetic.make_config()).save(tmp_path / "nothing.ovs3d")
    assert read_preview(tmp_path / "nothing.ovs3d", 1000) is None


def test_first_picture_does_not_wait_for_torch(room, repository):
    script = (
        "import sys, threading; from pathlib import Path; from ovs3d_ros.commands import view\n"
        "from ovs3d_ros.viewer.painter import Look, Painter; import numpy as np\n"
        "preview = view.read_preview(Path(sys.argv[1]), 1000)\n"
        "assert not {'torch', 'numba', 'scipy'} & set(sys.modules), 'before the address'\n"
        "painter, ready = Painter(), threading.Event()\n"
        "painter.call_when_ready(ready.set)\n"
        "assert ready.wait(300)\n"
        "picture = painter.paint(preview.drawn, Look(np.eye(4), 1.0, 64, 48), 64 * 48)\n"
        "assert picture.shape == (48, 64, 3) and 'torch' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": str(repository)}
    subprocess.run([sys.executable, "-c", script, str(room)], check=True, env=environment)
