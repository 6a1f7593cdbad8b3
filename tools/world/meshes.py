"""Finds the function that builds the mesh of a noun; free of Blender."""

from __future__ import annotations

import objects_devices
import objects_furniture
import objects_home
import objects_kitchen
import varied_clocks_and_cars
import varied_containers
import varied_decoration
import varied_devices
import varied_fruit
import varied_seats
import varied_tableware
import varied_textiles
import varied_toys_and_books
import varied_vessels
from shapes import Part
from vocabulary import NOUNS

OBJECT_MODULES = (objects_kitchen, objects_home, objects_devices, objects_furniture)
VARIED_MODULES = (
    varied_tableware,
    varied_vessels,
    varied_toys_and_books,
    varied_containers,
    varied_fruit,
    varied_textiles,
    varied_decoration,
    varied_devices,
    varied_clocks_and_cars,
    varied_seats,
)


def build(noun: str, rng, variant: int, **shape) -> list[Part]:
    """Builds a mesh with the function that is named after the noun (`container` for 'box').

    Args:
        noun: a key of `vocabulary.NOUNS`.
        rng: draws the proportions.
        variant: below `Noun.variants` the mesh comes from `objects_*.py`. The variants from there on are
            those of `vocabulary.VARIED_ONLY_VARIANTS` and come from `varied_*.py`, which count them from 0.
        shape: sizes of furniture, metres.
    """
    name = "container" if noun == "box" else noun.replace(" ", "_")
    count = NOUNS[noun].variants
    modules, index = (OBJECT_MODULES, variant) if variant < count else (VARIED_MODULES, variant - count)
    return next(getattr(module, name) for module in modules if hasattr(module, name))(rng, index, **shape)
