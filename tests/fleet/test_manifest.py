"""The records of a fleet, and when a map counts as done."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ovs3d_ros.config import Config, override
from ovs3d_ros.fleet import manifest
from ovs3d_ros.fleet.manifest import DONE, Record
from ovs3d_ros.fleet.parts import identity
from ovs3d_ros.offline.mapping import Source
from ovs3d_ros.types import UserError


@pytest.fixture
def data(tmp_path) -> Path:
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "0.png").write_bytes(b"pixels")
    (tmp_path / "data" / "transforms.json").write_text("{}")
    return tmp_path / "data"


def test_fingerprint_sees_every_change_of_the_files(data, tmp_path):
    seen = [manifest.fingerprint_data(data, tmp_path / "maps")]
    image = data / "images" / "0.png"
    os.utime(image, ns=(1, 1))
    seen.append(manifest.fingerprint_data(data, tmp_path / "maps"))
    image.write_bytes(b"other pixels")
    os.utime(image, ns=(1, 1))
    seen.append(manifest.fingerprint_data(data, tmp_path / "maps"))
    image.rename(data / "images" / "1.png")
    seen.append(manifest.fingerprint_data(data, tmp_path / "maps"))
    assert len(set(seen)) == 4 and manifest.fingerprint_data(data, tmp_path / "maps") == seen[-1]
    by_file = manifest.fingerprint_data(data / "transforms.json", tmp_path / "maps")
    (data / "images" / "2.png").touch()
    assert manifest.fingerprint_data(data / "transforms.json", tmp_path / "maps") != by_file
    before = manifest.fingerprint_data(data, data / "maps")
    (data / "maps").mkdir()
    (data / "maps" / "data.ovs3d").touch()
    assert manifest.fingerprint_data(data, data / "maps") == before, "maps beside the data do not count"


def test_fingerprint_of_settings_is_of_the_map_alone():
    source, config = Source(Path("a")), Config()
    first = manifest.fingerprint_settings(source, config, True)
    for machine in ({"compute.threads": 3}, {"query.presence": 0.7}):
        assert manifest.fingerprint_settings(source, override(config, machine), True) == first
    others = [
        manifest.fingerprint_settings(source, override(config, {"train.final_steps": 3}), True),
        manifest.fingerprint_settings(source, config, False),
        manifest.fingerprint_settings(replace(source, holdout=8), config, True),
        manifest.fingerprint_settings(replace(source, skip_missing=True), config, True),
    ]
    assert len({first, *others}) == 5


def test_names_are_kept_and_never_taken_from_others(tmp_path):
    a, b = tmp_path / "a" / "run", tmp_path / "b" / "run"
    assert list(manifest.choose_names([a, b], {}, tmp_path).values()) == ["run.ovs3d", "run-2.ovs3d"]
    (tmp_path / "run.ovs3d").touch()  # somebody else's
    assert manifest.choose_names([a], {}, tmp_path) == {a: "run-2.ovs3d"}
    records = {str(b): Record(str(b), "run.ovs3d", "", "")}
    assert manifest.choose_names([a, b], records, tmp_path) == {a: "run-2.ovs3d", b: "run.ovs3d"}


def test_names_tell_the_data(data, tmp_path):
    (tmp_path / "room.v2").mkdir()
    sources = [data / "transforms.json", tmp_path / "room.v2", tmp_path / "walk.mcap"]
    names = manifest.choose_names(sources, {}, tmp_path)
    assert list(names.values()) == ["data.ovs3d", "room.v2.ovs3d", "walk.ovs3d"]


def test_done_means_same_data_same_settings_and_the_map_is_there(tmp_path):
    path = tmp_path / "room.ovs3d"
    path.write_bytes(b"map")
    record = Record("room", "room.ovs3d", "d", "s", state=DONE, identity=identity(path))
    wanted = Record("room", "room.ovs3d", "d", "s")
    assert manifest.is_done(tmp_path, record, wanted)
    assert not manifest.is_done(tmp_path, record, replace(wanted, data="e"))
    assert not manifest.is_done(tmp_path, record, replace(wanted, settings="t"))
    assert not manifest.is_done(tmp_path, replace(record, state="failed"), wanted)
    path.write_bytes(b"another map")
    assert not manifest.is_done(tmp_path, record, wanted)
    path.unlink()
    assert not manifest.is_done(tmp_path, record, wanted)


def test_records_are_read_back_and_garbled_ones_refused(tmp_path):
    (tmp_path / manifest.FOLDER).mkdir()
    record = Record("/data/room", "room.ovs3d", "d", "s", report={"frames": 3}, warnings=["w"])
    manifest.write_record(tmp_path, record)
    assert manifest.read_records(tmp_path) == {"/data/room": record}
    path = manifest.record_path(tmp_path, "room.ovs3d")
    for text in ("", "[]", '{"source": 1}', "{"):
        path.write_text(text)
        with pytest.raises(UserError, match="delete it"):
            manifest.read_records(tmp_path)


def test_lock_keeps_others_out(tmp_path):
    path = tmp_path / "lock"
    with manifest.locked(path, wait=False) as first, manifest.locked(path, wait=False) as second:
        assert first and not second
    with manifest.locked(path, wait=False) as again:
        assert again


def test_drive_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(manifest.fcntl, "flock", refuse)
    with manifest.locked(tmp_path / "lock", wait=False) as held:
        assert held and "has no locks" in caplog.text
