"""Folded batch norms change nothing but the time."""

from __future__ import annotations

import copy

import pytest
import torch

from ovs3d_ros.config import ClipConfig
from ovs3d_ros.encoders import make_clip
from ovs3d_ros.encoders.folding import fold_batch_norms, fold_in_order

pytest.importorskip("timm")


def batch_norms(module: torch.nn.Module) -> int:
    return sum(isinstance(part, torch.nn.BatchNorm2d) for part in module.modules())


@pytest.mark.parametrize("trunk", ["cs3darknet_focus_s", "regnetx_002", "resnet10t"])
def test_features_stay(trunk: str) -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model(trunk, num_classes=8)
    for part in model.modules():  # as after training
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(std=0.3)
            part.running_var.uniform_(0.3, 3.0)
            torch.nn.init.normal_(part.bias, std=0.3)
            torch.nn.init.uniform_(part.weight, 0.5, 2.0)
    folded, pixels = copy.deepcopy(model.eval()), torch.randn(2, 3, 96, 96)
    fold_batch_norms(folded)
    with torch.inference_mode():
        expected, actual = model(pixels), folded(pixels)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    if trunk == "cs3darknet_focus_s":  # the others keep norms outside timm's units
        assert batch_norms(model) and not batch_norms(folded)


def test_features_of_an_efficientnet_stay() -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0", num_classes=8)
    for part in model.modules():  # as after training
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(std=0.3)
            part.running_var.uniform_(0.3, 3.0)
            torch.nn.init.normal_(part.bias, std=0.3)
    folded, pixels = copy.deepcopy(model.eval()), torch.randn(2, 3, 96, 96)
    fold_in_order(folded)
    with torch.inference_mode():
        expected, actual = model(pixels), folded(pixels)
        (expected_cells,), (cells,) = (
            tower.forward_intermediates(pixels, indices=[3], intermediates_only=True)
            for tower in (model, folded)
        )
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    torch.testing.assert_close(cells, expected_cells, rtol=1e-4, atol=1e-4 * float(cells.abs().max()))
    assert batch_norms(model) == 49 and not batch_norms(folded)


def test_bundled_tower_has_none_left() -> None:
    clip = make_clip(ClipConfig(model="bundled"), "cpu")
    assert not batch_norms(clip._model.visual)
