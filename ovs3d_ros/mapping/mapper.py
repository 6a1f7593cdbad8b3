"""Online mapping with known poses: which frames become keyframes, where Gaussians appear, how they are optimised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.config import Config, KeyframeConfig
from ovs3d_ros.geometry import check_pose, invert_rigid, project, rotation_angle
from ovs3d_ros.mapping.exposure import Exposure
from ovs3d_ros.mapping.gaussians import Gaussians
from ovs3d_ros.mapping.losses import depth_l1, photometric
from ovs3d_ros.mapping.seeding import ImageMatcher, Seeds, seed_from_depth, seed_from_points, seed_random
from ovs3d_ros.rasterize import Rasterizer, Splats, Views
from ovs3d_ros.types import Camera, Frame, Keyframe

_COARSE_VISITS = (
    6  # a keyframe's first visits are trained at half resolution: four times cheaper, same gradients
)
_LAST_DECAY = 0.03  # of the learning rate of the means
_SETTLING = (
    0.8  # progress from which all other learning rates fall too, by ten: they stop jittering, not learning
)
_SETTLED_VISITS = (
    60  # while streaming, each keyframe has a decay of its own: new ones move the map, old ones settle it
)
_GUESSED_OPACITY = 0.15  # seeds at guessed depth must be easy to overrule
_OWNER = "keyframe"  # statistic: 1 + index of the keyframe that spawned a Gaussian, 0 = none
_STANDING, _STANDING_DEGREES = (
    0.01,
    1.0,
)  # of the typical depth: localisation moves a robot that stands still by less
_SPREAD = 0.9  # quantile of the cameras' distances: one wild pose must not raise the learning rates for good
_MAX_SCALE = 0.15  # of how far the map reaches: larger Gaussians are fog


@dataclass(frozen=True, slots=True)
class StepStats:
    """What one optimisation step did.

    Attributes:
        step: running number.
        loss, psnr: of that view, psnr in dB; scalars on the map's device, where the step may still be under way: to
            read them waits for it.
        num_gaussians: in the map.
    """

    step: int
    loss: torch.Tensor
    psnr: torch.Tensor
    num_gaussians: int


@dataclass(frozen=True, slots=True)
class RenderedView:
    """A rendered view.

    Attributes:
        rgb: [H, W, 3] 0..1.
        depth: [H, W] metres, blended and divided by alpha; 0 where nothing is.
        alpha: [H, W] 0..1.
    """

    rgb: torch.Tensor
    depth: torch.Tensor
    alpha: torch.Tensor


def render_view(
    gaussians: dict[str, torch.Tensor], camera: Camera, camtoworld: np.ndarray, rasterizer: Rasterizer
) -> RenderedView:
    """Renders activated Gaussians (see `Gaussians.activated`) from a camera, without gradients."""
    with torch.no_grad():
        channels, alpha, _ = _rasterize(gaussians, camera, camtoworld, rasterizer)
    depth = torch.where(alpha > 1e-3, channels[..., 3] / alpha.clamp_min(1e-3), torch.zeros_like(alpha))
    return RenderedView(rgb=channels[..., :3].clamp(0, 1), depth=depth, alpha=alpha)


def _rasterize(
    g: dict[str, torch.Tensor], camera: Camera, camtoworld: np.ndarray, rasterizer: Rasterizer
) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """RGB and blended depth as four channels [H, W, 4], alpha [H, W] and the rasterizer's meta."""
    splats, views = Splats.from_dict(g), Views.from_camera(camera, camtoworld, g["means"].device)
    z = splats.means @ views.viewmats[0, 2, :3] + views.viewmats[0, 2, 3]
    out, alphas, meta = rasterizer(splats, z[:, None], views, sh=g["sh"])
    return out[0], alphas[0, ..., 0], meta


def is_new_view(config: KeyframeConfig, frame: Frame, last: Keyframe, median_depth: float) -> bool:
    """Whether the camera moved, turned or waited enough since the last keyframe."""
    moved = np.linalg.norm(frame.camtoworld[:3, 3] - last.camtoworld[:3, 3])
    turned = np.degrees(rotation_angle(frame.camtoworld[:3, :3], last.camtoworld[:3, :3]))
    left = moved > _STANDING * median_depth or turned > _STANDING_DEGREES
    waited = frame.stamp - last.stamp > config.max_interval and left
    return bool(moved > config.translation * median_depth or turned > config.rotation or waited)


class Mapper:
    """The training state of the RGB map.

    Attributes:
        gaussians: the map.
        keyframes: what it is trained on.
        steps: optimisation steps so far.
    """

    def __init__(self, config: Config, rasterizer: Rasterizer, device: str) -> None:
        self.config = config
        self.rasterizer = rasterizer
        self.gaussians = Gaussians(config.train, config.map.sh_degree, device, config.compute.seed)
        self.keyframes: list[Keyframe] = []
        self.steps = 0
        self._psnr = torch.full((), float("nan"), device=device)
        self._rng = np.random.default_rng(config.compute.seed)
        self._matcher = ImageMatcher()
        self._visits: list[int] = []
        self._exposure = Exposure(device)
        self._median_depths: list[float] = []  # of what each keyframe saw, metres
        self._largest = 0.0  # scale in metres up to which no Gaussian is fog

    @property
    def psnr(self) -> float:
        """Running mean over the steps of the PSNR of their views, dB; NaN before the first."""
        return float(self._psnr)

    def needs_keyframe(self, frame: Frame) -> bool:
        """Whether this frame should become a keyframe: something new for the camera that took it."""
        last = next((k for k in reversed(self.keyframes) if k.sensor == frame.sensor), None)
        return last is None or is_new_view(self.config.keyframe, frame, last, self._median_depth() or 1.0)

    def insert(self, keyframe: Keyframe) -> None:
        """Adds a keyframe and seeds Gaussians where the map does not explain it."""
        view = render_view(self.gaussians.activated(), keyframe.camera, keyframe.camtoworld, self.rasterizer)
        seeds, opacity = self._seeds(keyframe, view)
        depths = [keyframe.depth if keyframe.depth is not None else view.depth * (view.alpha > 0.5)]
        if seeds is not None:
            self._add(seeds, opacity, 1 + len(self.keyframes))
            depths.append(
                torch.from_numpy(project(seeds[0].numpy(), keyframe.camera, keyframe.camtoworld)[1])
            )
        # The first source that says anything: measured or rendered depth, else that of the seeds.
        self._median_depths.append(
            next((float(d[d > 0].median()) for d in depths if (d > 0).any()), self._median_depth())
        )
        self.keyframes.append(keyframe)
        self._visits.append(0)
        self._exposure.grow()
        self._update_extent()

    def move_keyframes(self, camtoworlds: dict[int, np.ndarray]) -> int:
        """Moves keyframes, and with each the Gaussians that it spawned and what was split off them.

        Gaussians of a point cloud or a loaded map belong to no keyframe of this run and stay, as do keyframes that
        are not named.

        Args:
            camtoworlds: new poses [4, 4] float64 by index of the keyframe; stamps may repeat, indices do not.

        Returns:
            how many Gaussians moved.

        Raises:
            UserError: a pose cannot be used. The map is unchanged.
        """
        poses = {index: check_pose(pose, f"pose of keyframe {index}") for index, pose in camtoworlds.items()}
        moved = sum(self._move(index, pose) for index, pose in poses.items())
        if poses:
            self._update_extent()
        return moved

    def _move(self, index: int, camtoworld: np.ndarray) -> int:
        keyframe, owners = self.keyframes[index], self.gaussians.stats.get(_OWNER)
        motion = camtoworld @ invert_rigid(keyframe.camtoworld)
        keyframe.camtoworld = camtoworld.copy()
        rows = torch.zeros(0, dtype=torch.int64) if owners is None else (owners == index + 1).nonzero()[:, 0]
        self.gaussians.transform(rows, motion)
        return len(rows)

    def load_params(self, params: dict[str, torch.Tensor]) -> None:
        """Replaces the Gaussians by those of a map file; none was fog there, nor is one here before it is twice the largest."""
        self.gaussians.load_params(params)
        self._largest = 2 * float(params["log_scales"].exp().max()) if len(self.gaussians) else 0.0

    def insert_points(self, xyz: np.ndarray, rgb: np.ndarray) -> None:
        """Seeds Gaussians from a point cloud (COLMAP): xyz [P, 3] metres, rgb [P, 3] uint8."""
        self._add(seed_from_points(xyz, rgb), self.config.seed.opacity)

    def _add(self, seeds: Seeds, opacity: float, owner: int = 0) -> None:
        """Inserts seeds as far as there is room; `owner` is 1 + the keyframe that spawned them, 0 for none."""
        means, colors, scales = seeds
        room = self.config.map.max_gaussians - len(self.gaussians)
        if means.shape[0] > room:
            # A tenth at a time, but all that a lowered cap asks for.
            self._make_room(min(means.shape[0] - room, max(len(self.gaussians) // 10, -room)))
            room = self.config.map.max_gaussians - len(self.gaussians)
        if means.shape[0] > room:
            chosen = torch.from_numpy(self._rng.permutation(means.shape[0])[:room])
            means, colors, scales = means[chosen], colors[chosen], scales[chosen]
        before = len(self.gaussians)
        unowned = torch.zeros(before, dtype=torch.int64, device=self.gaussians.device)
        self.gaussians.stats.setdefault(_OWNER, unowned)
        self.gaussians.insert(means, colors, scales, opacity)
        self.gaussians.stats[_OWNER][before:] = owner

    def _make_room(self, count: int) -> None:
        """Removes the `count` least contributing Gaussians: opacity times area."""
        p = self.gaussians.params
        importance = torch.sigmoid(p["opacity_logits"]) * p["log_scales"].sum(-1).mul(2 / 3).exp()
        mask = torch.ones(len(self.gaussians), dtype=torch.bool, device=self.gaussians.device)
        mask[importance.detach().argsort()[:count]] = False
        self.gaussians.keep(mask)

    def _seeds(self, keyframe: Keyframe, view: RenderedView) -> tuple[Seeds | None, float]:
        """Seeds for a keyframe of which the map shows `view`, and their opacity."""
        config = self.config.seed
        if keyframe.depth is not None:
            return seed_from_depth(keyframe, view.alpha, view.depth, config), config.opacity
        seeds = self._matcher.seed(keyframe, view.alpha, config)
        if seeds is None and len(self.gaussians) == 0 and len(self.keyframes) >= 2:
            baseline = np.linalg.norm(keyframe.camtoworld[:3, 3] - self.keyframes[0].camtoworld[:3, 3])
            seeds = seed_random(keyframe, max(10 * baseline, 1e-2), config, self._rng)
        return seeds, _GUESSED_OPACITY

    def _median_depth(self) -> float:
        """Of what the newest keyframe saw, metres; 0 while nothing tells."""
        return self._median_depths[-1] if self._median_depths else 0.0

    def _update_extent(self) -> None:
        """Scene extent: how far the cameras spread, single wild poses left out, plus the typical viewing distance.

        What fog is follows the farthest of these distances, and never shrinks: a robot that turns from a hall to a wall
        keeps the hall.
        """
        centers = np.stack([k.camtoworld[:3, 3] for k in self.keyframes])
        distances = np.linalg.norm(centers - np.median(centers, axis=0), axis=1)
        spread = np.quantile(distances, _SPREAD, method="lower")
        depths = [depth for depth in self._median_depths if depth] or [1.0]
        self.gaussians.extent = float(spread + np.median(depths))
        self._largest = max(self._largest, _MAX_SCALE * float(spread + max(depths)))

    def step(self, horizon: int | None = None) -> StepStats:
        """One optimisation step on one keyframe.

        Args:
            horizon: steps this run will take in all, towards which the learning rate of the means decays and
                densification ends; None while the map still grows.
        """
        index = self._pick()
        keyframe = self.keyframes[index]
        camera, image, depth = _at_level(keyframe, coarse=self._visits[index] < _COARSE_VISITS)
        self._visits[index] += 1
        out, alpha, meta = _rasterize(
            self.gaussians.activated(), camera, keyframe.camtoworld, self.rasterizer
        )
        exposure, exposed = self.config.train.exposure, out[..., :3]
        if exposure:
            exposed = self._exposure.apply(exposed, index)
        loss = photometric(exposed, image, self.config.train.ssim_weight)
        if exposure:
            loss = loss + self._exposure.penalty(index)
        if depth is not None and self.config.train.depth_weight > 0:
            loss = loss + self.config.train.depth_weight * depth_l1(out[..., 3], alpha, depth)
        loss.backward()
        visible = (meta["radii"][0] > 0).all(-1)
        self._record_gradient(meta["means2d_absgrad"][0], visible, max(camera.width, camera.height))
        progress = min(1.0, self.steps / horizon) if horizon else 0.0
        decay = (
            _LAST_DECAY**progress
            if horizon
            else _LAST_DECAY ** min(1.0, self._visits[index] / _SETTLED_VISITS)
        )
        self.gaussians.step(decay, others=0.1 ** max(0.0, (progress - _SETTLING) / (1 - _SETTLING)))
        if exposure:
            self._exposure.step(index, decay=0.1**progress)
        self.steps += 1
        self._maintain(densify=progress < 0.7)
        psnr = -10 * (exposed.detach() - image).square().mean().clamp_min(1e-10).log10()
        self._psnr = torch.where(self._psnr.isnan(), psnr, 0.95 * self._psnr + 0.05 * psnr)
        return StepStats(self.steps, loss.detach(), psnr, len(self.gaussians))

    def _pick(self) -> int:
        """The newest keyframe in `newest_share` of the steps, else a random one."""
        if self._rng.random() < self.config.train.newest_share and self._visits[-1] < 3 * _COARSE_VISITS:
            return len(self.keyframes) - 1
        return int(self._rng.integers(len(self.keyframes)))

    def _record_gradient(self, absgrad: torch.Tensor, visible: torch.Tensor, side: int) -> None:
        """Sums the screen-space gradient [N, 2] of visible Gaussians, in units of half the image side (AbsGS).

        That of the others is zero.
        """
        stats = self.gaussians.stats
        if "gradient" not in stats:
            for name in ("gradient", "gradient_count"):
                stats[name] = torch.zeros(len(self.gaussians), device=self.gaussians.device)
        stats["gradient"] += torch.hypot(*absgrad.unbind(-1)) * (side / 2)
        stats["gradient_count"] += visible

    @torch.no_grad()
    def _maintain(self, densify: bool) -> None:
        """Every `densify_every` steps: densify where the image pulls hard, prune what is transparent or fog."""
        config = self.config.train
        if not config.densify_every or self.steps % config.densify_every:
            return
        g = self.gaussians
        mean_gradient = g.stats["gradient"] / g.stats["gradient_count"].clamp_min(1)
        if densify:
            chosen = mean_gradient > config.densify_gradient
            room = self.config.map.max_gaussians - len(g)
            if int(chosen.sum()) > room:
                threshold = mean_gradient.sort(descending=True).values[max(room, 0)]
                chosen = mean_gradient > threshold
            g.densify(chosen, split_above=0.01 * g.extent)
        g.stats["gradient"].zero_()
        g.stats["gradient_count"].zero_()
        opacity = torch.sigmoid(g.params["opacity_logits"])
        fog = g.params["log_scales"].amax(-1).exp() > self._largest
        g.keep((opacity > config.prune_opacity) & ~fog)


def _at_level(keyframe: Keyframe, coarse: bool) -> tuple[Camera, torch.Tensor, torch.Tensor | None]:
    """Camera, image and depth of a keyframe, at half resolution when coarse."""
    if not coarse or min(keyframe.camera.width, keyframe.camera.height) < 64:
        return keyframe.camera, keyframe.rgb, keyframe.depth
    camera = keyframe.camera.scaled(keyframe.camera.width // 2, keyframe.camera.height // 2)
    size = (camera.height, camera.width)
    image = F.interpolate(keyframe.rgb.permute(2, 0, 1)[None], size=size, mode="area")[0].permute(1, 2, 0)
    depth = keyframe.depth
    if depth is not None:
        depth = F.interpolate(depth[None, None], size=size, mode="nearest")[0, 0]
    return camera, image, depth
