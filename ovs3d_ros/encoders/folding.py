"""Batch normalisation folded into the convolution before it: one pass over the activations less per layer."""

from __future__ import annotations

import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(tower: torch.nn.Module) -> None:
    """Folds the batch norms in timm's units of convolution, norm and activation; other layers stay.

    In eval mode a batch norm is a scale and a shift per channel, so the results change by rounding only.

    Args:
        tower: in eval mode, changed in place.
    """
    from timm.layers import BatchNormAct2d, ConvNormAct

    for unit in tower.modules():
        if isinstance(unit, ConvNormAct) and isinstance(unit.bn, BatchNormAct2d):
            unit.conv, unit.bn = fuse_conv_bn_eval(unit.conv, unit.bn), unit.bn.act
