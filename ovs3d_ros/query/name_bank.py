"""A bank of common names, with which prompts are compared where no labels exist (docs/method.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

BANK_FILE = Path(__file__).with_name("name_bank.txt")
_SYNONYMS = 0.005  # share of the pairs of the bank's names, those with the nearest texts, that mean one thing


@dataclass(frozen=True, slots=True)
class NameBank:
    """Names of things that a place may hold.

    Attributes:
        names: the M names.
        texts: [M, D] unit text features.
        synonym: text-text cosine from which a name counts as another word for a prompt.
        among: [M, M] bool, which names are other things than each name.
        words: how many words each name has, [M].
        by_word: the numbers of the names that hold a word.
    """

    names: tuple[str, ...]
    texts: torch.Tensor
    synonym: float
    among: torch.Tensor
    words: np.ndarray
    by_word: dict[str, list[int]]

    def rivals(self, prompts: Sequence[str], texts: torch.Tensor) -> torch.Tensor:
        """Which names are other things than each prompt, bool [P, M].

        Not so are near words, and names that hold all words of the prompt or the reverse, like "sofa" and
        "leather sofa".

        Args:
            prompts: the P prompts.
            texts: [P, D] their unit features.
        """
        return ~self._nested(prompts) & (texts @ self.texts.T < self.synonym)

    def _nested(self, prompts: Sequence[str]) -> torch.Tensor:
        """Which names hold all words of each prompt or the reverse, bool [P, M]."""
        nested = np.zeros((len(prompts), len(self.names)), bool)
        for row, prompt in zip(nested, prompts, strict=True):
            words, shared = _words(prompt), np.zeros(len(self.names), np.int64)
            for word in words:
                shared[self.by_word.get(word, [])] += 1
            row[:] = (shared == len(words)) | (shared == self.words)
        return torch.from_numpy(nested)


def _words(name: str) -> set[str]:
    return set(name.lower().split())


def read_names(path: Path = BANK_FILE) -> tuple[str, ...]:
    """The names in a file, one a line; lines with # are headings."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def make_bank(names: Sequence[str], encode_text: Callable[[Sequence[str]], torch.Tensor]) -> NameBank:
    """Encodes the names of a bank: seconds for a thousand of them on a CPU, see `name_cache`."""
    texts = encode_text(names).float()
    cosines = texts @ texts.T
    pairs = cosines[torch.triu(torch.ones_like(cosines, dtype=torch.bool), diagonal=1)]
    synonym = float(np.quantile(pairs.numpy(), 1 - _SYNONYMS))
    by_word: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        for word in _words(name):
            by_word.setdefault(word, []).append(number)
    words = np.array([len(_words(name)) for name in names])
    bank = NameBank(tuple(names), texts, synonym, torch.empty(0), words, by_word)
    return replace(bank, among=bank.rivals(names, texts))
