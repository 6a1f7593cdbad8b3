"""The CPU rasterizer against the float64 reference: images, gradients, awkward scenes, bad input."""

from __future__ import annotations

import math
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
    render_with_gradients,
)

from ovs3d_ros.rasterize import Splats, Views, make_rasterizer, reference, validation
from ovs3d_ros.types import UserError

CPU = make_rasterizer("cpu", threads=2)


def assert_matches_reference(scene: Scene, image_error: float = 1e-5, gradient_error: float = 1e-5) -> None:
    edge = on_an_edge(scene)
    assert edge.float().mean() < 0.02, "too few pixels left to compare"
    scene.v_image = scene.v_image * ~edge
    scene.v_alphas = scene.v_alphas * ~edge
    image, alphas, gradients = render_with_gradients(CPU, scene, torch.float32)
    true_image, true_alphas, true_gradients = render_with_gradients(reference.rasterize, scene, torch.float64)
    assert image.shape == true_image.shape and alphas.shape == true_alphas.shape
    assert ((image - true_image) * ~edge).abs().max() <= image_error
    assert ((alphas - true_alphas) * ~edge).abs().max() <= image_error
    errors = {name: relative_error(gradients[name], true_gradients[name]) for name in NAMES}
    assert max(errors.values()) <= gradient_error, errors


@pytest.mark.parametrize("channels", [1, 3, 16, 32])
def test_image_and_gradients_match_the_reference(channels: int) -> None:
    assert_matches_reference(make_scene(channels=channels))


def test_channels_beyond_one_pass() -> None:
    assert_matches_reference(make_scene(count=100, channels=35, size=(40, 24)))


def test_several_cameras_and_partial_tiles() -> None:
    eyes = ((0.0, 0.0, 0.0), (1.5, -0.5, 0.5), (-3.0, 0.3, 3.0))
    assert_matches_reference(make_scene(size=(37, 21), eyes=eyes, seed=1))


def test_camera_inside_the_cloud_with_gaussians_behind_it() -> None:
    scene = make_scene(size=(40, 30), eyes=((0.1, 0.0, 2.9),), seed=2, extent=1.5)
    assert_matches_reference(scene, gradient_error=3e-5)


def test_gradient_of_gaussians_outside_the_field_of_view() -> None:
    # Wide, flat Gaussians far off-axis: their Jacobian is evaluated at the clamped point.
    scene = make_scene(count=120, size=(40, 30), seed=3, extent=3.0)
    scene.splats.scales.mul_(4.0)
    assert_matches_reference(scene)


def test_saturated_opacities() -> None:
    scene = make_scene(count=200, size=(48, 32), seed=4, opacity_range=(0.97, 0.99999))
    assert_matches_reference(scene, gradient_error=1e-3)


def test_result_is_independent_of_threads_and_run() -> None:
    scene = make_scene(channels=4, size=(70, 50))
    image, _, gradients = render_with_gradients(CPU, scene, torch.float32)
    again, _, gradients_again = render_with_gradients(CPU, scene, torch.float32)
    assert torch.equal(image, again)
    assert all(torch.equal(gradients[name], gradients_again[name]) for name in NAMES)
    for threads in (1, 3):
        other, _, gradients_other = render_with_gradients(
            make_rasterizer("cpu", threads), scene, torch.float32
        )
        assert torch.equal(image, other)
        assert all(relative_error(gradients_other[name], gradients[name].double()) < 1e-5 for name in NAMES)


def test_color_gradient_alone_equals_that_of_the_full_pass() -> None:
    scene = make_scene(channels=5, eyes=((0.0, 0.0, 0.0), (0.5, 0.0, 0.2)))
    *_, gradients = render_with_gradients(CPU, scene, torch.float32)
    colors = scene.colors.clone().requires_grad_()
    image, _, meta = CPU(scene.splats, colors, scene.views)
    (image * scene.v_image).sum().backward()
    assert relative_error(colors.grad, gradients["colors"].double()) < 1e-6
    assert not meta["means2d_absgrad"].any()


def gradient_of_viewmats(rasterizer, scene: Scene, dtype: torch.dtype) -> torch.Tensor:
    viewmats = scene.views.viewmats.clone().requires_grad_()
    views = replace(scene.views, viewmats=viewmats)
    image, alphas = rasterizer(convert_splats(scene.splats, dtype), scene.colors.to(dtype), views)[:2]
    (v_image, v_alphas) = scene.v_image.to(dtype), scene.v_alphas.to(dtype)
    return torch.autograd.grad((image * v_image).sum() + (alphas * v_alphas).sum(), viewmats)[0]


@pytest.mark.parametrize("channels", [2, 16])
def test_gradient_of_the_view_matrices_matches_the_reference(channels: int) -> None:
    scene = make_scene(channels=channels, eyes=((0.0, 0.0, 0.0), (1.5, -0.5, 0.5)), extent=1.5)
    scene.splats.scales.mul_(torch.tensor([4.0, 1.0, 0.3]))  # needles, some beyond the field of view
    edge = on_an_edge(scene)
    scene.v_image, scene.v_alphas = scene.v_image * ~edge, scene.v_alphas * ~edge
    gradient = gradient_of_viewmats(CPU, scene, torch.float32)
    truth = gradient_of_viewmats(reference.rasterize, scene, torch.float64)
    assert gradient.dtype == torch.float64 and not gradient[:, 3].any()
    for camera in range(2):
        assert relative_error(gradient[camera], truth[camera]) < 1e-5
    assert torch.equal(gradient, gradient_of_viewmats(CPU, scene, torch.float32))


def test_alphas_alone_reach_the_geometry() -> None:
    scene = make_scene(channels=2)
    scene.v_image.zero_()
    assert_matches_reference(scene)


def test_empty_map_and_empty_view_render_black() -> None:
    for scene in (make_scene(count=0), make_scene(eyes=((0.0, 0.0, 20.0),))):
        scene.views = make_scene(count=0).views
        scene.views.viewmats[:, 2, 3] -= 20.0
        image, alphas, gradients = render_with_gradients(CPU, scene, torch.float32)
        assert not image.any() and not alphas.any()
        assert all(not gradient.any() for gradient in gradients.values())


def test_one_pixel() -> None:
    scene = make_scene(count=40, channels=2, size=(1, 1), seed=5)
    assert_matches_reference(scene)


def test_one_gaussian_matches_hand_computed_values() -> None:
    # Isotropic, sigma 0.1 m at 2 m, focal 20 px: 1 px, plus 0.3 px^2 of low-pass. Colour 2, opacity 0.5.
    K = torch.tensor([[[20.0, 0, 4.5], [0, 20.0, 4.5], [0, 0, 1]]])
    splats = Splats(
        means=torch.tensor([[0.0, 0.0, 2.0]]),
        quats=torch.tensor([[2.0, 0.0, 0.0, 0.0]]),
        scales=torch.full((1, 3), 0.1),
        opacities=torch.tensor([0.5]),
    )
    image, alphas, meta = CPU(splats, torch.tensor([[2.0]]), Views(torch.eye(4)[None], K, 9, 9))
    assert image[0, 4, 4, 0] == pytest.approx(1.0, abs=1e-6)  # the centre of pixel 4 lies at 4.5
    assert image[0, 4, 6, 0] == pytest.approx(math.exp(-0.5 * 4 / 1.3), abs=1e-6)
    assert alphas[0, 4, 6, 0] == pytest.approx(0.5 * math.exp(-0.5 * 4 / 1.3), abs=1e-6)
    assert meta["means2d"][0, 0].tolist() == [4.5, 4.5]
    assert meta["depths"][0, 0] == 2.0
    assert meta["radii"][0, 0].tolist() == [math.ceil(math.sqrt(2 * math.log(127.5)) * math.sqrt(1.3))] * 2


def test_absolute_gradient_of_means2d_matches_a_sum_over_pixels() -> None:
    scene = make_scene(count=12, channels=2, size=(20, 16), seed=6)
    leaves = scene.leaves()
    image, _, meta = CPU(Splats(*leaves[:4]), leaves[4], scene.views)
    (image * scene.v_image).sum().backward()

    splats = convert_splats(scene.splats, torch.float64)
    projection = reference.project(splats, scene.views)
    means2d = projection.means2d.requires_grad_()
    weights, _ = reference.compositing_weights(
        projection._replace(means2d=means2d), splats.opacities, scene.views.width, scene.views.height
    )
    per_pixel = ((weights @ scene.colors.double()) * scene.v_image[0].reshape(-1, 2)).sum(1)
    expected = sum(torch.autograd.grad(p, means2d, retain_graph=True)[0].abs() for p in per_pixel)
    assert relative_error(meta["means2d_absgrad"][0], expected) < 1e-4


def test_image_changed_in_place_before_backward_is_an_error() -> None:
    scene = make_scene(count=20)
    leaves = scene.leaves()
    image, _, _ = CPU(Splats(*leaves[:4]), leaves[4], scene.views)
    image.mul_(2.0)
    with pytest.raises(RuntimeError, match="inplace"):
        image.sum().backward()


@pytest.mark.parametrize("position", range(5))
def test_nan_is_named(position: int) -> None:
    scene = make_scene(count=20)
    (*scene.splats.tensors, scene.colors)[position].view(-1)[7] = math.nan
    with pytest.raises(UserError, match=f"{NAMES[position]} has 1 values that are not finite"):
        CPU(scene.splats, scene.colors, scene.views)


def test_values_are_checked_on_the_cpu_only() -> None:
    """A check of values would wait for a GPU. Meta tensors stand in for it: reading one raises an error."""
    scene = make_scene(count=20)
    splats, views = convert_splats(scene.splats, "meta"), scene.views
    validation.check_splats(splats)
    validation.check_colors(scene.colors.to("meta"), None, 20)
    validation.check_views(replace(views, viewmats=views.viewmats.to("meta"), Ks=views.Ks.to("meta")))
    with pytest.raises(UserError, match=r"opacities has shape \[19\]"):
        validation.check_splats(replace(splats, opacities=splats.opacities[:19]))


def test_meta_of_each_camera_equals_a_render_of_it_alone() -> None:
    scene = make_scene(eyes=EYES)
    meta = CPU(scene.splats, scene.colors, scene.views)[2]
    for c, view in enumerate(scene.views):
        for name, tensor in CPU(scene.splats, scene.colors, view)[2].items():
            assert torch.equal(meta[name][c], tensor[0]), name


def test_bad_cameras_and_shapes_are_named() -> None:
    scene = make_scene(count=20)
    splats, colors, views = scene.splats, scene.colors, scene.views

    def assert_refused(message: str, splats=splats, colors=colors, views=views) -> None:
        with pytest.raises(UserError, match=message):
            CPU(splats, colors, views)

    assert_refused("Ks gets no gradient", views=replace(views, Ks=views.Ks.clone().requires_grad_()))
    assert_refused(
        "viewmats has 16 values that are not finite", views=replace(views, viewmats=views.viewmats * math.nan)
    )
    none = replace(views, viewmats=views.viewmats[:0], Ks=views.Ks[:0])
    assert_refused(r"viewmats has shape \[0, 4, 4\], expected \[1, 4, 4\]", views=none)
    assert_refused(r"colors has shape \[19, 3\], expected \[20, 3\]", colors=colors[:19])
    assert_refused("got tensors on meta: move them to the CPU", colors=colors.to("meta"))
    double = replace(splats, opacities=splats.opacities.double())
    assert_refused(r"opacities is torch\.float64", splats=double)
    for axis in (0, 1):
        mirrored = views.Ks.clone()
        mirrored[-1, axis, axis] *= -1
        assert_refused("focal length", views=replace(views, Ks=mirrored))
    assert_refused("image size 0x48", views=replace(views, width=0))


def test_unknown_rasterizer_is_named() -> None:
    with pytest.raises(UserError, match="'cpu' or 'gsplat'"):
        make_rasterizer("opengl")
