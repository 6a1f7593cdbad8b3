"""Batch normalisation folded into the convolution before it: one pass over the activations less per layer."""

from __future__ import annotations

from itertools import pairwise

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


def fold_in_order(tower: torch.nn.Module) -> None:
    """Folds each batch norm that a module holds right after a convolution, as those of EfficientNet do.

    Only for towers that call their layers in the order in which they hold them.

    Args:
        tower: in eval mode, changed in place.
    """
    from timm.layers import BatchNormAct2d

    for unit in list(tower.modules()):
        for (at, conv), (after, norm) in pairwise(list(unit.named_children())):
            if isinstance(conv, torch.nn.Conv2d) and isinstance(norm, BatchNormAct2d):
                setattr(unit, at, fuse_conv_bn_eval(conv, norm))
                setattr(unit, after, norm.act)
