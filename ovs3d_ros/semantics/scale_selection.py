"""Which level of the crop pyramid speaks for a Gaussian (docs/method.md, "Scale selection"), in closed form.

3D-OVS trains selection logits with its feature loss and with RDA. The feature loss alone rewards agreement between views,
and crops agree the more the wider they are; RDA rewards the level at which a thing has a clear name. So does this: the
logit of a level is the cosine of its feature with the most like of a bank of names.
"""

from __future__ import annotations

import torch

from ovs3d_ros.semantics.codec import FeatureCodec

TEMPERATURES = {
    "uniform": float("inf"),  # all levels alike
    "faithful": 1.0,  # logits between 0 and 1, like the sigmoids of 3D-OVS: always a mild blend
    "sharp": 0.02,
}

COMMON_NAMES = (
    "wall",
    "floor",
    "ceiling",
    "window",
    "door",
    "curtain",
    "carpet",
    "table",
    "desk",
    "chair",
    "sofa",
    "bed",
    "shelf",
    "cabinet",
    "drawer",
    "lamp",
    "picture",
    "mirror",
    "plant",
    "vase",
    "book",
    "box",
    "bag",
    "basket",
    "bottle",
    "mug",
    "glass",
    "bowl",
    "plate",
    "pan",
    "kettle",
    "sink",
    "oven",
    "fridge",
    "towel",
    "pillow",
    "blanket",
    "clothes",
    "shoe",
    "toy",
    "ball",
    "screen",
    "keyboard",
    "mouse",
    "phone",
    "cable",
    "tool",
    "fruit",
    "person",
    "bin",
)
"""For encoders whose calibration names nothing."""

_ROWS = 1 << 14  # Gaussians at a time


def select_levels(
    level_codes: torch.Tensor, names: torch.Tensor, codec: FeatureCodec, mode: str
) -> torch.Tensor:
    """Selection logits [N, S], whose softmax weighs the levels.

    Args:
        level_codes: [N, S, d + 1] unit codes of each level; zero where nothing was lifted.
        names: [M, D] unit text features of the bank.
        codec: of the codes.
        mode: key of `TEMPERATURES`.
    """
    directions = codec.directions(names)
    clearest = [(rows @ directions).amax(-1) for rows in level_codes.split(_ROWS)]
    return torch.cat(clearest) / TEMPERATURES[mode]
