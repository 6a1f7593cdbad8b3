"""Text features of CLIP without the work for padding."""

from __future__ import annotations

import pytest
import torch

from ovs3d_ros.encoders.text import encode_tokens

open_clip = pytest.importorskip("open_clip")
VISION = dict(layers=1, width=64, image_size=32, patch_size=16)
PROMPTS = ["sofa", "a red office chair with wheels", "!"]  # the number of "!" is that of padding


def _model(**text) -> torch.nn.Module:
    torch.manual_seed(0)
    return open_clip.CLIP(32, VISION, dict(width=64, heads=4, layers=2, **text)).eval()


@torch.inference_mode()
def _compare(model: torch.nn.Module) -> tuple[int, int]:
    """Tokens per prompt that the model works on, with its own method and with ours; the features agree."""
    seen = []
    hook = model.ln_final.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    tokens = open_clip.get_tokenizer("ViT-B-16")(PROMPTS)
    expected, got = model.encode_text(tokens), encode_tokens(model, tokens)
    hook.remove()
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert expected.std(0).max() > 0.01  # the prompts differ
    torch.testing.assert_close(model.encode_text(tokens), expected, atol=0, rtol=0)  # it is as before
    return seen[0], seen[1]


def test_padding_costs_no_work_and_changes_no_feature():
    assert _compare(_model()) == (77, 8)


def test_a_model_in_which_padding_matters_reads_it():
    assert _compare(_model(no_causal_mask=True)) == (77, 77)
    assert _compare(_model(pool_type="last")) == (77, 77)


@pytest.mark.parametrize("kind", ["CustomTextCLIP", "CoCa"])
def test_other_models_encode_texts_themselves(kind):
    torch.manual_seed(0)
    width = dict(width=64, heads=4, layers=2)
    extra = dict(multimodal_cfg=width | dict(context_length=76), embed_dim=32) if kind == "CoCa" else {}
    text = width | (
        dict(context_length=76, embed_cls=True, output_tokens=True)
        if kind == "CoCa"
        else dict(no_causal_mask=True)
    )
    model = getattr(open_clip, kind)(**dict(embed_dim=32) | extra, vision_cfg=VISION, text_cfg=text).eval()
    tokens = open_clip.get_tokenizer("ViT-B-16", context_length=76)(PROMPTS)
    with torch.inference_mode():
        torch.testing.assert_close(encode_tokens(model, tokens), model.encode_text(tokens), atol=0, rtol=0)
