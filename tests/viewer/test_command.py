"""`ovs3d view` as a process: its address, its answers, its end."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import synthetic

pytest.importorskip("viser", reason="viser not installed; pip install -e '.[view]'")
from helpers.command_line import assert_one_line, ovs3d
from helpers.web_page import Page

from ovs3d_ros import Ovs3d
from ovs3d_ros.commands import view

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("map") / "room.ovs3d"
    synthetic.build_map(synthetic.make_frames(4)).save(path)
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_map_is_served_until_a_signal(room, repository, number):
    process = subprocess.Popen(
        [sys.executable, "-m", "ovs3d_ros.cli", "view", str(room), "--set", "compute.device=cpu"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(repository), str(repository / "tests")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        line = process.stdout.readline()
        port = re.search(r"room\.ovs3d is shown at http://localhost:(\d+) ", line)
        assert port, line + process.stderr.read()
        page = Page(int(port[1])).arrive()
        page.set("Find", "red box")
        page.wait_for(lambda: "found" in page.words())
        page.close()
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, output, errors) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_before_the_wait_is_not_lost(number):
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    stop = view.catch_signals()
    try:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(10)  # until the handler runs
        stop.settimeout(10)
        assert stop.recv(1) == bytes([number])
    finally:
        os.close(signal.set_wakeup_fd(-1))
        for n, handler in handlers.items():
            signal.signal(n, handler)


def test_map_is_served_and_a_signal_ends_it_while_the_models_are_loaded(room, repository, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()  # the encoder waits for ever
    process = subprocess.Popen(
        [sys.executable, "-m", "ovs3d_ros.cli", "view", str(room)]
        + ["--set", "compute.device=cpu", "--set", "clip.model=helpers.color_encoder:GatedEncoder"],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(repository), str(repository / "tests")]), "GATE": str(gate)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 60)[0], "nothing is shown until the models are loaded"
        port = re.search(r"http://localhost:(\d+) ", process.stdout.readline())
        assert port
        page = Page(int(port[1])).arrive()
        page.wait_for(page.splats)
        page.set("Find", "red box")
        page.wait_for(lambda: "being loaded" in page.words())
        page.close()
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, output, errors) == (0, "", "")


def test_map_is_opened_before_what_answers_need_is_imported(room, repository):
    script = (
        "import sys; from pathlib import Path; from ovs3d_ros.commands import view\n"
        "source = view.open_map(Path(sys.argv[1]), {}, encode=False)\n"
        "assert not source.ready and source.searchable and source.newest().num_gaussians\n"
        "assert not {'open_clip', 'torch._dynamo'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(room)],
        check=True,
        env=os.environ | {"PYTHONPATH": str(repository)},
    )


def test_photographs_of_a_map_with_keyframes_are_found(tmp_path):
    frames = synthetic.make_frames(3)
    built = synthetic.build_map(frames, steps=2, **{"map.keep_keyframes": True})
    built.save(tmp_path / "kept.ovs3d")
    source = view.open_map(tmp_path / "kept.ovs3d", {}, encode=True)
    snapshot = source.newest()
    assert snapshot is not None and snapshot.names == [frame.name for frame in frames]
    for index, frame in enumerate(frames):
        photo = source.photo(snapshot, index)
        assert photo is not None
        np.testing.assert_array_equal(photo, frame.image)


def test_named_port_that_is_used_is_refused(room, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert ovs3d("view", room, "--port", port) == 2
    assert_one_line(capsys.readouterr().err, f"127.0.0.1:{port}", "choose another")


@pytest.mark.parametrize("port", [-1, 65536])
def test_number_that_is_no_port_is_refused(room, port, capsys):
    assert ovs3d("view", room, "--port", port) == 2
    assert_one_line(capsys.readouterr().err, "viewer.port", str(port))


def test_folder_is_no_map(room, capsys):
    assert ovs3d("view", room.parent) == 2
    assert_one_line(capsys.readouterr().err, "is a folder", "give a map file")


def test_empty_map_is_refused(tmp_path, capsys):
    Ovs3d(synthetic.make_config()).save(tmp_path / "empty.ovs3d")
    assert ovs3d("view", tmp_path / "empty.ovs3d") == 2
    assert_one_line(capsys.readouterr().err, "empty.ovs3d: the map is empty")
