"""The switch that lets frames into the queue of the mapping thread."""

from __future__ import annotations

import threading

JUMP, MEMORY = "jump", "memory"  # causes of a pause


class IngestSwitch:
    """Whether new frames are mapped; any thread may use it.

    Attributes:
        on: frames are mapped.
        pause_reason: why `pause` switched it off; empty if it did not.
    """

    def __init__(self) -> None:
        self.on = True
        self.pause_reason = ""
        self._cause = ""
        self._lock = threading.Lock()

    def figures(self) -> dict[str, object]:
        """The attributes for diagnostics."""
        return dict(ingest=self.on, pause_reason=self.pause_reason)

    def set(self, on: bool) -> None:
        """Switches ingest, and ends a pause."""
        with self._lock:
            self.on, self.pause_reason = on, ""

    def pause(self, cause: str, reason: str) -> bool:
        """Switches ingest off for a reason, which names the cause in full; False if it was off already."""
        with self._lock:
            if not self.on:
                return False
            self.on, self.pause_reason, self._cause = False, reason, cause
            return True

    def resume(self, *causes: str) -> bool:
        """Ends a pause of one of these causes; False if there was none. What `set` switched off stays off."""
        with self._lock:
            if not self.pause_reason or self._cause not in causes:
                return False
            self.on, self.pause_reason = True, ""
            return True
