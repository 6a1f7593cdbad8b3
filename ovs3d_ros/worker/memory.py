"""How much memory the process and its keyframes use, and how much there is."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ovs3d_ros.worker.ingest import JUMP, MEMORY, IngestSwitch

log = logging.getLogger(__name__)

MIB = 1 << 20
WARNING_SHARE = 0.8  # of the limit
_DEFAULT_SHARE = 0.8  # of the machine's memory; the rest is for other processes
_CGROUP_LIMITS = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"


def resident_bytes() -> int:
    """Memory that the process holds; 0 where the system does not tell (it does on Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def machine_bytes() -> int:
    """Memory of the machine, or of the container if that has less; 0 where the system does not tell."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0
    for path in _CGROUP_LIMITS:
        try:
            total = min(total, int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):  # another version, or "max"
            continue
    return total


def limit_bytes(limit_mib: int) -> int:
    """The memory that `compute.memory_limit` grants the process; 0: unknown."""
    return limit_mib * MIB if limit_mib else int(_DEFAULT_SHARE * machine_bytes())


class MemoryWatch:
    """Stops ingest before the memory ends."""

    def __init__(self, ingest: IngestSwitch):
        """Takes the switch."""
        self._ingest = ingest

    def check(self, limit_mib: int) -> None:
        """Pauses ingest if `compute.memory_limit` is reached."""
        used, limit = resident_bytes(), limit_bytes(limit_mib)
        reason = f"{used / MIB:.0f} MiB of memory are used, all that compute.memory_limit allows"
        if 0 < limit <= used and self._ingest.pause(MEMORY, reason):
            log.error("%s: frames are ignored; save the map and reset it", reason)

    def clear(self) -> None:
        """Notes that the map was replaced, which ends a pause."""
        self._ingest.resume(JUMP, MEMORY)

    def figures(self, limit_mib: int) -> dict[str, float]:
        """memory_mib of the process, and memory_limit_mib (0: unknown)."""
        return dict(
            memory_mib=round(resident_bytes() / MIB), memory_limit_mib=round(limit_bytes(limit_mib) / MIB)
        )


def describe_shortage(stats: dict) -> str:
    """What to do about memory that runs out, from `MappingWorker.stats`; empty while there is enough."""
    used, limit = stats["memory_mib"], stats["memory_limit_mib"]
    if not limit or used < WARNING_SHARE * limit:
        return ""
    return (
        f"{used} of {limit} MiB of memory are used, {stats['keyframes_mib']:.0f} by "
        f"{stats['keyframes']} keyframes; at the limit frames are ignored. Save the map and reset it, lower "
        "map.memory_limit_mib, or raise compute.memory_limit"
    )
