"""Labels that share the pixels: the kernel against one blended channel per label."""

from __future__ import annotations

import pytest
import torch
from helpers.rasterize_oracle import EYES, Scene, convert_splats, make_scene, on_an_edge

from ovs3d_ros.rasterize import LabelShares, Splats, Views, make_rasterizer, reference
from ovs3d_ros.rasterize.labels import blend_shares
from ovs3d_ros.types import UserError

CPU = make_rasterizer("cpu", threads=2)
SHARES = "most", "labelled", "score", "alpha"


def render_exactly(splats: Splats, colors: torch.Tensor, views: Views) -> tuple:
    return *reference.rasterize(convert_splats(splats, torch.float64), colors.double(), views), {}


def label(scene: Scene, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels up to `most`, a third of them 0, and scores."""
    generator, count = torch.Generator().manual_seed(3), len(scene.splats)
    labels = torch.randint(0, most + 1, (count,), generator=generator)
    labels[::3] = 0
    return labels, torch.rand(count, generator=generator)


@pytest.mark.parametrize("most", [1, 6, 50])
@pytest.mark.parametrize("kind", [torch.int64, torch.int16])
def test_shares_are_those_of_blended_channels(most: int, kind: torch.dtype) -> None:
    scene = make_scene(eyes=EYES, size=(45, 35))
    labels, scores = label(scene, most)
    ours = CPU.share_labels(scene.splats, labels.to(kind), scores, scene.views)
    exact = blend_shares(render_exactly, scene.splats, labels, scores, scene.views)
    inside = ~on_an_edge(scene)[..., 0] & (exact.best > 0)
    for name in SHARES:
        difference = (getattr(ours, name) - getattr(exact, name)).abs()
        assert difference[inside].max() < 1e-5, name
    assert ours.best.shape == (2, 35, 45) and ours.best.dtype == torch.int32
    assert ours.best.unique().numel() > min(most, 4)
    blended = blend_shares(CPU, scene.splats, labels, scores, scene.views)
    clear = (blended.most - second_share(scene, labels)) > 1e-6  # not nearly equal to another
    assert (ours.best == blended.best)[clear].all() and clear[blended.best > 0].float().mean() > 0.8
    assert ((ours.best > 0) == (blended.best > 0)).all()
    for name in SHARES[:-1]:
        torch.testing.assert_close(getattr(ours, name), getattr(blended, name), rtol=1e-5, atol=1e-6)


def second_share(scene: Scene, labels: torch.Tensor) -> torch.Tensor:
    """The second largest share of a label [C, H, W]."""
    channels = (labels[:, None] == torch.arange(1, int(labels.max()) + 2)).float()
    return CPU(scene.splats, channels, scene.views)[0].topk(2, dim=-1).values[..., 1]


def test_without_labels_nothing_is_best() -> None:
    scene = make_scene(eyes=EYES)
    nothing, scores = torch.zeros(len(scene.splats), dtype=torch.int64), torch.ones(len(scene.splats))
    for shares in (
        CPU.share_labels(scene.splats, nothing, scores, scene.views),
        blend_shares(CPU, scene.splats, nothing, scores, scene.views),
    ):
        assert isinstance(shares, LabelShares) and shares.best.shape == (2, *shares.alpha.shape[1:])
        assert not any(getattr(shares, name).any() for name in ("best", "most", "labelled", "score"))


def test_results_do_not_depend_on_the_run_or_the_threads() -> None:
    scene = make_scene(eyes=EYES, size=(70, 50))
    labels, scores = label(scene, 5)
    first = CPU.share_labels(scene.splats, labels, scores, scene.views)
    for other in (CPU, make_rasterizer("cpu", threads=1)):
        again = other.share_labels(scene.splats, labels, scores, scene.views)
        assert all(torch.equal(getattr(first, n), getattr(again, n)) for n in ("best", *SHARES))


def test_bad_labels_are_refused() -> None:
    scene = make_scene()
    labels, scores = label(scene, 2)
    for wrong in (labels.float(), labels[1:], labels[:, None]):
        with pytest.raises(UserError, match="labels are"):
            CPU.share_labels(scene.splats, wrong, scores, scene.views)
    with pytest.raises(UserError, match="negative"):
        CPU.share_labels(scene.splats, labels - 1, scores, scene.views)
    with pytest.raises(UserError, match="scores has"):
        CPU.share_labels(scene.splats, labels, scores.log() * torch.inf, scene.views)
