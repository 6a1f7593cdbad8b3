"""Captions of varied form, and how far each is true of what an image region shows.

A caption is kept together with what it claims, as masks over nouns, colours and materials. The share of a region that
fits those masks is the target of the sigmoid loss, so that two captions of one thing are never each other's negatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import vocabulary
import words

NOUNS = tuple(vocabulary.NOUNS)
COLOURS = vocabulary.COLOURS
MATERIALS = tuple(sorted({m for noun in vocabulary.NOUNS.values() for m in noun.materials}))
UNNAMED = len(COLOURS)
"""Code of a colour between those with a name, which only ever teaches shapes (`recolour.between`)."""
HELD_OUT = np.array(
    [[(colour, noun) in vocabulary.HELD_OUT_PAIRS for noun in NOUNS] for colour in (*COLOURS, "")]
)
"""[colours + 1, nouns] whether a pair is held out of training."""
OPEN_SHARE = 0.15  # of a region, from which on a thing in it counts
GENERIC_TARGET = 0.3
"""Generic words fit everything a little: between absent and present, where a relevancy negative has to lie."""


@dataclass(frozen=True)
class Claim:
    """What a caption says: sets of codes, None = anything; two claims in one caption must both hold."""

    nouns: tuple[int, ...] | None = None
    colours: tuple[int, ...] | None = None
    materials: tuple[int, ...] | None = None

    def masks(self) -> np.ndarray:
        parts = ((self.nouns, len(NOUNS)), (self.colours, len(COLOURS) + 1), (self.materials, len(MATERIALS)))
        return np.concatenate(
            [
                np.isin(np.arange(count), codes) if codes is not None else np.ones(count, bool)
                for codes, count in parts
            ]
        )


@dataclass(frozen=True)
class Caption:
    """A text, its claims (none: true of nothing), and the target where it fits everything alike."""

    text: str
    claims: tuple[Claim, ...] = ()
    constant: float = 0.0


def caption_of(thing: tuple[int, int, int], other: tuple[int, int, int] | None, rng) -> Caption:
    """A caption of one thing (noun, colour, material), sometimes together with another one beside it."""
    noun, colour, material = thing
    kind = rng.random()
    if kind < 0.06 and colour != UNNAMED:
        text, claim = _attribute(colour, COLOURS, words.COLOUR_SYNONYMS, rng), Claim(colours=(colour,))
        return Caption(text, (claim,))
    if kind < 0.10:
        text, claim = _attribute(material, MATERIALS, words.MATERIAL_WORDS, rng), Claim(materials=(material,))
        return Caption(text, (claim,))
    if kind < 0.14:
        names = [(h, members) for h, members in words.HYPERNYMS.items() if NOUNS[noun] in members]
        if names:
            name, members = names[rng.integers(len(names))]
            return Caption(name, (Claim(tuple(NOUNS.index(m) for m in members)),))
    if kind < 0.20 and other is not None and other[0] != noun:
        link = (" and ", " next to ", " with ", " on ")[rng.integers(4)]
        first, second = _phrase(thing, rng), _phrase(other, rng)
        return Caption(_article(first[0]) + link + _article(second[0]), (first[1], second[1]))
    text, claim = _phrase(thing, rng)
    return Caption(_framed(text, rng), (claim,))


def negative_caption(things: list[tuple[int, int, int]], rng) -> Caption:
    """A caption that is unlikely to fit: a near miss of a thing in the batch, something unknown, or a generic word."""
    kind = rng.random()
    if kind < 0.22:
        return Caption(words.GENERIC[rng.integers(len(words.GENERIC))], constant=GENERIC_TARGET)
    if kind < 0.55:
        noun, colour, _ = things[rng.integers(len(things))]
        if colour == UNNAMED or rng.random() < 0.5:
            colour = int(rng.integers(len(COLOURS)))
        else:
            noun = int(rng.integers(len(NOUNS)))
        if (COLOURS[colour], NOUNS[noun]) not in vocabulary.HELD_OUT_PAIRS:
            shade = _synonym(COLOURS[colour], words.COLOUR_SYNONYMS, rng)
            text = f"{shade} {_synonym(NOUNS[noun], words.SYNONYMS, rng)}"
            return Caption(_framed(text, rng), (Claim((noun,), (colour,)),))
    bank = words.distractors(held_out=False)
    name = bank[rng.integers(len(bank))].replace("-", " ") if rng.random() < 0.75 else _pseudo_word(rng)
    if rng.random() < 0.4:
        name = f"{COLOURS[rng.integers(len(COLOURS))]} {name}"
    return Caption(_framed(name, rng))


def targets(captions: list[Caption], things: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """How far each caption is true of each region.

    Args:
        captions: T captions.
        things: [U, 3] codes of noun, colour, material.
        shares: [R, U] share of each thing in each region, rows sum to at most 1.

    Returns:
        [R, T] in 0..1: 1 from a share of 0.8 up, proportional below. Of two claims the weaker one counts, doubled.
    """
    offsets = things + np.array([0, len(NOUNS), len(NOUNS) + len(COLOURS) + 1])
    result = np.empty((len(shares), len(captions)), np.float32)
    for column, caption in enumerate(captions):
        if not caption.claims:
            result[:, column] = caption.constant
            continue
        held = np.stack(
            [shares @ claim.masks()[offsets].all(axis=1) for claim in caption.claims]
        )  # [claims, R]
        result[:, column] = np.clip(len(held) * held.min(axis=0) / 0.8, 0, 1)
    return result


def open_questions(things: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What must not be denied of a region, lest training teaches that a held-out pair cannot be.

    Of something red it is left open whether it is a mug, and of a mug whether it is red.

    Args:
        things: [K, 3] codes of noun, colour, material.
        shares: [R, K] share of each thing in each region.

    Returns:
        [R, nouns] and [R, colours] bool.
    """
    shown = (shares > OPEN_SHARE).astype(np.float32)
    return shown @ HELD_OUT[things[:, 1]] > 0, shown @ HELD_OUT[:-1, things[:, 0]].T > 0


def denials(captions: list[Caption], truth: np.ndarray, nouns: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Which captions [R, T] may count as untrue, or true, of which regions: all but the `open_questions`.

    Args:
        captions: T captions.
        truth: [R, T] see `targets`.
        nouns: [R, nouns] open questions.
        colours: [R, colours] open questions.
    """
    claimed = np.zeros((2, len(captions), max(len(NOUNS), len(COLOURS))), np.float32)
    for row, caption in enumerate(captions):
        for claim in caption.claims:
            for kind, codes in enumerate((claim.nouns, claim.colours)):
                claimed[kind, row, list(codes or ())] = 1
    touched = nouns @ claimed[0, :, : len(NOUNS)].T + colours @ claimed[1, :, : len(COLOURS)].T > 0
    return ~touched | (truth > 0.05)


def _phrase(thing: tuple[int, int, int], rng) -> tuple[str, Claim]:
    """'mug', 'red mug', 'ceramic mug' or 'red ceramic mug', with what it claims."""
    noun, colour, material = thing
    name = _synonym(NOUNS[noun], words.SYNONYMS, rng)
    kind = rng.random()
    if kind < 0.27:
        return name, Claim((noun,))
    stuff = words.MATERIAL_WORDS[MATERIALS[material]][0]
    if kind < 0.37:
        return f"{stuff} {name}", Claim((noun,), None, (material,))
    if colour == UNNAMED:
        return name, Claim((noun,))
    shade = _synonym(COLOURS[colour], words.COLOUR_SYNONYMS, rng)
    if kind < 0.47:
        return f"{shade} {stuff} {name}", Claim((noun,), (colour,), (material,))
    return f"{shade} {name}", Claim((noun,), (colour,))


def _framed(text: str, rng) -> str:
    if rng.random() < 0.08:
        text = f"{words.NEUTRAL[rng.integers(len(words.NEUTRAL))]} {text}"
    framed = words.FRAMES[rng.integers(len(words.FRAMES))].format(text)
    head, _, tail = framed.partition(text)
    if head.endswith("a ") and text[0] in "aeiou":
        head = head[:-1] + "n "
    return head + text + tail


def _article(text: str) -> str:
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _attribute(code: int, names: tuple[str, ...], synonyms: dict, rng) -> str:
    choices = synonyms[names[code]] if names is MATERIALS else (names[code], *synonyms.get(names[code], ()))
    word = choices[rng.integers(len(choices))]
    if word.startswith("made of"):
        return ("{}", "something {}", "a thing {}")[rng.integers(3)].format(word)
    return ("{}", "{}", "something {}", "a {} thing", "a {} object", "anything {}")[rng.integers(6)].format(
        word
    )


def _synonym(name: str, synonyms: dict[str, tuple[str, ...]], rng) -> str:
    """The name itself four times of five."""
    others = synonyms.get(name, ())
    return others[rng.integers(len(others))] if others and rng.random() < 0.2 else name


def _pseudo_word(rng) -> str:
    consonants, vowels = "bcdfghjklmnprstvwz", "aeiou"
    return "".join(
        consonants[rng.integers(18)] + vowels[rng.integers(5)] + ("", "n", "r", "st")[rng.integers(4)]
        for _ in range(rng.integers(1, 4))
    )
