"""Signals that end a node."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

CHILD = """
import signal, sys, threading
from ovs3d_ros.ros.stopping import stop_on_signals
signal.signal(signal.SIGHUP, signal.SIG_IGN if "nohup" in sys.argv else signal.SIG_DFL)
stopping = threading.Event()
stop_on_signals(stopping)
print("ready", flush=True)
print("stopped" if stopping.wait(30) else "timeout", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_process_in_order(number: int) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        assert child.stdout.readline() == "stopped\n"
    assert child.returncode == 0


def test_ignored_hangup_stays_ignored() -> None:
    command = [sys.executable, "-c", CHILD, "nohup"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(1)
        child.send_signal(signal.SIGTERM)
        assert child.stdout.readline() == "stopped\n"
