"""A bank of common names, with which prompts are compared where no labels exist (docs/method.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """

    names: tuple[str, ...]
    texts: torch.Tensor
    synonym: float
    among: torch.Tensor

    def rivals(self, prompts: Sequence[str], texts: torch.Tensor) -> torch.Tensor:
        """Which names are other things than each prompt, bool [P, M].

        Not so are near words, and names that hold all words of the prompt or the reverse, like "sofa" and
        "leather sofa".

        Args:
            prompts: the P prompts.
            texts: [P, D] their unit features.
        """
        return _other_things(prompts, texts, self.names, self.texts, self.synonym)


def _other_things(
    prompts: Sequence[str], texts: torch.Tensor, names: Sequence[str], features: torch.Tensor, synonym: float
) -> torch.Tensor:
    """`NameBank.rivals` of names with unit text features [M, D]."""
    words = sorted({word for name in (*prompts, *names) for word in name.lower().split()})
    own, other = _bags(prompts, words), _bags(names, words)
    shared = own @ other.T
    nested = (shared == own.sum(1)[:, None]) | (shared == other.sum(1))
    return ~nested & (texts @ features.T < synonym)


def _bags(names: Sequence[str], words: list[str]) -> torch.Tensor:
    """[names, words] 1 where a name holds a word."""
    index = {word: column for column, word in enumerate(words)}
    bags = torch.zeros(len(names), len(words))
    for row, name in enumerate(names):
        bags[row, [index[word] for word in name.lower().split()]] = 1.0
    return bags


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
    return NameBank(tuple(names), texts, synonym, _other_things(names, texts, names, texts, synonym))
