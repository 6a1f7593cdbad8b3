"""`ovs3d fleet map` on a real Ray cluster of two machines, which are processes here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import bag_writer as bags
from helpers.bag_scene import pose_messages, scene
from helpers.box_scene import write_scene
from helpers.command_line import SETTINGS, assert_one_line, ovs3d

from ovs3d_ros.fleet.manifest import read_records
from ovs3d_ros.fleet.search import FleetIndex

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="ray is not installed (extra fleet)")

QUICK = ["--quiet", "--memory", 0.1, "--set", "train.final_steps=2", *SETTINGS]
WAIT = 180.0  # s; generous, for machines under load


@pytest.fixture(scope="module")
def address(repository) -> Iterator[str]:
    """The address of a cluster of two machines with a core each."""
    from ray.cluster_utils import Cluster

    paths = f"{repository}{os.pathsep}{repository / 'tests'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", paths)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # Ray's workers would starve on a machine under load
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        yield cluster.address
        cluster.shutdown()


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("datasets")
    return [write_scene(root / f"table{i}", 3) for i in range(2)]


def encoder(name: str, file: Path) -> list[object]:
    return ["--set", f"clip.model=helpers.fleet_encoders:{name}", "--set", f"clip.pretrained={file}"]


def states(folder: Path) -> dict[str, tuple[str, int]]:
    return {Path(r.source).name: (r.state, r.attempts) for r in read_records(folder).values()}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.ovs3d")}


def test_two_machines_map_at_once_and_what_is_done_stays(address, datasets, tmp_path, capsys):
    meeting, folder = tmp_path / "meeting", tmp_path / "maps"
    meeting.mkdir()
    cut = bags.write(tmp_path / "cut", scene(pose=pose_messages()), "mcap")
    (cut / "cut.mcap").write_bytes((cut / "cut.mcap").read_bytes()[:5000])
    command = ["fleet", "map", *datasets, cut, "-o", folder, "--address", address, *QUICK]
    command += [*encoder("MeetingEncoder", meeting), "--json", tmp_path / "report.json"]
    assert ovs3d(*command) == 2
    out = capsys.readouterr().out
    assert "2 of 3 maps are there" in out and "truncated or damaged" in out
    assert len(list(meeting.iterdir())) == 2, "two workers, and each met the other"
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["done"], report["missing"]) == (2, 1)
    assert [entry["state"] for entry in report["datasets"]] == ["done", "done", "failed"]
    assert report["datasets"][0]["report"]["keyframes"] == 3
    assert not any(entry["earlier"] for entry in report["datasets"])
    before = times(folder)
    assert set(before) == {"table0.ovs3d", "table1.ovs3d"}
    assert {path.stem for path in (folder / "index").iterdir()} == {"table0", "table1"}
    assert ovs3d(*command[:4], *command[5:]) == 0 and times(folder) == before, "nothing is done twice"
    assert not ray.is_initialized() and "done before" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert [entry["earlier"] for entry in report["datasets"]] == [True, True]


def test_dataset_of_a_killed_worker_is_tried_again(address, datasets, tmp_path, capsys):
    folder, count = tmp_path / "maps", tmp_path / "count"
    command = ["fleet", "map", datasets[0], "-o", folder, "--address", address, "--retries", 1, *QUICK]
    command += encoder("FatalEncoder", count)
    assert ovs3d(*command) == 1
    assert count.read_text() == "xx" and states(folder) == {"table0": ("crashed", 2)}
    assert "its worker was lost 2 times" in capsys.readouterr().out
    assert ovs3d(*command) == 0
    assert count.read_text() == "xxxx" and states(folder) == {"table0": ("done", 2)}
    assert FleetIndex.open(folder).query(["green box"]).found.tolist() == [1]


def test_killed_driver_goes_on_where_it_was(address, datasets, repository, tmp_path):
    folder, gate = tmp_path / "maps", tmp_path / "gate"
    gate.touch()
    arguments = ["fleet", "map", *datasets, "-o", folder, "--address", address, "--workers", 1, *QUICK]
    arguments += encoder("GatedEncoder", gate)
    environment = os.environ | {"PYTHONPATH": f"{repository}{os.pathsep}{repository / 'tests'}"}
    command = [sys.executable, "-m", "ovs3d_ros.cli", *map(str, arguments)]
    driver = subprocess.Popen(command, env=environment)
    try:
        started = time.monotonic()
        while not any(state == "done" for state, _ in states(folder).values()) if folder.is_dir() else True:
            assert driver.poll() is None and time.monotonic() - started < WAIT
            time.sleep(0.2)
        assert ovs3d(*arguments) == 2, "two drivers at once"
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    before = times(folder)
    assert len(before) == 1
    gate.unlink()
    assert ovs3d(*arguments) == 0
    assert {state for state, _ in states(folder).values()} == {"done"}
    assert times(folder).items() > before.items(), "the finished map was not made again"


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A folder on a disk of its own that holds one map of a table, not two."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=240k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_is_reported_and_the_rest_done_later(address, datasets, small_disk, capsys):
    command = ["fleet", "map", *datasets, "-o", small_disk, "--address", address, "--workers", 1, *QUICK]
    assert ovs3d(*command) == 2
    assert "No space left on device" in capsys.readouterr().out
    before = times(small_disk)
    assert len(before) == 1
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert ovs3d(*command) == 0 and times(small_disk).items() > before.items()


def test_what_no_machine_has_is_refused(address, datasets, tmp_path, capsys):
    command = ["fleet", "map", datasets[0], "-o", tmp_path / "maps", *QUICK, "--address"]
    assert ovs3d(*command, address, "--cpus", 64) == 2
    assert_one_line(capsys.readouterr().err, "64 cores", "--cpus")


def test_missing_ray_names_the_remedy(datasets, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert ovs3d("fleet", "map", datasets[0], "-o", tmp_path / "maps", *QUICK) == 2
    assert_one_line(capsys.readouterr().err, "pip install", "fleet")
