"""The gsplat rasterizer: it agrees with the CPU rasterizer and keeps no memory after a step."""

from __future__ import annotations

import sys
import weakref
from dataclasses import replace

import pytest
import torch
from helpers.rasterize_oracle import (
    EYES,
    NAMES,
    Scene,
    convert_splats,
    make_scene,
    on_an_edge,
    relative_error,
)

from ovs3d_ros.rasterize import Rasterizer, Splats, make_rasterizer
from ovs3d_ros.types import UserError

CPU = make_rasterizer("cpu", threads=2)


@pytest.fixture(scope="module")
def gsplat() -> Rasterizer:
    return make_rasterizer("gsplat")


def on_gpu(scene: Scene) -> Scene:
    views = replace(scene.views, viewmats=scene.views.viewmats.cuda(), Ks=scene.views.Ks.cuda())
    tensors = (tensor.cuda() for tensor in (scene.v_image, scene.v_alphas))
    return Scene(convert_splats(scene.splats, "cuda"), scene.colors.cuda(), views, *tensors)


def render(rasterizer: Rasterizer, scene: Scene, sh: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Image, alphas, absolute gradients on screen and all other gradients of the scene's loss, on the CPU.

    Harmonics, if given, replace the first three channels of the scene's colors.
    """
    leaves = [*scene.leaves(), scene.views.viewmats.float().clone().requires_grad_()]
    names = [*NAMES, "viewmats"]
    if sh is not None:
        leaves[4] = scene.colors[:, 3:].clone().requires_grad_()
        leaves.append(sh.to(leaves[0].device).clone().requires_grad_())
        names.append("sh")
    *geometry, colors, viewmats = leaves[:6]
    views = replace(scene.views, viewmats=viewmats)
    image, alphas, meta = rasterizer(Splats(*geometry), colors, views, *leaves[6:])
    ((image * scene.v_image).sum() + (alphas * scene.v_alphas).sum()).backward()
    results = {"image": image, "alphas": alphas, "absgrad": meta["means2d_absgrad"]}
    results.update((name, leaf.grad) for name, leaf in zip(names, leaves, strict=True))
    return {name: tensor.detach().cpu() for name, tensor in results.items()}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gsplat_without_a_gpu_is_rejected() -> None:
    with pytest.raises(UserError, match=r"needs an NVIDIA GPU, .* choose the rasterizer 'cpu'"):
        make_rasterizer("gsplat")


@pytest.mark.parametrize(
    "backend, message",
    [
        (
            "print('gsplat will be disabled'); _C = None",
            "no CUDA toolkit .* install nvcc .* or choose the rasterizer 'cpu'",
        ),
        ("raise OSError('nvcc said no')", "cannot compile its kernels: nvcc said no"),
        ("import jaxtyping_of_no_machine", "cannot be imported .*: pip install gsplat"),
    ],
)
def test_missing_kernels_raise_an_error_with_a_remedy(
    tmp_path, monkeypatch, capsys, backend: str, message: str
) -> None:
    """A fake gsplat acts as on a machine with a GPU driver but with no CUDA toolkit, or with a broken one."""
    (tmp_path / "gsplat" / "cuda").mkdir(parents=True)
    for folder in ("gsplat", "gsplat/cuda"):
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "gsplat" / "cuda" / "_backend.py").write_text(backend)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in [name for name in sys.modules if name.split(".")[0] == "gsplat"]:
        monkeypatch.delitem(sys.modules, name)
    try:
        with pytest.raises(UserError, match=message):
            make_rasterizer("gsplat")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "gsplat"]:
            del sys.modules[name]
    assert capsys.readouterr().out == ""


@pytest.mark.gpu
@pytest.mark.parametrize("channels, coefficients", [(3, 0), (16, 0), (4, 4), (3, 16)])
def test_gsplat_agrees_with_the_cpu(gsplat: Rasterizer, channels: int, coefficients: int) -> None:
    scene = make_scene(channels=channels, eyes=EYES)
    keep = ~on_an_edge(scene)
    assert keep.float().mean() > 0.99
    scene.v_image, scene.v_alphas = scene.v_image * keep, scene.v_alphas * keep
    sh = torch.randn(len(scene.splats), coefficients, 3) * 0.3 if coefficients else None
    expected, found = render(CPU, scene, sh), render(gsplat, on_gpu(scene), sh)
    for name in ("image", "alphas"):
        assert ((expected.pop(name) - found[name]) * keep).abs().max() < 1e-4
    for name, truth in expected.items():
        assert relative_error(found[name], truth.double()) < 1e-3, name


@pytest.mark.gpu
def test_gsplat_lift_agrees_with_the_cpu(gsplat: Rasterizer) -> None:
    scene = make_scene(channels=16, eyes=EYES)
    factors = (scene.v_alphas * ~on_an_edge(scene))[..., 0]
    factors[:, :5] = 0.0  # invalid pixels
    expected = CPU.lift(scene.splats, scene.v_image, scene.views, factors)
    moved = on_gpu(scene)
    found = gsplat.lift(moved.splats, moved.v_image, moved.views, factors.cuda())
    for value, truth in zip(found, expected, strict=True):
        assert relative_error(value.cpu(), truth.double()) < 1e-3


@pytest.mark.gpu
@pytest.mark.parametrize("coefficients", [0, 4])
def test_empty_map_renders_black(gsplat: Rasterizer, coefficients: int) -> None:
    scene = make_scene(count=0, channels=4, eyes=EYES)
    sh = torch.zeros(0, coefficients, 3) if coefficients else None
    found, expected = render(gsplat, on_gpu(scene), sh), render(CPU, scene, sh)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    moved = on_gpu(scene)
    lifted = gsplat.lift(moved.splats, moved.v_image, moved.views)
    assert [tuple(tensor.shape) for tensor in lifted] == [(0, 4), (0,), (0,)]


@pytest.mark.gpu
def test_step_frees_its_tensors(gsplat: Rasterizer) -> None:
    scene = on_gpu(make_scene())
    leaves = scene.leaves()
    image, alphas, meta = gsplat(Splats(*leaves[:4]), leaves[4], scene.views)
    tensors = [weakref.ref(meta[name]) for name in ("means2d", "means2d_absgrad")]
    image.sum().backward()
    del image, alphas, meta
    assert not any(tensor() is not None for tensor in tensors)


@pytest.mark.gpu
def test_absgrad_is_filled_after_meta_is_dropped(gsplat: Rasterizer) -> None:
    scene = on_gpu(make_scene())
    leaves = scene.leaves()
    image, _, meta = gsplat(Splats(*leaves[:4]), leaves[4], scene.views)
    absgrad = meta["means2d_absgrad"]
    del meta
    image.sum().backward()
    assert (absgrad > 0).any()
    image = gsplat(Splats(*leaves[:4]), leaves[4], scene.views)[0]
    image.sum().backward()  # this time no caller keeps absgrad


@pytest.mark.gpu
def test_labels_share_pixels_as_on_the_cpu(gsplat: Rasterizer) -> None:
    scene = make_scene(eyes=EYES)
    labels, scores = torch.arange(len(scene.splats)) % 4, torch.rand(len(scene.splats))
    expected = CPU.share_labels(scene.splats, labels, scores, scene.views)
    there = on_gpu(scene)
    found = gsplat.share_labels(there.splats, labels.cuda(), scores.cuda(), there.views)
    keep = ~on_an_edge(scene)[..., 0] & (expected.best > 0)
    for name in ("most", "labelled", "score", "alpha"):
        assert ((getattr(expected, name) - getattr(found, name).cpu()) * keep).abs().max() < 1e-4, name
    assert ((found.best.cpu() != expected.best) & keep).float().mean() < 0.01
