"""Text features of open_clip models without the work for padding."""

from __future__ import annotations

import copy

import torch


def encode_tokens(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Text features [P, D] of tokens [P, L], padded with 0; those of the model's own `encode_text`.

    CLIP pads every prompt to 77 tokens, and most names have fewer than 8. A token attends to earlier ones
    alone and the feature is that of the last token, so the padding after the longest prompt is left out.
    """
    if not _ignores_padding(model):
        return model.encode_text(tokens)
    length = int((tokens != 0).any(0).nonzero().max()) + 1
    return _with_context(model, length).encode_text(tokens[:, :length])


def _ignores_padding(model: torch.nn.Module) -> bool:
    """Whether this is open_clip's `CLIP` with causal attention and the feature at the end of the text."""
    is_causal = getattr(model, "attn_mask", None) is not None
    return is_causal and getattr(model, "text_pool_type", None) in ("argmax", "eos")


def _with_context(model: torch.nn.Module, length: int) -> torch.nn.Module:
    """The model for texts of `length` tokens; shares all weights. The given model stays as it is."""
    short = copy.copy(model)
    short._parameters = dict(model._parameters)
    short._buffers = dict(model._buffers)
    short.positional_embedding = torch.nn.Parameter(model.positional_embedding[:length], requires_grad=False)
    short.attn_mask = model.attn_mask[:length, :length]
    return short
