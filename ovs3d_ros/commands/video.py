"""Writes videos that browsers play: H.264 where OpenCV has an encoder for it, else VP9 or VP8."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from ovs3d_ros.io.atomic import atomic_write_path
from ovs3d_ros.types import UserError

# Four-letter codes and names of the codecs by suffix, best first. OpenCV's wheels have no H.264.
_CODECS = {
    ".mp4": (("avc1", "H.264"), ("vp09", "VP9")),
    ".webm": (("VP90", "VP9"), ("VP80", "VP8")),
}
VIDEO_SUFFIXES = tuple(_CODECS)
_TRIAL_FRAMES = 4

Sink = Callable[[np.ndarray], None]  # writes the next RGB picture


def codec_name(path: Path) -> str:
    """The name of the codec of a video, like VP9."""
    with _silence():
        code = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    text = code.to_bytes(4, "little").decode("ascii", "replace").upper()
    return next((name for codecs in _CODECS.values() for own, name in codecs if own.upper() == text), text)


def _choose_codec(suffix: str, fps: float, size: tuple[int, int]) -> str:
    """The first codec that writes such a video on this machine, or the last one without a trial."""
    *preferred, (last, _) = _CODECS[suffix]
    return next((code for code, _ in preferred if _works(code, suffix, fps, size)), last)


def _works(code: str, suffix: str, fps: float, size: tuple[int, int]) -> bool:
    """Writes a few frames and reads them back: encoders in hardware may open and then write nothing."""
    writer = cv2.VideoWriter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"trial{suffix}"
        if not _open(writer, path, code, fps, size):
            return False
        for _ in range(_TRIAL_FRAMES):
            writer.write(np.zeros((size[1], size[0], 3), np.uint8))
        writer.release()
        return _count_frames(path) == _TRIAL_FRAMES


def _open(writer: cv2.VideoWriter, path: Path, code: str, fps: float, size: tuple[int, int]) -> bool:
    with _silence():
        return writer.open(str(path), cv2.VideoWriter_fourcc(*code), fps, size)


def _count_frames(path: Path) -> int:
    with _silence():
        return int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drops what C libraries write to standard error: FFmpeg comments on every codec it lacks."""
    earlier, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(earlier, 2)
        os.close(earlier)
        os.close(null)


@contextlib.contextmanager
def write_video(path: Path, fps: float) -> Iterator[Sink]:
    """A sink that appends RGB pictures of one size to a video file; the file appears after a clean end.

    Args:
        path: file to write; its suffix is one of `VIDEO_SUFFIXES`.
        fps: frames per second.

    Raises:
        UserError: the video cannot be written, or is incomplete: OpenCV does not report a full disk.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # it would add lines to our error
    writer, count, suffix = cv2.VideoWriter(), 0, path.suffix.lower()
    try:
        with atomic_write_path(path, suffix) as temporary:

            def write(picture: np.ndarray) -> None:
                nonlocal count
                size = picture.shape[1], picture.shape[0]
                if not count and not _open(writer, temporary, _choose_codec(suffix, fps, size), fps, size):
                    names = " nor ".join(name for _, name in _CODECS[suffix])
                    raise UserError(
                        f"{path}: OpenCV encodes neither {names} here; pip install opencv-python-headless "
                        "mends that, and a folder instead of the file gets pictures"
                    )
                writer.write(np.ascontiguousarray(picture[..., ::-1]))
                count += 1

            yield write
            writer.release()
            written = _count_frames(temporary)
            if written != count:
                raise UserError(
                    f"{path}: only {max(written, 0)} of {count} frames could be written; is the disk full?"
                )
    except OSError as error:
        raise UserError(f"{path}: cannot write the video ({error.strerror})") from None
