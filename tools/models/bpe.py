"""Learns the byte-pair merges of the bundled tokenizer, in the file format of open_clip's SimpleTokenizer."""

from __future__ import annotations

import gzip
import itertools
from collections import Counter
from pathlib import Path


def learn_merges(weights: dict[str, int], count: int) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al., ACL 2016) of lower-case ASCII words.

    Args:
        weights: word to weight.
        count: largest number of merges; fewer when every word is one token.
    """
    words = {word: (*word[:-1], word[-1] + "</w>") for word in weights}
    merges = []
    while len(merges) < count:
        pairs = Counter()
        for word, pieces in words.items():
            for pair in itertools.pairwise(pieces):
                pairs[pair] += weights[word]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        words = {word: _merge(pieces, best) for word, pieces in words.items()}
    return merges


def _merge(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged, i = [], 0
    while i < len(pieces):
        joined = pieces[i : i + 2] == pair
        merged.append("".join(pair) if joined else pieces[i])
        i += 2 if joined else 1
    return tuple(merged)


def write_merges(path: Path, core: list[str], other: list[str]) -> int:
    """Writes `bpe_merges.txt.gz`.

    Each word of `core` becomes one token; words of `other` become several shared tokens.

    Returns:
        The vocabulary size of the tokenizer that reads the file.
    """
    core = {word for phrase in core for word in phrase.replace("-", " ").split()}
    other = {word for phrase in other for word in phrase.replace("-", " ").split()} - core
    shared = learn_merges({**dict.fromkeys(core, 3), **dict.fromkeys(other, 1)}, 500)
    pieces = {word: (*word[:-1], word[-1] + "</w>") for word in core}
    for pair in shared:
        pieces = {word: _merge(parts, pair) for word, parts in pieces.items()}
    merges = list(shared)
    for word in sorted(core):  # merge the words that the shared merges left in pieces
        parts = pieces[word]
        while len(parts) > 1:
            merges.append(parts[:2])
            parts = _merge(parts, parts[:2])
    merges = list(dict.fromkeys(merges))
    text = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)])
    with open(path, "wb") as file, gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as stream:
        stream.write(text.encode())
    return 512 + len(merges) + 2
