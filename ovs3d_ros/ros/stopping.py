"""Signals that end a node in an orderly way."""

from __future__ import annotations

import signal
import threading

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_on_signals(stopping: threading.Event) -> None:
    """Sets the event on Ctrl-C, on SIGTERM, and on SIGHUP, which a terminal sends when it closes.

    A SIGHUP that is ignored, as under `nohup`, stays ignored.
    """
    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: stopping.set())
