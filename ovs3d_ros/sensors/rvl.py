"""Decodes RVL, the lossless codec of 16-bit depth in compressed_depth_image_transport.

Source: Wilson, "Fast Lossless Depth Image Compression", ISS 2017, listing 1, and codec.cpp of that package.
"""

from __future__ import annotations

import numpy as np

_NIBBLES = 8  # in a word of 32 bits; the first one is in the highest bits


def decode_rvl(data: bytes, count: int) -> np.ndarray | None:
    """The `count` values uint16 of an RVL stream, or None if it is truncated or damaged.

    The stream alternates a run of zeros and a run of others. Each run begins with its length; the values of
    the second kind are differences to the one before.
    """
    numbers = _read_numbers(data)
    values = np.zeros(count, np.int64)
    filled = position = 0
    previous = 0
    while filled < count:
        if position + 1 >= len(numbers):
            return None
        zeros, others = int(numbers[position]), int(numbers[position + 1])
        position += 2
        filled += zeros
        if filled + others > count or position + others > len(numbers) or not (zeros or others):
            return None
        codes = numbers[position : position + others]
        if others:
            run = previous + np.cumsum((codes >> 1) ^ -(codes & 1))
            values[filled : filled + others] = run
            previous = int(run[-1])
        filled += others
        position += others
    return values.astype(np.uint16) if filled == count else None


def _read_numbers(data: bytes) -> np.ndarray:
    """The numbers int64 of a stream of nibbles: three bits each, the lowest first, and one that continues."""
    words = np.frombuffer(data, "<u4", count=len(data) // 4)
    shifts = np.arange(4 * (_NIBBLES - 1), -1, -4, dtype=np.uint32)
    nibbles = ((words[:, None] >> shifts) & 0xF).ravel().astype(np.int64)
    ends = np.flatnonzero(nibbles < 8)
    if not len(ends):
        return np.zeros(0, np.int64)
    nibbles = nibbles[: ends[-1] + 1]
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    places = np.arange(len(nibbles)) - np.repeat(starts, lengths)
    return np.add.reduceat((nibbles & 7) << (3 * np.minimum(places, 20)), starts)
