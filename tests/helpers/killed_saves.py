"""Saves a map with keyframes again and again, and kills the process that does it. Prints JSON.

Run: python -m helpers.killed_saves FOLDER KILLS
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from helpers import synthetic
from ovs3d_ros.config import override
from ovs3d_ros.map_file import load_map, save_map
from ovs3d_ros.pipeline import Ovs3d


def make_room() -> tuple:
    """Parameters and a snapshot with three keyframes."""
    room = Ovs3d(override(synthetic.make_config(), {"map.keep_keyframes": True}))
    for frame in synthetic.make_frames(3):
        room.add_frame(frame)
    return room.freeze()


def save(path: Path, room: tuple, number: int) -> None:
    """Saves the room in a state that tells its number in geometry and keyframes."""
    params, snapshot = room
    moved = params | dict(means=params["means"] + number)
    visits = [number] * len(snapshot.training.visits)
    save_map(path, moved, replace(snapshot, training=replace(snapshot.training, visits=visits)))


def read(path: Path, room: tuple) -> dict:
    """The numbers that a file tells, and whether its keyframes have all images."""
    params, snapshot = load_map(path, training=True)
    kept = snapshot.training
    shift = params["means"] - room[0]["means"]
    whole = len(kept.keyframes) == 3 and all(k.image.shape[-1] == 3 for k in kept.keyframes)
    return dict(
        geometry=round(float(shift.mean())),
        spread=float(shift.max() - shift.min()),
        visits=sorted(set(kept.visits)),
        whole=whole,
    )


def kill_while_saving(path: Path, room: tuple, number: int, saves: int, seconds: float) -> int:
    """Saves states after `number` in another process; kills it some saves and seconds later.

    Returns:
        The number of the last state that was told to be saved.
    """
    receiver, sender = os.pipe()
    process = os.fork()
    if not process:
        try:
            while True:
                number += 1
                save(path, room, number)
                os.write(sender, f"{number}\n".encode())
        finally:
            os._exit(1)
    os.close(sender)
    with os.fdopen(receiver) as told:
        for _ in range(saves):
            number = int(told.readline())
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        assert os.WIFSIGNALED(status), "the process that saves ended by itself"
        return max([number, *map(int, told.read().split())])


def main(folder: str, kills: str) -> None:
    """Kills at random moments while or after up to three states are saved."""
    path, room, chance = Path(folder) / "room.ovs3d", make_room(), random.Random(0)
    save(path, room, 0)
    start = time.monotonic()
    save(path, room, 0)
    duration, last, rows = time.monotonic() - start, 0, []
    for _ in range(int(kills)):
        told = kill_while_saving(path, room, last, chance.randrange(3), chance.uniform(0, duration))
        rows.append(read(path, room) | dict(told=told))
        last = rows[-1]["geometry"]
    sys.stdout.write(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
