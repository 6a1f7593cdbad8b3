"""Standard output and standard error of the command line, when they are closed, full or not in UTF-8."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any


class OutputError(Exception):
    """Standard output cannot be written.

    It is no OSError, so that no handler takes it for a fault of another file.
    """

    def __init__(self, cause: OSError):
        super().__init__(cause.strerror or str(cause))
        self.reader_left = isinstance(cause, BrokenPipeError)


class _Output:
    """Standard output: raises OutputError if it is closed or full."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        with self._checked():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._checked():
            self._stream.flush()

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        if self._stream is None:  # Python found the descriptor closed
            raise OutputError(OSError(errno.EBADF, "it is closed"))
        try:
            yield
        except OSError as error:
            raise OutputError(error) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Messages:
    """Standard error: drops a message that cannot be written, so that long work goes on."""

    def __init__(self, stream: Any):
        self._stream = stream  # None if Python found the descriptor closed

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def checked_streams() -> Iterator[None]:
    """Guards standard output and standard error of this process inside the block.

    Characters that the encoding of standard output lacks are replaced by question marks.

    Raises:
        OutputError: standard output cannot be written; at the latest at the end of the block.
    """
    _occupy_descriptors()
    output, messages = sys.stdout, sys.stderr
    if hasattr(output, "reconfigure"):
        output.reconfigure(errors="replace")
    sys.stdout = _Output(output)
    sys.stderr = _Messages(messages)
    try:
        try:
            yield
        except SystemExit:  # argparse ends `--help` so
            _flush(output)
            raise
        _flush(output)
    except OutputError:
        _discard(output)
        raise
    finally:
        sys.stderr.flush()
        sys.stdout, sys.stderr = output, messages


def _flush(output: Any) -> None:
    if output is not None:
        sys.stdout.flush()


def _occupy_descriptors() -> None:
    """Opens the null device in place of closed standard streams: a map file could become descriptor 1."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _discard(output: Any) -> None:
    """Sends what standard output still buffers to the null device: Python flushes it again at exit."""
    try:
        descriptor = output.fileno()
    except (AttributeError, OSError, ValueError):  # closed, or no file of the system
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
