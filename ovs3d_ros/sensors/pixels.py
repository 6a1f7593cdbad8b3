"""Decodes the pixel formats of ROS images from plain buffers, without message types.

Source of the encoding names: sensor_msgs/image_encodings.hpp; of the compressedDepth layout: the
compressed_depth_image_transport package of ROS (a 12-byte header before a PNG).
"""

from __future__ import annotations

import struct

import cv2
import numpy as np

from ovs3d_ros.sensors.rvl import decode_rvl
from ovs3d_ros.sensors.video import video_codec
from ovs3d_ros.types import UserError

# encoding -> (bytes per channel, channels, cv2 conversion to RGB; None: already RGB)
COLOR_ENCODINGS: dict[str, tuple[int, int, int | None]] = {
    "rgb8": (1, 3, None),
    "bgr8": (1, 3, cv2.COLOR_BGR2RGB),
    "rgba8": (1, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": (1, 4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, 1, cv2.COLOR_GRAY2RGB),
    "8UC3": (1, 3, cv2.COLOR_BGR2RGB),  # OpenCV's own order: 8UC3 says nothing about colours
    "8UC4": (1, 4, cv2.COLOR_BGRA2RGB),
    "rgb16": (2, 3, None),
    "bgr16": (2, 3, cv2.COLOR_BGR2RGB),
    "rgba16": (2, 4, cv2.COLOR_RGBA2RGB),
    "bgra16": (2, 4, cv2.COLOR_BGRA2RGB),
    "mono16": (2, 1, cv2.COLOR_GRAY2RGB),
    "bayer_rggb8": (1, 1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": (1, 1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": (1, 1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": (1, 1, cv2.COLOR_BayerGRBG2RGB),
    "bayer_rggb16": (2, 1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr16": (2, 1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg16": (2, 1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg16": (2, 1, cv2.COLOR_BayerGRBG2RGB),
    "yuv422": (1, 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (1, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (1, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (1, 2, cv2.COLOR_YUV2RGB_YUY2),
}
# A plane of brightness above one of colour, of half its height and width and with interleaved channels.
PLANAR_ENCODINGS = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}
# encoding -> (dtype, metres per unit)
DEPTH_ENCODINGS: dict[str, tuple[str, float]] = {
    "32FC1": ("f4", 1.0),
    "16UC1": ("u2", 0.001),
    "mono16": ("u2", 0.001),
}
DEPTHS_OF_COLOUR = 10, 12, 14, 16  # bits in which sensors fill channels of 16 bits
_PNG, _TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*")  # how these files begin
_HEADER = 12  # bytes before a compressedDepth image
MAX_SIDE = 16384  # pixels; no camera has more, so a header that claims more is damaged


def _rows(
    data: bytes, height: int, width: int, step: int, dtype: np.dtype, channels: int, topic: str
) -> np.ndarray:
    """A [H, W, channels] view of a padded row-major buffer, in the machine's byte order."""
    packed = width * channels * dtype.itemsize
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise UserError(
            f"{topic}: image size {width}x{height} is not that of a camera image; fix the publisher"
        )
    if step < packed:
        raise UserError(
            f"{topic}: row step {step} is shorter than {width} pixels of {packed // width} bytes; "
            "the encoding or the step is wrong in the publisher"
        )
    if len(data) < step * (height - 1) + packed:
        raise UserError(
            f"{topic}: {len(data)} bytes of data for {height} rows of {step}; the image is truncated"
        )
    if len(data) < step * height:  # the last row may lack its padding
        data = bytes(data) + b"\0" * (step * height - len(data))
    raw = np.frombuffer(data, dtype=np.uint8, count=step * height).reshape(height, step)[:, :packed]
    pixels = np.ascontiguousarray(raw).view(dtype)
    return pixels.astype(dtype.newbyteorder("="), copy=False).reshape(height, width, channels)


class BitDepth:
    """The number of bits that a topic fills in channels of 16 bits; most sensors have 10 or 12.

    An encoding such as mono16 does not tell it. It is the smallest of the usual ones that holds the brightest
    value so far, so that it settles within a few images and the brightness does not flicker.

    Attributes:
        bits: as far as known; the smallest before the first image.
    """

    def __init__(self) -> None:
        self.bits = DEPTHS_OF_COLOUR[0]

    def to_bytes(self, pixels: np.ndarray) -> np.ndarray:
        """The upper eight of the bits, uint8, of pixels uint16."""
        brightest = int(pixels.max(initial=0))
        self.bits = max(self.bits, next(bits for bits in DEPTHS_OF_COLOUR if brightest < 1 << bits))
        return (pixels >> (self.bits - 8)).astype(np.uint8)


def decode_color(
    data: bytes,
    encoding: str,
    height: int,
    width: int,
    step: int,
    bigendian: bool,
    topic: str,
    bit_depth: BitDepth,
) -> np.ndarray:
    """RGB uint8 [H, W, 3] of a raw ROS image buffer.

    Bayer mosaics are interpolated bilinearly, YUV is BT.601. `bit_depth` is that of the topic, for channels
    of 16 bits; the other arguments are the fields of the message.

    Raises:
        UserError: the encoding is not a colour image, or the sizes contradict the data.
    """
    if encoding in PLANAR_ENCODINGS:
        return _decode_planar(data, encoding, height, width, step, topic)
    if encoding not in COLOR_ENCODINGS:
        hint = "is depth remapped to it?" if encoding in DEPTH_ENCODINGS else "let the driver publish rgb8"
        raise UserError(
            f"{topic}: encoding '{encoding}' is not a colour image; {hint} "
            f"(supported: {', '.join((*COLOR_ENCODINGS, *PLANAR_ENCODINGS))})"
        )
    width_bytes, channels, conversion = COLOR_ENCODINGS[encoding]
    order = ">" if bigendian else "<"
    dtype = np.dtype("u1") if width_bytes == 1 else np.dtype(order + "u2")
    pixels = _rows(data, height, width, step, dtype, channels, topic)
    if width_bytes == 2:
        pixels = bit_depth.to_bytes(pixels)
    if channels == 2 and width % 2:
        raise UserError(f"{topic}: {encoding} needs an even width, got {width}")
    if encoding.startswith("bayer") and min(height, width) < 4:
        raise UserError(f"{topic}: a {width}x{height} Bayer image is too small to interpolate")
    return pixels if conversion is None else cv2.cvtColor(pixels, conversion)


def _decode_planar(data: bytes, encoding: str, height: int, width: int, step: int, topic: str) -> np.ndarray:
    """RGB of NV12 or NV21. Some drivers give the step of another format; the data is then unpadded."""
    if height % 2 or width % 2:
        raise UserError(f"{topic}: {encoding} needs an even size, got {width}x{height}")
    rows = height * 3 // 2
    if step != width and len(data) == rows * width:
        step = width
    planes = _rows(data, rows, width, step, np.dtype("u1"), 1, topic)
    return cv2.cvtColor(planes, PLANAR_ENCODINGS[encoding])


def decode_depth(
    data: bytes, encoding: str, height: int, width: int, step: int, bigendian: bool, topic: str
) -> np.ndarray:
    """Depth float32 [H, W] in metres, 0 = none, of a raw ROS image buffer.

    The encoding determines the unit (REP 118).

    Raises:
        UserError: the encoding is not depth, or the sizes contradict the data.
    """
    if encoding not in DEPTH_ENCODINGS:
        raise UserError(
            f"{topic}: encoding '{encoding}' is not depth; publish 32FC1 (metres) or 16UC1 (millimetres)"
        )
    kind, unit = DEPTH_ENCODINGS[encoding]
    dtype = np.dtype((">" if bigendian else "<") + kind)
    return _clean_depth(_rows(data, height, width, step, dtype, 1, topic)[..., 0] * np.float32(unit))


def scale_depth(depth: np.ndarray, scale: float) -> np.ndarray:
    """Depth in another unit; readings that single precision cannot hold become 0 = none."""
    if scale == 1.0:
        return depth
    with np.errstate(over="ignore"):
        return _clean_depth(depth * np.float32(scale))


def _clean_depth(depth: np.ndarray) -> np.ndarray:
    """Sets NaN, infinite and negative readings to 0 = none."""
    depth = depth.astype(np.float32, copy=False)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def _decompress(data: np.ndarray, flags: int, topic: str) -> np.ndarray | None:
    """The image that `cv2.imdecode` reads, or None.

    OpenCV raises an error if the header claims an absurd size.
    """
    try:
        return cv2.imdecode(data, flags) if len(data) else None
    except cv2.error as error:
        raise UserError(
            f"{topic}: {len(data)} bytes of a broken image ({error.err}); fix the publisher"
        ) from None


def compressed_encoding(data: bytes, format: str) -> str:
    """Pixel encoding of a CompressedImage: from its format, else "mono16" for a 16-bit grey PNG; or ""."""
    encoding = format.partition(";")[0].strip()
    if encoding in COLOR_ENCODINGS or encoding in DEPTH_ENCODINGS:
        return encoding
    # A PNG starts with its signature and the chunk IHDR: width, height, bit depth and colour type.
    head = bytes(data[:26])
    return "mono16" if head.startswith(_PNG) and head[24:26] == b"\x10\x00" else ""


def decompress_color(data: bytes, format: str, topic: str, bit_depth: BitDepth) -> np.ndarray:
    """RGB uint8 [H, W, 3] of a JPEG or PNG; `bit_depth` is that of the topic, for PNG of 16 bits.

    Raises:
        UserError: the format is depth, or the data is not an image that OpenCV reads, or is truncated.
    """
    encoding = compressed_encoding(data, format)
    if encoding in DEPTH_ENCODINGS and encoding not in COLOR_ENCODINGS:
        raise UserError(
            f"{topic}: format '{format.strip()}' is depth and not a colour image; is depth remapped to it?"
        )
    image = _decompress(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, topic)
    if image is None and video_codec(format):
        raise UserError(
            f"{topic}: {format.strip()} video is read from bags only; publish JPEG or raw images, e.g. with "
            "image_transport's republish"
        )
    if image is None:
        raise UserError(
            f"{topic}: {len(data)} bytes that are neither JPEG nor PNG; is this a CompressedImage of "
            "image_transport's 'compressed' plugin?"
        )
    if image.dtype == np.uint16:
        image = bit_depth.to_bytes(image)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decompress_depth(data: bytes, format: str, topic: str) -> np.ndarray:
    """Depth float32 [H, W] in metres, 0 = none, of a CompressedImage.

    A message of the transport 'compressed' is a 16-bit PNG in millimetres or a float32 TIFF in metres. One of
    'compressedDepth' has a 12-byte header (int32, two float32 a, b) before its 16-bit PNG or RVL: 16UC1 holds
    millimetres, 32FC1 holds quantised inverse depth q with z = a / (q - b), 0 = none.

    Raises:
        UserError: the image is broken, or the encoding is not depth.
    """
    if bytes(data[:8]).startswith((_PNG, *_TIFF)):
        return _decompress_plain_depth(data, format, topic)
    encoding, _, codec = (part.strip() for part in format.partition(";"))
    if encoding not in ("16UC1", "mono16", "32FC1"):
        raise UserError(f"{topic}: compressedDepth of encoding '{encoding}'; publish 32FC1 or 16UC1 depth")
    body = np.frombuffer(data, np.uint8)[_HEADER:]
    is_rvl = "rvl" in codec
    image = _decompress_rvl(body) if is_rvl else _decompress(body, cv2.IMREAD_UNCHANGED, topic)
    if image is None or image.dtype != np.uint16 or image.ndim != 2:
        expected = "RVL image" if is_rvl else "16-bit PNG"
        raise UserError(f"{topic}: the compressedDepth message holds no {expected}; is it truncated?")
    if encoding != "32FC1":
        return _clean_depth(image * np.float32(0.001))
    _, a, b = struct.unpack("<iff", bytes(data[:_HEADER]))
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.float32(a) / (image.astype(np.float32) - np.float32(b))
    return _clean_depth(np.where(image == 0, np.float32(0), depth))


def _decompress_rvl(data: np.ndarray) -> np.ndarray | None:
    """The image uint16 [H, W] of an RVL body (columns, rows, stream); None if it is broken."""
    if len(data) < 8:
        return None
    width, height = (int(side) for side in data[:8].copy().view("<u4"))
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        return None
    values = decode_rvl(data[8:].tobytes(), width * height)
    return None if values is None else values.reshape(height, width)


def _decompress_plain_depth(data: bytes, format: str, topic: str) -> np.ndarray:
    """Depth of the transport 'compressed'; arguments as for `decompress_depth`."""
    image = _decompress(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED, topic)
    if image is None or image.ndim != 2 or image.dtype not in (np.uint16, np.float32):
        found = "a broken image" if image is None else f"{image.dtype} pixels of shape {image.shape}"
        raise UserError(
            f"{topic}: format '{format.strip()}' holds {found}, not 16-bit or float depth; is colour "
            "remapped to it?"
        )
    return _clean_depth(image * np.float32(0.001) if image.dtype == np.uint16 else image)
