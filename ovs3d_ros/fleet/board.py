"""The board of a fleet. Its process loads this module alone, not what tasks need."""

from __future__ import annotations


class Board:
    """An actor that keeps what the tasks reported last."""

    def __init__(self) -> None:
        self._reports: dict[str, str] = {}

    def put(self, name: str, text: str) -> None:
        """Replaces the report of a task, by the name of its map."""
        self._reports[name] = text

    def reports(self) -> dict[str, str]:
        """The last report of each task."""
        return self._reports
