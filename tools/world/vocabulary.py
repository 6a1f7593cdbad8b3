"""Names of the procedural world: nouns, colours, materials, and the pairs and meshes held out of training.

Free of Blender, so that training and evaluation scripts can import it.
"""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = ("black", "white", "grey", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
VIVID = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
HSV_RANGES = {
    "black": ((0, 360), (0.0, 0.2), (0.06, 0.15)),
    "white": ((30, 60), (0.0, 0.05), (0.93, 1.0)),
    "grey": ((0, 360), (0.0, 0.05), (0.45, 0.64)),
    "red": ((352, 364), (0.82, 1.0), (0.62, 0.88)),
    "orange": ((21, 29), (0.86, 1.0), (0.9, 1.0)),
    "yellow": ((48, 56), (0.75, 1.0), (0.92, 1.0)),
    "green": ((98, 145), (0.55, 0.95), (0.42, 0.72)),
    "blue": ((208, 230), (0.65, 0.95), (0.5, 0.9)),
    "purple": ((268, 284), (0.5, 0.8), (0.45, 0.72)),
    "pink": ((328, 345), (0.36, 0.58), (0.95, 1.0)),
    "brown": ((18, 30), (0.55, 0.75), (0.34, 0.54)),
}
"""Ranges of hue (degrees), saturation and value of the sRGB colours that people call by this name."""


@dataclass(frozen=True)
class Noun:
    """The choices for one noun.

    Attributes:
        variants: number of structural mesh variants.
        size_m: range of the largest extent of the object, metres.
        materials: plausible materials, drawn uniformly.
        colours: colours, drawn uniformly.
        places: 'table', 'floor' or both; empty for furniture, which `room.py` places itself.
    """

    variants: int
    size_m: tuple[float, float]
    materials: tuple[str, ...]
    colours: tuple[str, ...] = COLOURS
    places: tuple[str, ...] = ("table",)


NOUNS = {
    "apple": Noun(3, (0.09, 0.12), ("organic",), ("red", "green", "yellow")),
    "ball": Noun(4, (0.14, 0.26), ("plastic", "rubber"), COLOURS, ("table", "floor")),
    "banana": Noun(3, (0.18, 0.24), ("organic",), ("yellow", "green")),
    "basket": Noun(4, (0.24, 0.42), ("wicker",), COLOURS, ("table", "floor")),
    "book": Noun(4, (0.20, 0.28), ("paper",), COLOURS, ("table", "floor")),
    "bottle": Noun(4, (0.22, 0.32), ("glass", "plastic", "metal")),
    "bowl": Noun(4, (0.16, 0.26), ("ceramic", "plastic", "wood")),
    "box": Noun(4, (0.18, 0.36), ("cardboard", "plastic", "wood"), COLOURS, ("table", "floor")),
    "bucket": Noun(4, (0.24, 0.36), ("plastic", "metal"), COLOURS, ("floor", "table")),
    "candle": Noun(4, (0.14, 0.24), ("wax",)),
    "clock": Noun(4, (0.16, 0.26), ("plastic", "metal", "wood")),
    "cushion": Noun(4, (0.28, 0.42), ("fabric",), COLOURS, ("floor", "table")),
    "hat": Noun(3, (0.24, 0.34), ("fabric",), COLOURS, ("table", "floor")),
    "keyboard": Noun(4, (0.28, 0.42), ("plastic",)),
    "lamp": Noun(4, (0.30, 0.46), ("fabric", "metal", "plastic")),
    "laptop": Noun(3, (0.28, 0.36), ("metal", "plastic")),
    "mug": Noun(4, (0.11, 0.15), ("ceramic", "plastic", "metal")),
    "pan": Noun(3, (0.32, 0.44), ("metal",)),
    "phone": Noun(4, (0.15, 0.24), ("plastic",)),
    "plant": Noun(4, (0.26, 0.46), ("leaf",), ("green",), ("table", "floor")),
    "plate": Noun(4, (0.20, 0.28), ("ceramic", "plastic")),
    "teapot": Noun(4, (0.20, 0.28), ("ceramic", "metal")),
    "teddy bear": Noun(3, (0.24, 0.36), ("plush",), COLOURS, ("table", "floor")),
    "toy car": Noun(3, (0.18, 0.28), ("plastic", "metal"), COLOURS, ("table", "floor")),
    "vase": Noun(4, (0.22, 0.34), ("ceramic", "glass")),
    "carpet": Noun(3, (1.3, 2.2), ("fabric",), COLOURS, ()),
    "chair": Noun(4, (0.80, 0.95), ("wood", "plastic", "metal"), COLOURS, ()),
    "shelf": Noun(
        3, (1.0, 1.4), ("wood", "metal"), ("brown", "white", "black", "grey", "red", "blue", "green"), ()
    ),
    "sofa": Noun(3, (1.3, 1.7), ("fabric", "leather"), COLOURS, ()),
    "stool": Noun(3, (0.42, 0.55), ("wood", "plastic", "metal"), COLOURS, ()),
    "table": Noun(
        4,
        (0.9, 1.4),
        ("wood", "plastic"),
        ("brown", "white", "black", "grey", "red", "blue", "green", "yellow"),
        (),
    ),
    "floor": Noun(1, (0, 0), ("wood", "tile", "concrete"), ("brown", "white", "grey"), ()),
    "wall": Noun(
        1,
        (0, 0),
        ("paint", "brick", "wallpaper"),
        ("white", "grey", "yellow", "green", "blue", "pink", "brown", "orange", "red", "purple"),
        (),
    ),
}

SMALL_NOUNS = tuple(name for name, noun in NOUNS.items() if noun.places)

HELD_OUT_PAIRS = frozenset(
    {
        ("red", "mug"),
        ("blue", "bottle"),
        ("green", "bowl"),
        ("yellow", "plate"),
        ("purple", "vase"),
        ("orange", "ball"),
        ("pink", "book"),
        ("white", "box"),
        ("black", "candle"),
        ("yellow", "lamp"),
        ("grey", "cushion"),
        ("pink", "laptop"),
        ("white", "keyboard"),
        ("red", "phone"),
        ("green", "clock"),
        ("blue", "bucket"),
        ("brown", "teapot"),
        ("green", "apple"),
        ("purple", "basket"),
        ("orange", "chair"),
        ("blue", "carpet"),
        ("black", "hat"),
        ("white", "toy car"),
        ("grey", "teddy bear"),
        ("orange", "pan"),
    }
)

HELD_OUT_VARIANTS = {
    "ball": 3,
    "basket": 3,
    "book": 3,
    "bottle": 3,
    "bowl": 3,
    "box": 3,
    "bucket": 3,
    "candle": 3,
    "chair": 3,
    "clock": 3,
    "cushion": 3,
    "keyboard": 3,
    "lamp": 3,
    "mug": 3,
    "plant": 3,
    "plate": 3,
    "teapot": 3,
    "vase": 3,
}

VARIED_ONLY_VARIANTS = {noun: 4 for noun, spec in NOUNS.items() if spec.places or noun in ("chair", "stool")}
"""Number of extra mesh variants per noun that only `varied` scenes draw; their numbers start at
`Noun.variants`. Each is a family of meshes with a wide range of proportions. The other splits never draw
them, so their scenes still match their seeds.
"""

HELD_OUT_RATE = 0.35
"""Probability in `test` scenes of drawing a held-out pair, and independently a held-out variant."""


def sample_colour(rng, noun: str, split: str) -> str:
    """Draw a colour; only `test` scenes may draw a held-out pair."""
    held_out = [c for c in NOUNS[noun].colours if (c, noun) in HELD_OUT_PAIRS]
    seen = [c for c in NOUNS[noun].colours if (c, noun) not in HELD_OUT_PAIRS]
    use_held_out = split == "test" and held_out and rng.random() < HELD_OUT_RATE
    return str(rng.choice(held_out if use_held_out else seen))


def sample_variant(rng, noun: str, split: str) -> int:
    """Draw a mesh variant; only `test` scenes may draw a held-out one."""
    held_out = HELD_OUT_VARIANTS.get(noun)
    if split == "test" and held_out is not None and rng.random() < HELD_OUT_RATE:
        return held_out
    count = NOUNS[noun].variants + (VARIED_ONLY_VARIANTS.get(noun, 0) if split == "varied" else 0)
    return int(rng.choice([v for v in range(count) if v != held_out]))


def sample_material(rng, noun: str) -> str:
    """Draw a plausible material; wood in a colour other than brown is painted."""
    return str(rng.choice(NOUNS[noun].materials))


def label_name(noun: str, colour: str, material: str) -> str:
    """The class name, as in a query: 'red mug', 'wooden table' (natural wood), 'floor'."""
    if noun == "floor":
        return "floor"
    if noun in ("table", "shelf", "chair", "stool") and material == "wood" and colour == "brown":
        return f"wooden {noun}"
    return f"{colour} {noun}"
