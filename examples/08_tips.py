"""TIPSv2 B/14, its weights yours.

    python examples/08_tips.py ~/tips_v2 ~/data/kitchen sofa mug

Needs github.com/google-deepmind/tips on PYTHONPATH, `pip install tensorflow_text`, and a folder with
tips_v2_oss_b14_vision.npz, tips_v2_oss_b14_text.npz and tokenizer.model, see its download_checkpoints.sh.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from ovs3d_ros import Config, Ovs3d
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.encoders.cells import CellEncoder

PATCH, DIM = 14, 768
TEXT = {"hidden_size": DIM, "mlp_dim": 3072, "num_heads": 12, "num_layers": 12}
VISION = {"img_size": 448, "patch_size": PATCH, "ffn_layer": "mlp", "block_chunks": 0, "init_values": 1.0}


def Tips(config, device: str) -> CellEncoder:
    from tips.pytorch import image_encoder, text_encoder

    def load(model: torch.nn.Module, part: str) -> torch.nn.Module:
        weights = np.load(folder / f"tips_v2_oss_b14_{part}.npz").items()
        model.load_state_dict({n: torch.from_numpy(w) for n, w in weights if n != "temperature"})
        return model.eval().to(device)

    def cells(pixels: torch.Tensor) -> torch.Tensor:
        *blocks, last = vision.blocks
        x = vision.prepare_tokens_with_masks(pixels)
        for block in blocks:
            x = block(x)
        own = last.attn.qkv(last.norm1(x)).chunk(3, dim=-1)[2]  # each cell keeps its value, as in MaskCLIP
        x = x + last.ls1(last.attn.proj(own))
        x = vision.norm(x + last.ls2(last.mlp(last.norm2(x))))[:, 1 + vision.num_register_tokens :]
        return x.view(pixels.shape[2] // PATCH, pixels.shape[3] // PATCH, DIM)

    def texts(prompts: list[str]) -> torch.Tensor:
        ids, paddings = tokenizer.tokenize([f"a photo of a {prompt}" for prompt in prompts])
        return text(torch.from_numpy(ids).to(device), torch.from_numpy(paddings).to(device))

    folder = Path(config.pretrained).expanduser()
    vision = image_encoder.vit_base(**VISION, interpolate_antialias=True, interpolate_offset=0.0)
    vision, text = load(vision, "vision"), load(text_encoder.TextEncoder(TEXT, vocab_size=32000), "text")
    tokenizer = text_encoder.Tokenizer(str(folder / "tokenizer.model"))
    return CellEncoder("tips_v2_oss_b14", DIM, cells, texts, PATCH, config, device)


if __name__ == "__main__":
    weights, data, *prompts = sys.argv[1:]
    room = Ovs3d(Config.from_settings({"clip.model": "__main__:Tips", "clip.pretrained": weights}))
    for frame in open_dataset(data):
        if room.add_frame(frame):
            room.optimize(20)
    print([(item.prompt, np.round(item.center, 2)) for item in room.query(prompts).objects])
