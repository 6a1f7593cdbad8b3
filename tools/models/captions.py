"""Captions of varied form, and how well each caption fits an image region.

A caption carries its claims as masks over nouns, colours and materials. The target of the sigmoid loss is the
share of a region that fits those masks, so two captions of one object are never negatives of each other.
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
"""Code of a colour without a name (`recolour.between`); such colours teach shapes only."""
HELD_OUT = np.array(
    [[(colour, noun) in vocabulary.HELD_OUT_PAIRS for noun in NOUNS] for colour in (*COLOURS, "")]
)
"""[colours + 1, nouns] True where a pair is held out of training."""
OPEN_SHARE = 0.15  # share of a region above which an object leaves questions open
GENERIC_TARGET = 0.3
"""Target of generic words for every region: between absent and present, where the negatives of relevancy must
lie.
"""


@dataclass(frozen=True)
class Claim:
    """What a caption claims: sets of codes, None = anything. All claims of a caption must hold."""

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
    """A text and its claims; a caption without claims has the same target `constant` for every region."""

    text: str
    claims: tuple[Claim, ...] = ()
    constant: float = 0.0


def caption_of(thing: tuple[int, int, int], other: tuple[int, int, int] | None, rng) -> Caption:
    """Draws a caption of one object (noun, colour, material), sometimes with another one beside it."""
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
    """Draws a caption that is unlikely to fit.

    It is a near miss of an object in the batch, an unknown word or a generic word.
    """
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
    """Targets: how well each caption fits each region.

    Args:
        captions: T captions.
        things: [U, 3] codes of noun, colour, material.
        shares: [R, U] share of each object in each region, rows sum to at most 1.

    Returns:
        [R, T] in 0..1: 1 for a share of at least 0.8, else proportional. Two claims: twice the smaller share.
    """
    offsets = things + np.array([0, len(NOUNS), len(NOUNS) + len(COLOURS) + 1])
    result = np.empty((len(shares), len(captions)), np.float32)
    for column, caption in enumerate(captions):
        if not caption.claims:
            result[:, column] = caption.constant
            continue
        # Shape [claims, R].
        fitting = np.stack([shares @ claim.masks()[offsets].all(axis=1) for claim in caption.claims])
        result[:, column] = np.clip(len(fitting) * fitting.min(axis=0) / 0.8, 0, 1)
    return result


def open_questions(things: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Names that training must not deny of a region.

    Denying them would teach that held-out pairs do not exist.

    Example: "red mug" is held out. Whether a red object is a mug stays open, and whether a mug is red.

    Args:
        things: [K, 3] codes of noun, colour, material.
        shares: [R, K] share of each thing in each region.

    Returns:
        [R, nouns] and [R, colours] bool.
    """
    present = (shares > OPEN_SHARE).astype(np.float32)
    return present @ HELD_OUT[things[:, 1]] > 0, present @ HELD_OUT[:-1, things[:, 0]].T > 0


def scored_captions(
    captions: list[Caption], truth: np.ndarray, nouns: np.ndarray, colours: np.ndarray
) -> np.ndarray:
    """Pairs of region and caption [R, T] that enter the loss: those outside `open_questions`.

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
    """'mug', 'red mug', 'ceramic mug' or 'red ceramic mug', and its claim."""
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
    """The name itself in four of five cases, else a synonym."""
    others = synonyms.get(name, ())
    return others[rng.integers(len(others))] if others and rng.random() < 0.2 else name


def _pseudo_word(rng) -> str:
    consonants, vowels = "bcdfghjklmnprstvwz", "aeiou"
    return "".join(
        consonants[rng.integers(18)] + vowels[rng.integers(5)] + ("", "n", "r", "st")[rng.integers(4)]
        for _ in range(rng.integers(1, 4))
    )
