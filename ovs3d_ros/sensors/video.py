"""Decodes recorded video (H.264, H.265, VP9, AV1) with PyAV, frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ovs3d_ros.types import UserError

# Names in the field `format` of foxglove_msgs/CompressedVideo and CompressedImage, and FFmpeg's names.
CODECS = {"h264": "h264", "h265": "hevc", "hevc": "hevc", "vp9": "vp9", "av1": "av1"}
_START_CODE = b"\0\0\1"
# Types of NAL units from which decoding can begin: parameter sets and pictures of their own.
_H264_STARTS = {5, 7}
_HEVC_STARTS = {16, 17, 18, 19, 20, 21, 32, 33}


def video_codec(format: str) -> str | None:
    """FFmpeg's name of the codec of a message's format, or None if it is no video."""
    return CODECS.get(format.partition(";")[0].strip().lower().replace(".", ""))


def can_start(data: bytes, codec: str) -> bool:
    """Whether decoding can begin at a packet; always true for codecs whose packets do not tell it here."""
    if codec not in ("h264", "hevc"):
        return True
    place = data.find(_START_CODE)
    while 0 <= place < len(data) - 3:
        kind = data[place + 3]
        if (kind & 31 in _H264_STARTS) if codec == "h264" else (kind >> 1 & 63 in _HEVC_STARTS):
            return True
        place = data.find(_START_CODE, place + 3)
    return False


class VideoFrames:
    """The frames of a video. Reading forward is fast; reading back decodes again from the start.

    Args:
        codec: FFmpeg's name.
        packet: gives packet i.
        count: number of packets.
        name: of the video in errors.
    """

    def __init__(self, codec: str, packet: Callable[[int], bytes], count: int, name: str) -> None:
        try:
            import av
        except ImportError:
            raise UserError(
                f"{name}: reading {codec} video needs PyAV; pip install av, or record JPEG images"
            ) from None
        self._av = av
        self._codec, self._packet, self._count, self._name = codec, packet, count, name
        self._restart()

    def frame(self, index: int) -> np.ndarray:
        """RGB uint8 [H, W, 3] of packet `index`.

        Raises:
            UserError: it cannot be decoded.
        """
        if index < self._newest:
            self._restart()
        while index not in self._decoded and self._fed <= self._count:
            self._feed()
        if index not in self._decoded:
            raise UserError(f"{self._name}: frame {index} of the {self._codec} video is damaged or missing")
        self._decoded = {i: frame for i, frame in self._decoded.items() if i >= index}
        self._newest = index
        return self._decoded[index].to_ndarray(format="rgb24")

    def _restart(self) -> None:
        self._decoder: Any = self._av.CodecContext.create(self._codec, "r")
        self._decoded: dict[int, Any] = {}
        self._fed, self._newest = 0, -1

    def _feed(self) -> None:
        """Feeds the next packet, or the end, and keeps the frames that come out."""
        packet = None
        if self._fed < self._count:
            packet = self._av.Packet(self._packet(self._fed))
            packet.pts = self._fed
        self._fed += 1
        try:
            frames = self._decoder.decode(packet)
        except self._av.FFmpegError:
            return  # of damaged data; decoding recovers at the next key frame
        self._decoded |= {frame.pts: frame for frame in frames if frame.pts is not None}
