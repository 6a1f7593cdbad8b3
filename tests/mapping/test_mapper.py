"""Mapping: which frames count, where Gaussians come from, and that optimising makes the map better."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from helpers import synthetic
from torch.utils._python_dispatch import TorchDispatchMode

from ovs3d_ros.evaluation.metrics import psnr_aligned
from ovs3d_ros.mapping.exposure import Exposure
from ovs3d_ros.mapping.mapper import Mapper, is_new_view, render_view
from ovs3d_ros.rasterize import make_rasterizer
from ovs3d_ros.types import Frame, Keyframe, UserError

RASTERIZER = make_rasterizer("cpu", 1)


def keyframe(frame: Frame, index: int = 0) -> Keyframe:
    depth = None if frame.depth is None else torch.from_numpy(frame.depth)
    return Keyframe(
        index, frame.stamp, frame.name, torch.from_numpy(frame.image), frame.camera, frame.camtoworld, depth
    )


def make_mapper(frames: list[Frame], **settings) -> Mapper:
    torch.manual_seed(0)
    mapper = Mapper(synthetic.make_config(**settings), RASTERIZER, "cpu")
    for index, frame in enumerate(frames):
        mapper.insert(keyframe(frame, index))
    return mapper


def psnr_of(mapper: Mapper, frame: Frame) -> float:
    view = render_view(mapper.gaussians.activated(), frame.camera, frame.camtoworld, mapper.rasterizer)
    return float(-10 * torch.log10((view.rgb - torch.from_numpy(frame.image) / 255).square().mean()))


def moved(frame: Frame, shift: float = 0.0, degrees: float = 0.0, seconds: float = 0.0) -> Frame:
    pose = frame.camtoworld.copy()
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    pose[:3, :3] = pose[:3, :3] @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    pose[0, 3] += shift
    return dataclasses.replace(frame, camtoworld=pose, stamp=frame.stamp + seconds)


@pytest.mark.parametrize(
    "move, expected",
    [
        ({}, False),
        (dict(shift=0.09), False),
        (dict(shift=0.11), True),
        (dict(degrees=4.9), False),
        (dict(degrees=5.2), True),
        (dict(degrees=-5.2), True),
        (dict(seconds=100.0), False),
        (dict(shift=0.03, seconds=2.1), True),
        (dict(shift=0.03, seconds=1.9), False),
        (dict(degrees=1.2, seconds=2.1), True),
        (dict(shift=0.01, degrees=0.5, seconds=100.0), False),  # localisation of a robot that stands still
    ],
)
def test_keyframes_come_with_motion_not_with_time_alone(move: dict, expected: bool) -> None:
    config = synthetic.make_config(
        keyframe__translation=0.05, keyframe__rotation=5.0, keyframe__max_interval=2.0
    )
    frame = synthetic.make_frame(synthetic.orbit(1)[0])
    assert is_new_view(config.keyframe, moved(frame, **move), keyframe(frame), median_depth=2.0) is expected


def test_translation_is_judged_by_the_distance_of_the_scene() -> None:
    near, far = (
        make_mapper(
            [synthetic.make_frame(synthetic.orbit(1)[0])],
            keyframe__translation=0.05,
            keyframe__rotation=180.0,
        )
        for _ in range(2)
    )
    frame = moved(synthetic.make_frame(synthetic.orbit(1)[0]), shift=0.15)
    depth = synthetic.make_frame(synthetic.orbit(1)[0]).depth
    far._median_depths = [4 * near._median_depth()]
    assert near._median_depth() == pytest.approx(float(np.median(depth)), rel=0.01)
    assert near.needs_keyframe(frame) and not far.needs_keyframe(frame)


def test_the_first_frame_is_always_wanted() -> None:
    assert make_mapper([]).needs_keyframe(synthetic.make_frame(synthetic.orbit(1)[0]))


def test_a_seeded_map_shows_the_scene_before_any_step() -> None:
    frame = synthetic.make_frame(synthetic.orbit(1)[0])
    mapper = make_mapper([frame])
    view = render_view(mapper.gaussians.activated(), frame.camera, frame.camtoworld, RASTERIZER)
    assert psnr_of(mapper, frame) > 15 and float(view.alpha.mean()) > 0.8
    error = (view.depth - torch.from_numpy(frame.depth)).abs() / torch.from_numpy(frame.depth)
    assert float(error.median()) < 0.03  # seeds are round: slanted walls blur over half a grid cell


def test_known_views_are_not_seeded_again() -> None:
    frames = synthetic.make_frames(5)
    mapper = make_mapper(frames[:1])
    first = len(mapper.gaussians)
    mapper.insert(keyframe(frames[0], 1))
    again = len(mapper.gaussians) - first
    mapper.insert(keyframe(frames[4], 2))
    new = len(mapper.gaussians) - first - again
    assert first > 1000 and again < 0.1 * first and new > 0.2 * first


def test_optimising_improves_views_that_were_not_trained_on() -> None:
    frames = synthetic.make_frames(9)
    mapper = make_mapper(frames[::2], train__densify_every=0)
    held_out = frames[3], frames[5]
    before = [psnr_of(mapper, f) for f in held_out]
    losses = [float(mapper.step().loss) for _ in range(100)]
    after = [psnr_of(mapper, f) for f in held_out]
    assert min(np.array(after) - before) > 2 and min(after) > 21
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])
    assert mapper.steps == 100 and mapper.psnr > 21


def test_depth_stays_true_while_optimising() -> None:
    frames = synthetic.make_frames(5)
    mapper = make_mapper(frames, train__densify_every=0)
    for _ in range(60):
        mapper.step()
    for frame in frames[1:4]:
        view = render_view(mapper.gaussians.activated(), frame.camera, frame.camtoworld, RASTERIZER)
        error = (view.depth - torch.from_numpy(frame.depth)).abs() / torch.from_numpy(frame.depth)
        assert float(error.median()) < 0.035 and float(view.alpha.mean()) > 0.9


def test_densification_adds_where_the_image_pulls_and_statistics_follow() -> None:
    mapper = make_mapper(
        synthetic.make_frames(3), seed__spacing=4.0, train__densify_every=40, train__densify_gradient=1e-4
    )
    before = len(mapper.gaussians)
    for _ in range(40):
        last = mapper.step()
    g = mapper.gaussians
    assert len(g) > 1.2 * before and last.num_gaussians == len(g)
    assert all(len(t) == len(g) for t in g.stats.values())
    assert (g.stats["gradient"] == 0).all()
    mapper.step()


def test_densification_ends_towards_the_horizon() -> None:
    mapper = make_mapper(
        synthetic.make_frames(2),
        train__densify_every=5,
        train__densify_gradient=0.0,
        train__prune_opacity=0.0,
    )
    mapper.steps = 79
    count = len(mapper.gaussians)
    mapper.step(horizon=100)
    assert len(mapper.gaussians) <= count


def test_learning_rates_settle_towards_the_horizon() -> None:
    mapper = make_mapper(synthetic.make_frames(1), train__densify_every=0)
    rates = {}
    for mapper.steps, horizon in ((80, 100), (100, 100), (100, None)):
        mapper.step(horizon)
        rates[mapper.steps, horizon] = {g["name"]: g["lr"] for g in mapper.gaussians._optimizer.param_groups}
    config, extent = mapper.config.train, mapper.gaussians.extent
    full = dict(
        log_scales=config.lr_scales,
        quats=config.lr_quats,
        opacity_logits=config.lr_opacities,
        sh_dc=config.lr_colors,
        sh_rest=config.lr_colors / 20,
    )
    for key, factor in (((81, 100), 1.0), ((101, 100), 0.1), ((101, None), 1.0)):
        means = rates[key].pop("means")
        assert rates[key] == pytest.approx({name: factor * rate for name, rate in full.items()})
        assert key[1] is None or means < 0.07 * config.lr_means * extent  # these fall from the start


class HostReads(TorchDispatchMode):
    """Notes what would make the host wait for a GPU: values that are read, and results as long as a mask has ones."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        masks = (
            [t for t in args[1] if t is not None and t.dtype == torch.bool]
            if name.startswith("index")
            else []
        )
        if masks or name in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal"):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def test_the_pull_on_a_gaussian_is_summed_over_the_views_that_saw_it() -> None:
    mapper = make_mapper(synthetic.make_frames(1))
    visible = torch.arange(len(mapper.gaussians)) < 2
    absgrad = torch.zeros(len(visible), 2)
    absgrad[0] = torch.tensor([3.0, 4.0])
    for side in (100, 200):
        mapper._record_gradient(absgrad, visible, side)
    stats = mapper.gaussians.stats
    assert stats["gradient"][:3].tolist() == [5 * 50 + 5 * 100, 0, 0]
    assert torch.equal(stats["gradient_count"], 2.0 * visible)


def test_psnr_is_a_running_mean() -> None:
    mapper = make_mapper(synthetic.make_frames(2))
    assert np.isnan(mapper.psnr)
    first = float(mapper.step().psnr)
    assert mapper.psnr == pytest.approx(first)
    second = float(mapper.step().psnr)
    assert mapper.psnr == pytest.approx(0.95 * first + 0.05 * second)
    assert second != pytest.approx(first, rel=1e-3)


def test_a_step_reads_no_value() -> None:
    mapper = make_mapper(synthetic.make_frames(3), train__densify_every=0)
    mapper.step()
    with HostReads() as reads:

        def rasterize(*arguments, **options):
            before = list(reads.found)
            result = RASTERIZER(*arguments, **options)
            reads.found[:] = before  # it is on the CPU, where looking costs nothing
            return result

        mapper.rasterizer = rasterize
        stats = mapper.step()
        assert reads.found == []
        assert float(stats.psnr) > 5 and reads.found == ["_local_scalar_dense"]


@pytest.mark.parametrize("term", ["ssim_weight", "depth_weight"])
def test_every_term_of_the_loss_counts(term: str) -> None:
    frames = synthetic.make_frames(1)
    with_it, without = (
        make_mapper(frames, **{f"train__{term}": weight}).step().loss for weight in (0.5, 0.0)
    )
    assert with_it > without + 0.01


def test_transparent_gaussians_and_fog_are_pruned() -> None:
    mapper = make_mapper(synthetic.make_frames(1), train__densify_every=1, train__densify_gradient=1e9)
    with torch.no_grad():
        mapper.gaussians.params["opacity_logits"][:50] = -9.0
        mapper.gaussians.params["log_scales"][50:60] = np.log(mapper.gaussians.extent)
    count = len(mapper.gaussians)
    mapper.step()
    assert len(mapper.gaussians) == count - 60


def test_what_a_loaded_map_holds_is_no_fog() -> None:
    mapper = make_mapper(synthetic.make_frames(1), train__densify_every=1, train__densify_gradient=1e9)
    params = {name: p.detach().clone() for name, p in mapper.gaussians.params.items()}
    params["log_scales"][:10] = np.log(3 * mapper.gaussians.extent)
    mapper.load_params(params)
    mapper.step()
    assert len(mapper.gaussians) == len(params["means"])


def test_the_cap_holds_through_seeding_and_densification() -> None:
    frames = synthetic.make_frames(5)
    mapper = make_mapper(
        frames[:1], map__max_gaussians=600, train__densify_every=3, train__densify_gradient=0.0
    )
    assert len(mapper.gaussians) == 600
    for index, frame in enumerate(frames[1:], start=1):
        mapper.insert(keyframe(frame, index))
        assert len(mapper.gaussians) <= 600
        for _ in range(4):
            mapper.step()
            assert len(mapper.gaussians) <= 600
    assert len(mapper.gaussians) > 500


def test_at_the_cap_the_least_contributing_make_room() -> None:
    mapper = make_mapper(synthetic.make_frames(1), map__max_gaussians=600)
    g = mapper.gaussians
    with torch.no_grad():
        g.params["opacity_logits"][:30] = -8.0
        g.params["log_scales"][30:60] = -12.0
    g.stats["tag"] = torch.arange(600.0)
    mapper._add((torch.randn(60, 3), torch.rand(60, 3), torch.full((60,), 0.01)), 0.5)
    assert len(g) == 600
    assert sorted(g.stats["tag"].tolist()) == [0.0] * 60 + list(range(60, 600))


def test_a_lowered_cap_is_reached() -> None:
    mapper = make_mapper(synthetic.make_frames(1))
    assert len(mapper.gaussians) > 1000
    mapper.config = synthetic.make_config(map__max_gaussians=300)
    mapper._add((torch.randn(50, 3), torch.rand(50, 3), torch.full((50,), 0.01)), 0.5)
    assert len(mapper.gaussians) <= 300


def test_points_seed_the_map_too() -> None:
    mapper = make_mapper([])
    rng = np.random.default_rng(0)
    mapper.insert_points(rng.uniform(-1, 1, (200, 3)), rng.integers(0, 255, (200, 3), dtype=np.uint8))
    assert len(mapper.gaussians) == 200


def test_exposure_is_told_from_the_scene() -> None:
    """Half of the views are darker: each learns its gain, and the map keeps the mean of the exposures."""
    frames = synthetic.make_frames(4, camera=synthetic.make_camera(40, 30))
    dark = [
        f if i % 2 == 0 else dataclasses.replace(f, image=(f.image * 0.7).astype(np.uint8))
        for i, f in enumerate(frames)
    ]
    errors = {}
    for exposure in (True, False):
        mapper = make_mapper(dark, train__densify_every=0, train__exposure=exposure)
        for _ in range(160):
            mapper.step()
        view = render_view(mapper.gaussians.activated(), frames[0].camera, frames[0].camtoworld, RASTERIZER)
        errors[exposure] = psnr_aligned(view.rgb, frames[0].image)
        rows = torch.stack([mapper._exposure.of(index).detach() for index in range(4)])
        gains = (rows[:, 0].exp() + rows[:, 1] / 0.5).mean(-1)  # at mid grey
        if exposure:
            assert 0.6 < float(gains[1] / gains[0]) < 0.8 and 0.6 < float(gains[3] / gains[2]) < 0.8
            assert abs(float(gains.log().mean())) < 0.05
        else:
            assert (gains == 1).all()
    assert errors[True] > errors[False] + 1


def test_exposures_are_relative_to_their_mean() -> None:
    """What brightens one keyframe darkens the others: the brightness of the map itself is not up for grabs."""
    exposure = Exposure("cpu")
    for _ in range(3):
        exposure.grow()
    for _ in range(20):
        (exposure.apply(torch.full((1, 1, 3), 0.5), 0) - 0.9).square().sum().backward()
        exposure.step(0, decay=1.0)
    rows = torch.stack([exposure.of(index).detach() for index in range(3)])
    assert (rows[0] > 0.05).all() and (rows[1:] < -0.02).all()
    assert rows.mean(0).abs().max() < 1e-6


def test_newest_keyframe_gets_its_share() -> None:
    mapper = make_mapper(synthetic.make_frames(8), train__newest_share=0.5)
    picks = np.array([mapper._pick() for _ in range(400)])
    share = (picks == 7).mean()
    assert 0.45 < share < 0.68 and len(np.unique(picks)) == 8  # half, plus an eighth of the other half
    mapper._visits[-1] = 10_000  # it has had enough: replay only
    assert (np.array([mapper._pick() for _ in range(400)]) == 7).mean() < 0.25


def test_a_map_of_images_alone_grows_from_matches() -> None:
    camera = synthetic.make_camera(160, 120)
    eyes = [(x, -0.25, 1.5) for x in (-0.3, -0.1, 0.1, 0.3)]
    frames = []
    for index, eye in enumerate(eyes):
        pose = synthetic.look_at(eye, (0, 0.1, 0))
        frames.append(
            Frame(float(index), synthetic.textured_plane(camera, pose)[0], camera, pose, name=f"f{index}")
        )
    mapper = make_mapper(frames, seed__spacing=4.0)
    assert mapper._median_depth() == pytest.approx(1.57, rel=0.15)
    before = psnr_of(mapper, frames[1])
    for _ in range(30):
        mapper.step()
    view = render_view(mapper.gaussians.activated(), camera, frames[1].camtoworld, RASTERIZER)
    truth = torch.from_numpy(synthetic.textured_plane(camera, frames[1].camtoworld)[1])
    assert psnr_of(mapper, frames[1]) > before + 1
    assert float(((view.depth - truth).abs() / truth)[view.alpha > 0.5].median()) < 0.1


def test_views_without_matches_or_depth_start_from_random_depth() -> None:
    frames = [
        dataclasses.replace(f, depth=None, image=np.full_like(f.image, 128)) for f in synthetic.make_frames(4)
    ]
    mapper = make_mapper(frames)
    assert len(mapper.gaussians) > 0
    mapper.step()


def test_coarse_level_is_the_same_view() -> None:
    from ovs3d_ros.mapping.mapper import _at_level

    camera, pose = synthetic.make_camera(128, 96), synthetic.orbit(3)[0]
    frame = keyframe(synthetic.make_frame(pose, camera=camera))
    half, image, depth = _at_level(frame, coarse=True)
    rgb, z, _ = synthetic.cast(half, pose)
    assert image.shape == (48, 64, 3) and depth.shape == (48, 64)
    assert float((image - torch.from_numpy(rgb) / 255).abs().mean()) < 0.02
    assert float(((depth - torch.from_numpy(z)).abs() / torch.from_numpy(z)).median()) < 0.01
    assert torch.equal(_at_level(frame, coarse=False)[1], frame.image.float() / 255)


def test_the_same_seed_and_threads_give_the_same_map_to_the_bit() -> None:
    maps = []
    for _ in range(2):
        mapper = make_mapper(synthetic.make_frames(3), train__densify_every=10, train__densify_gradient=1e-4)
        mapper.rasterizer = make_rasterizer("cpu", 2)
        for _ in range(15):
            mapper.step()
        mapper.move_keyframes({1: moved(synthetic.make_frames(3)[1], 0.1, 3.0).camtoworld})
        mapper.step()
        maps.append(mapper.gaussians.params)
    assert all(torch.equal(maps[0][name], maps[1][name]) for name in maps[0])


@pytest.mark.parametrize("degree", [0, 3])
def test_corrected_poses_move_the_gaussians_that_the_keyframes_spawned(degree: int) -> None:
    """A rigid correction of all keyframes leaves every view as it was; that of one leaves the others' Gaussians."""
    frames = synthetic.make_frames(4)
    mapper = make_mapper(
        frames[:3], map__sh_degree=degree, train__densify_every=4, train__densify_gradient=1e-4
    )
    for _ in range(8):
        mapper.step()
    with torch.no_grad():
        mapper.gaussians.params["sh_rest"].normal_(std=0.1)
        mapper.gaussians.params["quats"].add_(torch.randn(len(mapper.gaussians), 4) * 0.3)
    before = [render_view(mapper.gaussians.activated(), f.camera, f.camtoworld, RASTERIZER) for f in frames]
    motion = moved(frames[0], 0.3, 25.0).camtoworld @ np.linalg.inv(frames[0].camtoworld)
    corrected = {index: motion @ f.camtoworld for index, f in enumerate(frames[:3])}
    assert mapper.move_keyframes(corrected) == len(mapper.gaussians)
    for frame, old in zip(frames, before, strict=True):
        new = render_view(mapper.gaussians.activated(), frame.camera, motion @ frame.camtoworld, RASTERIZER)
        assert (
            float((new.rgb - old.rgb).abs().mean()) < 1e-3
            and float((new.alpha - old.alpha).abs().max()) < 2e-2
        )

    means = mapper.gaussians.params["means"].detach().clone()
    own = mapper.gaussians.stats["keyframe"] == 2
    assert mapper.move_keyframes({1: frames[1].camtoworld}) == int(own.sum()) > 0
    shifted = (mapper.gaussians.params["means"] - means).abs().amax(-1) > 1e-4
    assert torch.equal(shifted, own)
    assert np.allclose(mapper.keyframes[1].camtoworld, frames[1].camtoworld)
    mapper.step()


def test_a_robot_that_turns_to_a_wall_keeps_the_hall() -> None:
    hall = (
        synthetic.Box((0, 0, 2), (20, 20, 8), (125, 125, 125)),
        synthetic.Box((0, -0.55, 0.9), (3, 0.1, 3), (200, 40, 40)),
    )
    far, near = (
        synthetic.make_frame(synthetic.look_at([0, 0, 0.9], [0, y, 0.9]), float(y < 0), scene=hall)
        for y in (9, -9)
    )
    mapper = make_mapper([far], train__densify_every=10)
    extent = mapper.gaussians.extent
    for _ in range(3):
        mapper.insert(keyframe(near, len(mapper.keyframes)))
    assert mapper.gaussians.extent < 0.2 * extent, "most of what it sees now is near"
    for _ in range(20):
        mapper.step()
    view = render_view(mapper.gaussians.activated(), far.camera, far.camtoworld, RASTERIZER)
    assert view.alpha.mean() > 0.9
    loaded = make_mapper([])
    loaded.load_params({name: value.detach() for name, value in mapper.gaussians.params.items()})
    loaded.insert(keyframe(near))
    for _ in range(20):
        loaded.step()
    assert (
        render_view(loaded.gaussians.activated(), far.camera, far.camtoworld, RASTERIZER).alpha.mean() > 0.9
    )


def test_one_wild_pose_does_not_raise_the_learning_rates() -> None:
    frames = synthetic.make_frames(6)
    mapper = make_mapper(frames)
    before = mapper.gaussians.extent
    mapper.insert(keyframe(moved(frames[2], 100.0), 6))
    assert mapper.gaussians.extent < 1.5 * before


def test_corrections_of_several_keyframes_come_all_or_none() -> None:
    frames = synthetic.make_frames(4)
    mapper = make_mapper([*frames, *frames])  # a bag that was played twice: stamps repeat
    corrected = {4 + i: moved(frame, 0.2).camtoworld for i, frame in enumerate(frames)}
    mapper.move_keyframes(corrected)
    for index, frame in enumerate(frames):
        assert np.allclose(mapper.keyframes[index].camtoworld, frame.camtoworld)
        assert np.allclose(mapper.keyframes[4 + index].camtoworld, corrected[4 + index])
    with pytest.raises(UserError, match="pose of keyframe 1"):
        mapper.move_keyframes({0: frames[0].camtoworld, 1: 2 * frames[0].camtoworld})
    assert np.allclose(mapper.keyframes[0].camtoworld, frames[0].camtoworld)


def test_the_extent_follows_corrected_poses() -> None:
    frames = synthetic.make_frames(2)
    mapper = make_mapper(frames)
    before = mapper.gaussians.extent
    mapper.move_keyframes({1: moved(frames[1], 10.0).camtoworld})
    centers = np.stack([frames[0].camtoworld[:3, 3], moved(frames[1], 10.0).camtoworld[:3, 3]])
    spread = np.linalg.norm(centers[0] - centers[1]) / 2
    assert (
        mapper.gaussians.extent
        == pytest.approx(spread + np.median(mapper._median_depths), rel=1e-5)
        != before
    )
    assert make_mapper([]).move_keyframes({}) == 0


def test_points_belong_to_no_keyframe_and_bad_poses_change_nothing() -> None:
    mapper = make_mapper(synthetic.make_frames(1))
    mapper.insert_points(np.random.default_rng(0).uniform(-1, 1, (200, 3)), np.zeros((200, 3), np.uint8))
    pose = moved(synthetic.make_frames(1)[0], shift=1.0).camtoworld
    assert mapper.move_keyframes({0: pose}) == len(mapper.gaussians) - 200
    with pytest.raises(UserError, match="not a rotation"):
        mapper.move_keyframes({0: 2 * pose})
    assert np.array_equal(mapper.keyframes[0].camtoworld, pose)
