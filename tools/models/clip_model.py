"""Configuration, loading and saving of ovs3d-tiny-clip, for the scripts that train it."""

from __future__ import annotations

import copy
import json
import math
import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "world")]

import bpe
import crops
import words

CONTEXT = 16
DIM = 128
CONFIG = {
    "model_cfg": {
        "embed_dim": DIM,
        "custom_text": True,
        "init_logit_scale": math.log(10.0),
        "init_logit_bias": -5.0,
        "vision_cfg": {
            "timm_model_name": "cs3darknet_focus_s",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "timm_proj_bias": True,
            "image_size": crops.CROP_PX,
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": 0,
            "width": 128,
            "heads": 4,
            "layers": 3,
            "mlp_ratio": 2.0,
        },
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}


def create(folder: Path) -> None:
    """Writes the tokenizer and the model configuration of a new model."""
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(CONFIG)
    config["model_cfg"]["text_cfg"]["vocab_size"] = bpe.write_merges(
        folder / "bpe_merges.txt.gz", words.corpus(), words.distractors(held_out=False)
    )
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1))


def load(folder: Path, weights: bool = True):
    """Model and tokenizer of a folder, through open_clip."""
    import open_clip

    source = f"local-dir:{folder}"
    model = open_clip.create_model(source, load_weights=weights)
    model.visual.to(memory_format=torch.channels_last)
    return model, open_clip.get_tokenizer(source, bpe_path=str(folder / "bpe_merges.txt.gz"))


def save(model: torch.nn.Module, folder: Path) -> None:
    """Writes the weights in half precision."""
    from safetensors.torch import save_file

    state = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    save_file(state, folder / "model.partial")
    (folder / "model.partial").replace(folder / "model.safetensors")


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (pixels.new_tensor(CONFIG["preprocess_cfg"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def average_weights(average: torch.nn.Module, model: torch.nn.Module, keep: float) -> None:
    """Exponential moving average of the weights; counters are copied."""
    for ours, theirs in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        ours.lerp_(theirs, 1 - keep) if ours.is_floating_point() else ours.copy_(theirs)
