"""Standard output that is closed, full, left by its reader or not in UTF-8."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_line import SETTINGS, ovs3d

from ovs3d_ros.commands.common import progress_bar, write_json
from ovs3d_ros.commands.streams import OutputError, checked_streams

OVS3D = f"{sys.executable} -m ovs3d_ros.cli"


def run(command: str, repository: Path, **environment: str) -> subprocess.CompletedProcess:
    """Runs a line of bash in which OVS3D is the command line; the outcome is bytes."""
    paths = os.pathsep.join([str(repository), str(repository / "tests")])
    return subprocess.run(
        ["bash", "-c", command.replace("OVS3D", OVS3D)],
        cwd=repository,
        capture_output=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": paths} | environment,
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["config", "--help"])
def test_broken_pipe_ends_quietly(command, unbuffered, repository):
    # The reader leaves before the command starts, so that the outcome does not depend on the machine's speed.
    line = f"{{ sleep 0.3; OVS3D {command}; echo $? >&2; }} | true"
    done = run(line, repository, PYTHONUNBUFFERED=unbuffered)
    assert done.stderr.decode() == "141\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("target, reason", [(">/dev/full", "No space left"), (">&-", "it is closed")])
def test_stdout_that_takes_nothing_is_one_line(target, reason, unbuffered, repository):
    done = run(f"OVS3D config {target}", repository, PYTHONUNBUFFERED=unbuffered)
    line = done.stderr.decode()
    assert done.returncode == 1 and line.count("\n") == 1, line
    assert line.startswith("ovs3d: error: cannot write to standard output") and reason in line


def test_closed_streams_are_harmless_unless_used(repository, tmp_path):
    done = run(f"OVS3D export {tmp_path}/no.ovs3d -o {tmp_path}/x.ply >&-", repository)
    assert done.returncode == 2 and b"no.ovs3d" in done.stderr and done.stderr.count(b"\n") == 1
    for target in ("2>&-", "2>/dev/full", ">&- 2>&- <&-"):
        done = run(f"OVS3D export {tmp_path}/no.ovs3d -o {tmp_path}/x.ply {target}", repository)
        assert (done.returncode, done.stdout, done.stderr) == (2, b"", b""), target


def test_files_never_become_standard_output(repository, tmp_path):
    code = (
        "import os, sys; from ovs3d_ros.commands.streams import checked_streams\n"
        f"with checked_streams(): file = open(r'{tmp_path}/map', 'wb'); os.write(1, b'a message')"
    )
    done = run(f'{sys.executable} -c "{code}" >&- 2>&-', repository)
    assert done.returncode == 0 and (tmp_path / "map").read_bytes() == b""


def test_latin1_terminal_gets_replaced_characters(mapped, repository):
    settings = " ".join(SETTINGS)
    done = run(
        f"OVS3D query {mapped[0]} 'roter Stuhl für 椅子' {settings}", repository, PYTHONIOENCODING="latin-1"
    )
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    assert "roter Stuhl für ??" in done.stdout.decode("latin-1")
    done = run(f"OVS3D query {mapped[0]} 椅子 --json - {settings}", repository, PYTHONIOENCODING="latin-1")
    assert json.loads(done.stdout.decode("latin-1"))["prompts"][0]["prompt"] == "椅子"


def test_streams_are_restored_after_an_error():
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError), checked_streams():
        assert sys.stdout is not before[0]
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == before


def test_closed_streams_take_json_and_progress_bars(monkeypatch):
    options = argparse.Namespace(quiet=False, json="-")
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(OutputError, match="it is closed"), checked_streams():
        with progress_bar(options, 2, "frames", "frame") as bar:
            bar.update()
        write_json("-", dict(prompt="椅子"))


def test_output_stays_readable_in_process(capsys):
    assert ovs3d("config") == 0
    assert capsys.readouterr().out.startswith("# All parameters")
