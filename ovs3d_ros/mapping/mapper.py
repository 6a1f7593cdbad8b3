"""Online mapping with known poses (docs/method.md, "Online mapping")."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass

import numpy as np
import torch

from ovs3d_ros.config import Config
from ovs3d_ros.geometry import project
from ovs3d_ros.mapping.blocks import Blocks
from ovs3d_ros.mapping.cells import viewing_reach
from ovs3d_ros.mapping.densification import densify, prune, record_gradients, remove_least_contributing
from ovs3d_ros.mapping.depth_check import DepthCheck
from ovs3d_ros.mapping.gaussians import PARAMETERS, Gaussians
from ovs3d_ros.mapping.keyframe_log import KeyframeLog
from ovs3d_ros.mapping.keyframe_store import view_of
from ovs3d_ros.mapping.keyframes import is_new_view, training_view
from ovs3d_ros.mapping.loop_closure import (
    NO_OWNER,
    insert_owned,
    move_keyframes,
    owner_of,
)
from ovs3d_ros.mapping.losses import depth_l1, ignore_masked, masked_psnr, photometric
from ovs3d_ros.mapping.rendering import RenderedView, rasterize_rgbd, render_view
from ovs3d_ros.mapping.seeding import ImageMatcher, Seeds, seed_from_depth, seed_from_points, seed_random
from ovs3d_ros.rasterize import Rasterizer
from ovs3d_ros.types import Frame, Keyframe

logger = logging.getLogger(__name__)

_COARSE_VISITS = 6  # first visits of a keyframe at half resolution: four times cheaper, similar gradients
_FINAL_DECAY = 0.03  # factor on the learning rate of the means at the end of a run, or of a keyframe's visits
_KNOWN_MARGIN = 3.0  # dB below the running mean, from which a new keyframe shows nothing new
_KNOWN_SLACK = 2  # pixels by which edges of what it shows again may be off without new seeds
_SETTLED_VISITS = 60  # visits after which a keyframe's own decay is complete, while the map still grows
_SETTLING_PROGRESS = 0.8  # share of a run after which all other learning rates fall, by ten: less jitter
_DENSIFY_PROGRESS = 0.7  # share of a run after which densification ends
_GUESSED_OPACITY = 0.15  # of seeds at guessed depth: easy for the optimiser to overrule
_CAMERA_QUANTILE = 0.9  # of camera distances: one wild pose must not raise the learning rates for good
_FOG_SCALE = 0.15  # map radii: larger Gaussians are fog
_RANDOM_DEPTHS = (
    "no image matches of the first %d keyframes could be triangulated, so the map starts at random depths "
    "and may be wrong: give depth or COLMAP points, or check that the views overlap and that their poses fit"
)
_FULL = (
    "the map holds map.max_gaussians = %d Gaussians: from now on, those that contribute least are removed to "
    "make room for new ones, and what was mapped first fades; raise it, or save the map and reset it"
)
_VISIT_STEPS = 50  # of a run after the last frame, before another part of the map is trained
_PSNR_DECAY = 0.95  # of the running mean


@dataclass(frozen=True, slots=True)
class StepStats:
    """Figures of one optimisation step.

    Attributes:
        step: running number.
        loss: of the step's view. Like `psnr`, a scalar on the map's device, where the step may still run:
            reading it waits for the step.
        psnr: of the step's view, dB.
        num_gaussians: in the map.
    """

    step: int
    loss: torch.Tensor
    psnr: torch.Tensor
    num_gaussians: int


class Mapper:
    """The training state of the RGB map.

    Attributes:
        gaussians: the map.
        log: the keyframes it is trained on, and what is known of each.
        keyframes: of the log.
        steps: optimisation steps so far.
        first_step: that of this run; those before made the map file it was loaded from.
        depth_check: notices depth of frames in a wrong unit.
    """

    def __init__(self, config: Config, rasterizer: Rasterizer, device: str) -> None:
        self.config = config
        self.rasterizer = rasterizer
        self.gaussians = Gaussians(config.train, config.map.sh_degree, device, config.compute.seed)
        self.log = KeyframeLog(device, config.map.memory_limit_mib << 20)
        self.keyframes = self.log.keyframes
        self.blocks = Blocks(self.gaussians)
        self.steps = self.first_step = 0
        self._psnr = torch.full((), float("nan"), device=device)
        self._rng = np.random.default_rng(config.compute.seed)
        self.depth_check = DepthCheck()
        self._matcher = ImageMatcher()
        self._max_scale = 0.0  # metres; larger Gaussians are fog
        self._warned = False  # of seeds at random depths
        self._evicted = 0  # Gaussians that made room

    @property
    def stats(self) -> dict:
        """Running figures: steps, keyframes, num_gaussians, evicted, psnr [dB], depth_doubt, of the store."""
        count = len(self.gaussians) + self.blocks.num_parked
        figures = dict(steps=self.steps, keyframes=len(self.keyframes), num_gaussians=count)
        figures |= self.keyframes.figures | self.blocks.figures
        return figures | dict(evicted=self._evicted, psnr=self.psnr, depth_doubt=self.depth_check.doubt)

    @property
    def psnr(self) -> float:
        """Running mean of the PSNR of the steps' views, dB; NaN before the first step."""
        return float(self._psnr)

    def needs_keyframe(self, frame: Frame) -> bool:
        """Whether the frame shows something new to its camera and so should become a keyframe."""
        last = next((k for k in reversed(self.keyframes.views) if k.sensor == frame.sensor), None)
        return last is None or is_new_view(self.config.keyframe, frame, last, self.log.median_depth or 1.0)

    def insert(self, keyframe: Keyframe) -> None:
        """Adds a keyframe and seeds Gaussians where the map does not explain it."""
        self.blocks.enter(
            view_of(keyframe), viewing_reach(keyframe, self.log.median_depth), parking_cap(self.config)
        )
        view = render_view(self.gaussians.activated(), keyframe.camera, keyframe.camtoworld, self.rasterizer)
        visits = _first_visits(keyframe, view, self.psnr)
        seeds, opacity = self._make_seeds(keyframe, view, _KNOWN_SLACK if visits else 0)
        depths = [keyframe.depth if keyframe.depth is not None else view.depth * (view.alpha > 0.5)]
        if seeds is not None:
            self._insert_seeds(seeds, opacity, owner_of(len(self.keyframes)))
            seed_depths = project(seeds[0].numpy(), keyframe.camera, keyframe.camtoworld)[1]
            depths.append(torch.from_numpy(seed_depths))
        # The first source with any depth counts: the measured or rendered image, then the seeds.
        medians = (float(d[d > 0].median()) for d in depths if (d > 0).any())
        self.log.add(keyframe, next(medians, self.log.median_depth), visits)
        self.update_extent()

    def insert_points(self, xyz: np.ndarray, rgb: np.ndarray, centers: np.ndarray | None = None) -> None:
        """Seeds Gaussians from a point cloud (COLMAP).

        Args:
            xyz: [P, 3] metres.
            rgb: [P, 3] uint8.
            centers: positions [C, 3] of the cameras that saw the points, which limit the size of the seeds;
                default: those of the keyframes so far.
        """
        if centers is None and self.keyframes:
            centers = self.keyframes.poses[:, :3, 3]
        self._insert_seeds(seed_from_points(xyz, rgb, centers), self.config.seed.opacity)

    def load_params(self, params: dict[str, torch.Tensor]) -> None:
        """Replaces the Gaussians by those of a map file.

        All of them were good in that map, so here only Gaussians twice as large as the largest one are fog.
        """
        self.gaussians.load_params(params)
        self._max_scale = _fog_limit(params)

    def merge_params(self, kept: torch.Tensor, params: dict[str, torch.Tensor]) -> None:
        """Keeps the Gaussians `kept` [N] bool, and adds those of another map, where all of them were good."""
        self.gaussians.keep(kept)
        self.gaussians.append(params)
        self._max_scale = max(self._max_scale, _fog_limit(params))

    def params(self) -> dict[str, torch.Tensor]:
        """The parameters of all Gaussians, parked ones first, see `PARAMETERS`."""
        return self.blocks.gather(*PARAMETERS)

    def resume(self, steps: int, psnr: float | None) -> None:
        """Takes up the running figures of a map file; learning rates begin anew."""
        self.steps = self.first_step = steps
        if psnr is not None:
            self._psnr.fill_(psnr)

    def move_keyframes(self, camtoworlds: dict[int, np.ndarray]) -> int:
        """Moves keyframes and their Gaussians to corrected poses, see `loop_closure.move_keyframes`."""
        moved = move_keyframes(self.keyframes, self.gaussians, camtoworlds, self.blocks)
        if camtoworlds:
            self.update_extent()
        return moved

    def step(self, horizon: int | None = None) -> StepStats:
        """One optimisation step on one keyframe.

        Args:
            horizon: number of steps of the whole run, over which learning rates decay and before whose end
                densification stops; None while the map still grows.
        """
        if horizon and self.blocks.parcels and self.steps % _VISIT_STEPS == 0:
            self.blocks.visit(int(np.argmin(self.log.visits)), parking_cap(self.config))
        config, trainable = self.config.train, self.blocks.trainable
        keyframe, index = self.log.choose(self._rng, config.newest_share, 3 * _COARSE_VISITS, trainable)
        camera, image, depth, mask = training_view(keyframe, self.log.visit(index) < _COARSE_VISITS)
        out, alpha, meta = rasterize_rgbd(
            self.gaussians.activated(), camera, keyframe.camtoworld, self.rasterizer
        )
        exposed = index is not None and config.exposure
        rgb = self.log.exposure.apply(out[..., :3], index) if exposed else out[..., :3]
        rgb = ignore_masked(rgb, image, mask)
        loss = photometric(rgb, image, config.ssim_weight)
        if exposed:
            loss = loss + self.log.exposure.penalty(index)
        if depth is not None and config.depth_weight > 0:
            loss = loss + config.depth_weight * depth_l1(out[..., 3], alpha, depth)
        loss.backward()
        visible = (meta["radii"][0] > 0).all(-1)
        record_gradients(
            self.gaussians, meta["means2d_absgrad"][0], visible, max(camera.width, camera.height)
        )
        progress = min(1.0, (self.steps - self.first_step) / horizon) if horizon else 0.0
        _update_parameters(self.gaussians, visible, self.log, index, progress if horizon else None)
        if exposed:
            self.log.exposure.step(index, decay=0.1**progress)
        self.steps += 1
        self._densify_and_prune(progress)
        psnr = masked_psnr(rgb.detach(), image, mask)
        mean = _PSNR_DECAY * self._psnr + (1 - _PSNR_DECAY) * psnr
        self._psnr = torch.where(self._psnr.isnan(), psnr, mean)
        return StepStats(self.steps, loss.detach(), psnr, len(self.gaussians))

    def _densify_and_prune(self, progress: float) -> None:
        """Every `densify_every` steps: adds Gaussians at large gradients, prunes transparent ones and fog."""
        config = self.config.train
        if config.densify_every and self.steps % config.densify_every == 0:
            if progress < _DENSIFY_PROGRESS:
                densify(self.gaussians, config, self.config.map.max_gaussians)
            prune(self.gaussians, config.prune_opacity, self._max_scale)

    def _insert_seeds(self, seeds: Seeds, opacity: float, owner: int = NO_OWNER) -> None:
        """Inserts seeds as far as `map.max_gaussians` leaves room."""
        means, colors, scales = seeds
        self.blocks.make_room(len(means), parking_cap(self.config))
        room = self.config.map.max_gaussians - len(self.gaussians)
        if means.shape[0] > room:
            # At most a tenth of the map makes room at a time, unless the cap was lowered.
            excess = min(means.shape[0] - room, max(len(self.gaussians) // 10, -room))
            remove_least_contributing(self.gaussians, excess)
            if excess > 0 and not self._evicted:
                logger.warning(_FULL, self.config.map.max_gaussians)
            self._evicted += excess
            room = self.config.map.max_gaussians - len(self.gaussians)
        if means.shape[0] > room:
            chosen = torch.from_numpy(self._rng.permutation(means.shape[0])[:room])
            means, colors, scales = means[chosen], colors[chosen], scales[chosen]
        insert_owned(self.gaussians, (means, colors, scales), opacity, owner)

    def _make_seeds(self, keyframe: Keyframe, view: RenderedView, slack: int) -> tuple[Seeds | None, float]:
        """Seeds for a keyframe where the map, rendered as `view`, does not explain it; and their opacity."""
        config = self.config.seed
        if keyframe.depth is not None:
            return seed_from_depth(keyframe, view.alpha, view.depth, config, slack), config.opacity
        seeds = self._matcher.seed(keyframe, view.alpha, config)
        if seeds is None and len(self.gaussians) == 0 and len(self.keyframes) >= 2:
            baseline = np.linalg.norm(keyframe.camtoworld[:3, 3] - self.keyframes.poses[0, :3, 3])
            if not self._warned:
                logger.warning(_RANDOM_DEPTHS, len(self.keyframes) + 1)
            self._warned = True
            seeds = seed_random(keyframe, max(10 * baseline, 1e-2), config, self._rng)
        return seeds, _GUESSED_OPACITY

    def update_extent(self) -> None:
        """Sets the scene extent (spread of near cameras plus typical viewing distance) and the size of fog.

        Only cameras near the newest one count, or the steps of the means would grow with the drive.
        The fog limit follows the largest viewing distance and never shrinks, so the map of a hall survives
        when the robot turns to a wall.
        """
        centers = self.blocks.sight.near(self.keyframes.poses[:, :3, 3])
        distances = np.linalg.norm(centers - np.median(centers, axis=0), axis=1)
        camera_spread = np.quantile(distances, _CAMERA_QUANTILE, method="lower")
        typical, largest = self.log.depths.median or 1.0, self.log.depths.largest or 1.0
        self.gaussians.extent = float(camera_spread + typical)
        self._max_scale = max(self._max_scale, _FOG_SCALE * float(camera_spread + largest))


def parking_cap(config: Config) -> int:
    """Number of active Gaussians beyond which those far away are parked."""
    return config.map.max_gaussians if config.map.memory_limit_mib else sys.maxsize


def _update_parameters(
    gaussians: Gaussians, visible: torch.Tensor, log: KeyframeLog, index: int | None, progress: float | None
) -> None:
    """An Adam step on the Gaussians.

    Args:
        gaussians: of the map.
        visible: [N] bool, those that the view shows.
        log: keyframes and their visits.
        index: of the keyframe the gradients come from; None: from a rendered view.
        progress: share of the run that is done, 0..1; None while the map still grows: then the rate of
            the means decays with the visits of this keyframe, so that new keyframes move the map and old
            ones settle it.
    """
    visits = _SETTLED_VISITS if index is None else log.visits[index]
    decay = min(1.0, visits / _SETTLED_VISITS) if progress is None else progress
    settling = max(0.0, ((progress or 0.0) - _SETTLING_PROGRESS) / (1 - _SETTLING_PROGRESS))
    gaussians.step(visible, means_decay=_FINAL_DECAY**decay, other_decay=0.1**settling)


def _first_visits(keyframe: Keyframe, view: RenderedView, psnr: float) -> int:
    """The visits that a new keyframe, rendered as `view`, counts as having.

    Where the map shows it almost as well as those it is trained on, at `psnr` dB, it is settled at once: the
    large steps that a new place needs would spoil what is there, by decibels on a second round.
    """
    known = float(masked_psnr(view.rgb, keyframe.image.float() / 255, keyframe.mask))
    return _SETTLED_VISITS if known >= psnr - _KNOWN_MARGIN else 0


def _fog_limit(params: dict[str, torch.Tensor]) -> float:
    """Twice the largest scale in metres of Gaussians that were good in their map; 0 if there are none."""
    scales = params["log_scales"]
    return 2 * float(scales.exp().max()) if len(scales) else 0.0
