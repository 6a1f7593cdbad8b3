"""Training of a refined field by RDA and FDA, the losses of 3D-OVS (docs/method.md, "Training")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.config import RefineConfig
from ovs3d_ros.encoders import PatchEncoder
from ovs3d_ros.mapping.keyframe_store import Keyframes
from ovs3d_ros.mapping.keyframes import to_frame
from ovs3d_ros.rasterize import Rasterizer
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.semantics.alignment_views import make_alignment_view, same_pose, view_losses
from ovs3d_ros.types import Frame, Keyframe, MapSnapshot, RefinedField, RefineStep, UserError

_LEARNING_RATE = 0.02
_FLOOR = 1e-3  # added to distributions before the logarithm: what is ruled out can come back
_ANCHOR = 1.0  # weight of the divergence from the start


def choose_training_keyframes(keyframes: Keyframes, frames: Sequence[Frame], limit: int) -> list[Keyframe]:
    """At most `limit` keyframes to train on, evenly spaced; none of those at which the result is checked.

    Args:
        keyframes: of the map.
        frames: of the check, in the frame of the map.
        limit: their number at most.

    Raises:
        UserError: no keyframe is left.
    """
    kept = [view.camtoworld for view in keyframes.views]
    apart = [i for i, pose in enumerate(kept) if not any(same_pose(pose, f.camtoworld) for f in frames)]
    if not apart:
        raise UserError(
            f"refine.train_steps trains on keyframes that the check leaves, but of {len(keyframes)} it "
            "leaves none: map with map.keep_keyframes=true, lower refine.check_views, or set "
            "refine.train_steps to 0"
        )
    return [keyframes[apart[index]] for index in evenly_spaced_indices(len(apart), limit)]


def train_field(
    field: RefinedField,
    snapshot: MapSnapshot,
    keyframes: Sequence[Keyframe],
    rasterizer: Rasterizer,
    dino: PatchEncoder,
    config: RefineConfig,
) -> Iterator[RefineStep]:
    """Trains class distributions by gradient descent at keyframes. A generator that yields its progress.

    The parameters are one logit per Gaussian and class. A step renders the distributions at one keyframe and
    descends on L_RDA + L_FDA + KL(start || P). The last term keeps Gaussians that the views hardly show
    where they are.

    Args:
        field: where it starts.
        snapshot: the map.
        keyframes: with images and features, in the frame of the map.
        rasterizer: renders the distributions; geometry gets no gradient.
        dino: encodes the patches of the keyframes.
        config: steps, and the weights of the losses.

    Returns:
        The trained field.
    """
    views = []
    for done, keyframe in enumerate(keyframes, start=1):
        assert keyframe.crops is not None, "a keyframe without features"
        views.append(
            make_alignment_view(to_frame(keyframe), keyframe.crops, dino, field, snapshot.codec, config)
        )
        yield RefineStep("encoding", done, len(keyframes))
    start, rng = field.probabilities, np.random.default_rng(0)
    logits = (start + _FLOOR).log().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=_LEARNING_RATE)
    for step in range(1, config.train_steps + 1):
        if step % len(views) == 1 % len(views):
            order = iter(rng.permutation(len(views)))  # each view once, then again in another order
        view = views[next(order)]
        log_p = logits.log_softmax(-1)
        losses = view_losses(log_p.exp(), snapshot.gaussians, view, rasterizer, config, rng)
        anchor = F.kl_div(log_p, start, reduction="batchmean")
        optimizer.zero_grad()
        (losses["objective"] + _ANCHOR * anchor).backward()
        optimizer.step()
        figures = {name: float(loss.detach()) for name, loss in losses.items()}
        yield RefineStep("training", step, config.train_steps, figures=figures)
    return replace(field, probabilities=logits.detach().softmax(-1))
