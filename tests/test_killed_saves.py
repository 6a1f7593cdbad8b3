"""A process that is killed while it saves leaves the map before or the map after, whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

KILLS = 50


def test_fifty_kills_while_saving_lose_nothing(tmp_path) -> None:
    command = [sys.executable, "-m", "helpers.killed_saves", str(tmp_path), str(KILLS)]
    tests = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=True)
    rows = json.loads(ended.stdout)
    assert len(rows) == KILLS
    for row in rows:
        assert row["geometry"] - row["told"] in (0, 1), row  # written, but not told any more
        assert row["visits"] == [row["geometry"]] and row["spread"] < 1e-3 and row["whole"], row
    assert rows[-1]["told"] >= KILLS / 2  # some saves ended
    leftovers = [path for path in tmp_path.iterdir() if path.name != "room.ovs3d"]
    assert leftovers, "no kill hit a save"
