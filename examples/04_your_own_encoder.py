"""Replace CLIP with your own encoder: here one that knows only the names of colours.

    python examples/04_your_own_encoder.py ~/data/kitchen red yellow

Any class with the members of `ColorNames` works. The command line and the node take its import string:
`ovs3d map DATA -o room.ovs3d --set clip.model=my_package.my_module:ColorNames`.
"""

import sys

import numpy as np
import torch
from PIL import Image, ImageColor

from ovs3d_ros import Config, Ovs3d
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.types import CropTable

COLORS = ("black", "grey", "white", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")


class ColorNames:
    name = "examples/color-names"  # stored in the map, which then refuses any other encoder
    dim = len(COLORS) + 1  # one axis per colour, and one for words that name none

    def __init__(self, config, device: str) -> None:
        self.calibration = {"query": {"temperature": 10.0, "threshold": 0.9}}  # from cosines to probabilities
        self.palette = np.array([ImageColor.getrgb(color) for color in COLORS], np.float32)

    def encode_image(self, image: np.ndarray) -> CropTable:
        """One embedding per cell of 4 x 4 pixels: the cell colour's similarity to each listed colour."""
        rows, columns = image.shape[0] // 4, image.shape[1] // 4
        cells = np.asarray(Image.fromarray(image).resize((columns, rows)), np.float32).reshape(-1, 1, 3)
        near = torch.from_numpy(-((cells - self.palette) ** 2).sum(-1) / 60.0**2).softmax(-1)
        left, top = np.meshgrid(np.arange(columns) / columns, np.arange(rows) / rows)
        boxes = np.stack([left, top, left + 1 / columns, top + 1 / rows], -1).reshape(-1, 4)
        embeddings, levels = torch.nn.functional.pad(near, (0, 1)), torch.zeros(len(boxes), dtype=torch.long)
        return CropTable(torch.from_numpy(boxes).float(), levels, embeddings, 1, (rows, columns))

    def encode_text(self, prompts) -> torch.Tensor:
        axes = [COLORS.index(prompt) if prompt in COLORS else len(COLORS) for prompt in prompts]
        return torch.eye(self.dim)[axes]


if __name__ == "__main__":
    data, *prompts = sys.argv[1:]
    room = Ovs3d(Config.from_settings({"clip.model": "__main__:ColorNames", "map.codec_dim": 10}))
    for frame in open_dataset(data):
        if room.add_frame(frame):
            room.optimize(20)
    for item in room.query(prompts).objects:
        print(f"{item.prompt}: at {np.round(item.center, 2)}, {item.num_gaussians} Gaussians")
