"""Which function builds the mesh of a noun; free of Blender."""

from __future__ import annotations

import further_devices
import further_home
import further_kitchen
import further_seats
import further_soft
import nouns_devices
import nouns_furniture
import nouns_home
import nouns_kitchen
from shapes import Part
from vocabulary import NOUNS

OWN = (nouns_kitchen, nouns_home, nouns_devices, nouns_furniture)
FURTHER = (further_kitchen, further_home, further_soft, further_devices, further_seats)


def build(noun: str, rng, variant: int, **shape) -> list[Part]:
    """The parts of a mesh, by the function named after the noun (`container` for 'box'); `further_*` have the variants of
    `vocabulary.FURTHER_VARIANTS`, counted from 0."""
    name, count = "container" if noun == "box" else noun.replace(" ", "_"), NOUNS[noun].variants
    modules, variant = (OWN, variant) if variant < count else (FURTHER, variant - count)
    return next(getattr(module, name) for module in modules if hasattr(module, name))(rng, variant, **shape)
