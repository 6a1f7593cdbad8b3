"""Finds where one map lies in the frame of another, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ovs3d_ros.geometry import invert_rigid, project
from ovs3d_ros.map_frame import poses_to_map
from ovs3d_ros.mapping.gaussians import activate
from ovs3d_ros.mapping.rendering import render_view
from ovs3d_ros.merging.clouds import Cloud, make_clouds, match_clouds
from ovs3d_ros.merging.merge import (
    StoredMap,
    check_mergeable,
    joint_codec,
    lifted_sums,
    motion_between_worlds,
)
from ovs3d_ros.merging.motions import (
    FINE,
    apply_motion,
    is_same_motion,
    looks_alike,
    propose_motions,
    refine_motion,
)
from ovs3d_ros.rasterize import Rasterizer
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.semantics.lift import fuse_levels
from ovs3d_ros.types import UserError

_POINTS, _DENSE_POINTS = 4000, 30_000  # of each map, to find candidates and for the last refinement
_CANDIDATES = 24  # motions that are refined and judged
_VIEWS = 12  # of each map, in which the other map is looked at
_IMAGE_SIZE = 96  # px, of those views
_ON_SURFACE = 0.1  # metres in depth between a point and the surface that a view shows
_OPAQUE = 0.9
_NEAR = 0.12  # metres to the other cloud's point whose looks are compared
_MIN_AGREEMENT = 0.8  # rooms of one shape with other furniture reach 0.63
_MIN_OVERLAP = 0.15
_MIN_MARGIN = 0.15  # of the agreement over that of any other place
_MIN_FIRMNESS = 0.02  # along a bare wall, nothing keeps a map from sliding


@dataclass(frozen=True, slots=True)
class Judgement:
    """How well two maps fit at one motion.

    Attributes:
        agreement: of the points of either map that the other one's views look at, the share that lies on a
            surface there and looks like it, 0..1.
        overlap: share of the points of the smaller overlap's map that agree, 0..1.
    """

    agreement: float
    overlap: float

    @property
    def quality(self) -> float:
        """What candidates are ranked by."""
        return self.agreement * min(1.0, self.overlap / _MIN_OVERLAP)


@dataclass(frozen=True, slots=True)
class Registration:
    """Where the second map lies.

    Attributes:
        motion: [4, 4] rigid, from the second world to the first, see `merge.move_map`.
        judgement: at that motion.
        margin: its quality less that of the best other place.
        firmness: how firmly the surfaces hold it, see `refine_motion`.
    """

    motion: np.ndarray
    judgement: Judgement
    margin: float
    firmness: float

    @property
    def confidence(self) -> float:
        """0..1; at 0.5 the registration is just accepted."""
        ratios = (
            self.judgement.agreement / _MIN_AGREEMENT,
            self.judgement.overlap / _MIN_OVERLAP,
            self.margin / _MIN_MARGIN,
            self.firmness / _MIN_FIRMNESS,
        )
        return float(np.clip(0.5 * min(ratios), 0.0, 1.0))


class _Views:
    """What some keyframes of a map see of it."""

    def __init__(self, stored: StoredMap, rasterizer: Rasterizer) -> None:
        snapshot = stored.snapshot
        poses = poses_to_map(snapshot.camtoworlds, snapshot.frame)
        gaussians = activate(stored.params)
        self._views = []
        for index in evenly_spaced_indices(len(poses), _VIEWS):
            camera = snapshot.cameras[index].fitted(_IMAGE_SIZE)
            view = render_view(gaussians, camera, poses[index], rasterizer)
            depth = np.where(view.alpha.cpu().numpy() > _OPAQUE, view.depth.cpu().numpy(), 0)
            self._views.append((camera, poses[index], depth))

    def look_at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each point [N] lies on a surface in a view, and whether in front of one: masks."""
        on_surface, in_front = np.zeros((2, len(points)), bool)
        for camera, pose, depth in self._views:
            pixels, z = project(points, camera, pose)
            inside = (z > 0.05) & (pixels >= 0).all(1) & (pixels < [camera.width, camera.height]).all(1)
            column, row = np.where(inside[:, None], pixels, 0).astype(int).T
            seen = np.where(inside, depth[row, column], 0)
            known = seen > 0
            on_surface |= known & (np.abs(z - seen) < _ON_SURFACE)
            in_front |= known & (z < seen - 2 * _ON_SURFACE)
        return on_surface, in_front & ~on_surface


def register(first: StoredMap, second: StoredMap, rasterizer: Rasterizer) -> Registration:
    """Registers the second map to the first by features, colours and geometry.

    Raises:
        UserError: the maps do not fit each other, see `check_mergeable`, hold no features, or it is not sure
            that the place is right.
    """
    check_mergeable(first, second)
    both = f"{first.name} and {second.name}"
    codec = joint_codec(first.snapshot, second.snapshot)
    if codec is None or not len(first.params["means"]) or not len(second.params["means"]):
        raise UserError(f"{both}: alignment needs the features of an encoder, and these maps have none")
    codes = [
        fuse_levels(lifted_sums(s, codec), s.selection, codec) for s in (first.snapshot, second.snapshot)
    ]
    maps = [(m.params, m.snapshot) for m in (first, second)]
    clouds, dense = (make_clouds(maps, codec, codes, limit) for limit in (_POINTS, _DENSE_POINTS))
    views = [_Views(stored, rasterizer) for stored in (first, second)]
    candidates = propose_motions(*clouds, match_clouds(*clouds), _CANDIDATES)
    refined = [refine_motion(*clouds, motion)[0] for motion in candidates]
    judged = sorted(
        ((judge(clouds, views, motion), motion) for motion in refined), key=lambda pair: -pair[0].quality
    )
    if not judged:
        raise UserError(
            f"{both}: nothing in one map looks like anything in the other; give the transform between them"
        )
    best, motion = judged[0]
    rivals = [j.quality for j, m in judged[1:] if not is_same_motion(m, motion, clouds[1].points)]
    motion, firmness = refine_motion(*dense, motion, FINE)
    found = Registration(
        motion_between_worlds(second.snapshot.frame, first.snapshot.frame, motion),
        best,
        best.quality - max(rivals, default=0.0),
        firmness,
    )
    if found.confidence < 0.5:
        raise UserError(
            f"{both}: not sure where one lies in the other (confidence {found.confidence:.2f}: "
            f"{best.agreement:.0%} of what both show agrees, {best.overlap:.0%} overlap, and the best other "
            f"place is {found.margin:.2f} worse, firmness {found.firmness:.3f}); give the transform between "
            "them"
        )
    return found


def judge(clouds: list[Cloud], views: list[_Views], motion: np.ndarray) -> Judgement:
    """Looks at each map from the keyframes of the other one.

    Args:
        clouds: fixed and moving cloud.
        views: of the same maps.
        motion: [4, 4] of the moving one, between map frames.
    """
    from scipy.spatial import cKDTree

    counts = []
    for fixed, moving, seen, m in (
        (clouds[0], clouds[1], views[0], motion),
        (clouds[1], clouds[0], views[1], invert_rigid(motion)),
    ):
        points = apply_motion(m, moving.points)
        on_surface, in_front = seen.look_at(points)
        distances, index = cKDTree(fixed.points).query(points)
        same = (distances < _NEAR) & looks_alike(fixed, moving, index, np.arange(len(points)))
        counts.append(((on_surface & same).sum(), (on_surface | in_front).sum(), len(points)))
    agreeing, looked_at, total = np.array(counts).T
    agreement = agreeing.sum() / max(1, looked_at.sum())
    return Judgement(float(agreement), float((agreeing / total).max()))
