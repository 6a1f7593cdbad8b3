"""Keyframes within a limit of memory: the same map, whatever lies in the file."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.mapping import make_keyframe

from ovs3d_ros.mapping.keyframe_store import KeyframeStore, _tensors
from ovs3d_ros.mapping.keyframes import to_frame
from ovs3d_ros.types import CropTable, Keyframe

FRAMES = synthetic.make_frames(5)
CAMERA = synthetic.make_camera(320, 240)
MIB = 1 << 20

FILL = """
import os, sys, torch, numpy as np
from ovs3d_ros.mapping.keyframe_store import KeyframeStore
from ovs3d_ros.types import Camera, Keyframe
store, camera = KeyframeStore(20 << 20), Camera(np.eye(3), 640, 480)
def used(): return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20
before = used()
for index in range(250):
    image = torch.full((480, 640, 3), index, dtype=torch.uint8)
    store.append(Keyframe(index, 0.0, "", image, camera, np.eye(4)))
assert all(int(store[i].image[-1, -1, -1]) == i for i in range(250))
print(used() - before, *(int(n) for n in store.figures.values()), len(os.listdir(os.environ["TMPDIR"])))
sys.stdout.flush()
if len(sys.argv) > 1: os.kill(os.getpid(), 9)
"""


def encoded(keyframe: Keyframe) -> Keyframe:
    """The keyframe with random features and a mask."""
    generator = torch.Generator().manual_seed(keyframe.index)
    boxes, levels = torch.rand(6, 4, generator=generator), torch.arange(6) % 2
    table = CropTable(boxes, levels, torch.randn(6, 8, generator=generator).half(), 2, (2, 3))
    return replace(keyframe, crops=table, mask=keyframe.image[..., 0] > 90)


def filled(limit: int) -> KeyframeStore:
    """Five keyframes; only the last one has neither depth, features nor a mask."""
    store = KeyframeStore(limit)
    for index, frame in enumerate(FRAMES):
        keyframe = encoded(make_keyframe(frame, index))
        store.append(replace(keyframe, depth=None, crops=None, mask=None) if index == 4 else keyframe)
    return store


def on_disk(store: KeyframeStore) -> float:
    return store.figures["keyframes_disk_mib"]


def assert_same(a: Keyframe, b: Keyframe) -> None:
    for name in ("image", "depth", "mask"):
        first, second = getattr(a, name), getattr(b, name)
        assert (first is None) == (second is None) and (first is None or torch.equal(first, second))
    assert (a.index, a.stamp, a.name, a.sensor) == (b.index, b.stamp, b.name, b.sensor)
    assert np.array_equal(a.camtoworld, b.camtoworld) and a.camera is b.camera
    assert (a.crops is None) == (b.crops is None)
    if a.crops is not None and b.crops is not None:
        for name in ("boxes", "levels", "embeddings"):
            first, second = getattr(a.crops, name), getattr(b.crops, name)
            assert torch.equal(first, second) and first.dtype == second.dtype
        assert (a.crops.num_levels, a.crops.grid) == (b.crops.num_levels, b.crops.grid)


def test_keyframes_come_back_from_the_file_as_they_were() -> None:
    whole, tight = filled(0), filled(1)
    assert on_disk(whole) == 0 and on_disk(tight) > 0
    assert tight.in_memory == sum(t.nbytes for t in (tight[4].image,)), "only the last one is in memory"
    for index in (2, 0, -1, 1, 3, 2):
        assert_same(whole[index], tight[index])
        assert tight[index] is tight[index]
    size = on_disk(tight)
    assert [k.index for k in tight] == [0, 1, 2, 3, 4] and on_disk(tight) == size, "each is written once"
    assert [v.index for v in tight.encoded().views] == [0, 1, 2, 3]
    assert np.array_equal(to_frame(tight[1]).image, FRAMES[1].image)


def test_pose_of_a_keyframe_in_the_file_is_corrected_but_not_in_a_copy() -> None:
    store = filled(1)
    before, pose = store.frozen(), np.eye(4)
    store.move(1, pose)
    store.move(4, pose)
    for index in (1, 4):
        assert np.array_equal(store[index].camtoworld, pose) and np.array_equal(store.poses[index], pose)
        assert np.array_equal(before[index].camtoworld, FRAMES[index].camtoworld)
    assert_same(before[2], store[2])


def test_map_is_the_same_bit_for_bit(tmp_path) -> None:
    """Training, features, loop closures and files do not depend on what lies in the file."""
    frames = synthetic.make_frames(6, camera=CAMERA)
    settings = dict(steps=12, map__keep_keyframes=True, map__image_size=320)
    rooms = [synthetic.build_map(frames, map__memory_limit_mib=limit, **settings) for limit in (0, 1)]
    assert rooms[0].stats["keyframes_disk_mib"] == 0 and rooms[1].stats["keyframes_disk_mib"] > 2
    assert rooms[1].stats["keyframes_mib"] <= 1 < rooms[0].stats["keyframes_mib"]
    for number, room in enumerate(rooms):
        for _ in room.relift():
            pass
        shift = np.eye(4)
        shift[0, 3] = 0.1
        room.move_keyframes({k.index: shift @ k.camtoworld for k in room.keyframes})
        room.optimize(3)
        room.save(tmp_path / f"{number}.ovs3d")
    settings_of = [(tmp_path / f"{number}.ovs3d").read_bytes() for number in (0, 1)]
    assert settings_of[0] == settings_of[1]


@pytest.mark.parametrize("trouble", ["folder", "disk"])
def test_keyframes_that_cannot_be_written_stay_in_memory(trouble: str, monkeypatch, caplog, tmp_path) -> None:
    if trouble == "folder":
        monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
        store = filled(1)
    else:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))  # a full disk gives another number
        try:
            store = filled(1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caplog.text.count("keyframes cannot be moved to a file in") == 1 and "TMPDIR" in caplog.text
    assert store.in_memory > 3 * FRAMES[0].image.nbytes
    whole = filled(0)
    for index in (0, 3, 1, 4, 2):
        assert_same(whole[index], store[index])
    (tmp_path / "missing").mkdir()
    store.append(make_keyframe(FRAMES[0], 5))
    assert store.in_memory == FRAMES[0].image.nbytes + FRAMES[0].depth.nbytes, "there is room again"
    assert_same(whole[1], store[1])


@pytest.mark.parametrize("crash", [False, True])
def test_memory_stays_under_the_limit_and_no_file_is_left(crash: bool, tmp_path) -> None:
    command = [sys.executable, "-c", FILL, *(["crash"] if crash else [])]
    env = os.environ | dict(TMPDIR=str(tmp_path))
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (-signal.SIGKILL if crash else 0), done.stderr
    grown, in_memory, on_disk, names = map(int, done.stdout.split())
    assert in_memory <= 20 and on_disk >= 200 and names == 0
    assert grown < 20 + 30, "219 MiB of keyframes"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limit", [0, 1])
def test_features_that_come_later_are_kept(limit: int) -> None:
    store = KeyframeStore(limit)
    made = [encoded(make_keyframe(frame, index)) for index, frame in enumerate(FRAMES)]
    for keyframe in made:
        store.append(replace(keyframe, crops=None))
    assert len(store.encoded()) == 0
    reader = store.frozen()
    for index in (1, 3):
        store.set_crops(index, made[index].crops)
    assert [k.index for k in store.encoded()] == [1, 3]
    for index in (0, 1, 2, 3, 1):
        found, expected = store[index], made[index]
        assert torch.equal(found.image, expected.image) and torch.equal(found.depth, expected.depth)
        if index in (1, 3):
            assert torch.equal(found.crops.embeddings, expected.crops.embeddings)
            assert torch.equal(found.crops.boxes, expected.crops.boxes)
        else:
            assert found.crops is None
    assert reader[3].crops is not None
    sizes = [sum(t.nbytes for t in _tensors(store[i]) if t is not None) for i in range(5)]
    assert store.in_memory == (sizes[-1] if limit else sum(sizes))
