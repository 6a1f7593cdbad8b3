"""Adam on the Gaussians that a view shows."""

from __future__ import annotations

import pytest
import torch

from ovs3d_ros.mapping.adam import RowAdam, _update, _update_on_cpu

SHAPES = dict(means=(7, 3), opacity_logits=(7,), sh_rest=(7, 3, 3), nothing=(7, 0, 3))
RATES = dict(means=0.1, opacity_logits=0.02, sh_rest=0.003, nothing=0.1)


def make_params() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {n: torch.randn(shape, generator=generator).requires_grad_() for n, shape in SHAPES.items()}


def set_gradients(params: dict[str, torch.Tensor], step: int, visible: torch.Tensor) -> None:
    """Gradients as a view gives them: none to rows that it does not show."""
    generator = torch.Generator().manual_seed(100 + step)
    for p in params.values():
        p.grad = torch.randn(p.shape, generator=generator) * visible.view(-1, *[1] * (p.dim() - 1))


def test_steps_on_all_rows_are_those_of_torch():
    params, others = make_params(), make_params()
    groups = [dict(params=[p], lr=RATES[n]) for n, p in others.items() if p.numel()]
    ours, theirs = RowAdam(), torch.optim.Adam(groups, eps=1e-15)
    visible = torch.ones(7, dtype=torch.bool)
    for step in range(20):
        set_gradients(params, step, visible)
        set_gradients(others, step, visible)
        ours.step(params, RATES, visible)
        theirs.step()
    for name, p in params.items():
        torch.testing.assert_close(p, others[name], atol=2e-6, rtol=1e-5)
        assert p.grad is None


def test_rows_out_of_view_stay_and_come_back_with_steps_of_the_usual_size():
    params, adam, everywhere = make_params(), RowAdam(), torch.ones(7, dtype=torch.bool)
    for step in range(1000):
        set_gradients(params, step, everywhere)
        adam.step(params, RATES, everywhere)
    states = params, adam.means, adam.squares
    before = [{n: t.detach().clone() for n, t in state.items()} for state in states]
    visible = torch.tensor([True, True, False, False, False, True, True])
    for step in range(1000, 5000):
        set_gradients(params, step, visible)
        adam.step(params, RATES, visible)
    for state, old in zip(states, before, strict=True):
        for name in state:
            assert torch.equal(state[name][2:5], old[name][2:5])
            assert not state[name].numel() or not torch.equal(state[name][:2], old[name][:2])
    for step in range(5000, 5010):
        start = params["means"].detach().clone()
        set_gradients(params, step, everywhere)
        adam.step(params, RATES, everywhere)
        moved = (params["means"].detach() - start)[2:5].abs()
        assert moved.max() < 1.5 * RATES["means"]  # torch's Adam: 3.6 times the rate


@pytest.mark.parametrize("shape", [(500, 3), (500,), (500, 15, 3), (500, 0, 3), (0, 3)])
def test_kernel_and_tensor_operations_agree(shape):
    torch.manual_seed(1)
    visible, gradient = torch.rand(shape[0]) < 0.5, torch.randn(shape)
    start = torch.randn(shape), torch.randn(shape), torch.rand(shape)
    results = []
    for update in (_update, _update_on_cpu):
        p, *moments = (t.clone() for t in start)
        update(visible, p, gradient, tuple(moments), 0.01, 1.3)
        results.append((p, *moments))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
