"""Selection of the pyramid level per Gaussian, in closed form (docs/method.md, "Scale selection").

3D-OVS trains selection logits with its feature loss and RDA. The feature loss alone prefers wide crops,
because wide crops of different views agree more; RDA prefers the level at which a thing has a clear name. The
closed form does the same: a level's logit is the highest cosine of its feature with a bank of common names.
"""

from __future__ import annotations

import torch

from ovs3d_ros.semantics.codec import FeatureCodec

TEMPERATURES = {
    "uniform": float("inf"),  # equal weights
    "faithful": 1.0,  # logits between 0 and 1, like the sigmoids of 3D-OVS: a mild blend
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
"""Bank of names for encoders whose calibration has no distractors."""

_CHUNK = 1 << 14  # Gaussians processed at a time


def select_levels(
    level_codes: torch.Tensor, names: torch.Tensor, codec: FeatureCodec, mode: str
) -> torch.Tensor:
    """Selection logits [N, S]; their softmax weighs the levels.

    Args:
        level_codes: [N, S, d + 1] unit codes of each level; zero where nothing was lifted.
        names: [M, D] unit text features of the bank.
        codec: codec of the codes.
        mode: key of `TEMPERATURES`.
    """
    directions = codec.directions(names)
    best_cosines = [(rows @ directions).amax(-1) for rows in level_codes.split(_CHUNK)]
    return torch.cat(best_cosines) / TEMPERATURES[mode]
