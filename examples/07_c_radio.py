"""C-RADIOv3 with the texts of SigLIP 2, its weights yours (mind NVIDIA's licence for them).

    python examples/07_c_radio.py c-radio_v3-b ~/data/kitchen sofa mug

torch.hub loads code and weights of github.com/NVlabs/RADIO; in place of c-radio_v3-b it takes the path of
weights. Texts need `pip install transformers einops`. The command line and the node take a copy of this file,
my_radio.py, by `--set clip.model=my_radio:CRadio --set clip.pretrained=c-radio_v3-b`.
"""

import sys

import numpy as np
import torch

from ovs3d_ros import Config, Ovs3d
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.encoders.cells import CellEncoder

PATCH = 16  # px
TEACHER, DIM = "siglip2-g", 1536


def CRadio(config, device: str) -> CellEncoder:
    version = config.pretrained
    model = torch.hub.load("NVlabs/RADIO", "radio_model", version=version, adaptor_names=[TEACHER])
    adaptor = model.eval().to(device).adaptors[TEACHER]
    dtype = next(adaptor.head_mlp.parameters()).dtype

    def cells(pixels: torch.Tensor) -> torch.Tensor:
        # The head of the summary is the one that meets the texts: it is applied to every cell (RayFronts).
        features = model(pixels)["backbone"].features  # [1, h * w, width of the model]
        rows, columns = pixels.shape[2] // PATCH, pixels.shape[3] // PATCH
        return adaptor.head_mlp(features.to(dtype)).view(rows, columns, DIM)

    def texts(prompts: list[str]) -> torch.Tensor:
        tokens = adaptor.tokenizer([f"a photo of a {prompt}" for prompt in prompts])
        return adaptor.encode_text(tokens.to(device))

    return CellEncoder(f"{version}+{TEACHER}", DIM, cells, texts, PATCH, config, device)


if __name__ == "__main__":
    weights, data, *prompts = sys.argv[1:]
    room = Ovs3d(Config.from_settings({"clip.model": "__main__:CRadio", "clip.pretrained": weights}))
    for frame in open_dataset(data):
        if room.add_frame(frame):
            room.optimize(20)
    for item in room.query(prompts).objects:
        print(f"{item.prompt}: at {np.round(item.center, 2)}, {item.num_gaussians} Gaussians")
