"""`ovs3d merge`: puts two maps of one place, or of neighbouring places, into one file."""

from __future__ import annotations

import argparse
import time

import numpy as np

from ovs3d_ros.commands import common
from ovs3d_ros.geometry import quat_to_matrix
from ovs3d_ros.map_file import load_map, save_map
from ovs3d_ros.merging.merge import StoredMap, merge_maps, move_map, same_frame_motion
from ovs3d_ros.merging.registration import register
from ovs3d_ros.merging.settle import settle_map
from ovs3d_ros.rasterize import make_rasterizer
from ovs3d_ros.types import UserError

_STEPS_PER_KEYFRAME, _MAX_STEPS = 20, 4000  # of settling
_MAX_LENGTH_ERROR = 1e-2  # of a quaternion that was typed in


def run(options: argparse.Namespace) -> int:
    """Merges the maps; loads no model.

    Raises:
        UserError: a map cannot be read, the maps do not fit each other, or it is not sure how they lie.
    """
    started = time.monotonic()
    if options.steps is not None and options.steps < 0:
        raise UserError(f"--steps {options.steps}: give 0 or more")
    output = common.check_output_file(options.output, options.map, options.other)
    common.check_json(options.json, output, options.map, options.other)
    motion = None if options.transform is None else _to_motion(options.transform)
    first, second = (
        StoredMap(*load_map(path, training=True), path.name) for path in (options.map, options.other)
    )
    rasterizer, figures = make_rasterizer("cpu"), {}
    if options.align:
        found = register(first, second, rasterizer)
        motion = found.motion
        figures = dict(
            confidence=round(found.confidence, 3),
            agreement=round(found.judgement.agreement, 3),
            overlap=round(found.judgement.overlap, 3),
        )
    if motion is None:
        motion = same_frame_motion(first, second)
    second = move_map(second, first.snapshot.frame, motion)
    merged = merge_maps(first, second)
    steps = options.steps
    if steps is None:
        steps = min(_STEPS_PER_KEYFRAME * merged.figures["keyframes"], _MAX_STEPS)
    with common.progress_bar(options, steps, "healing seams", "step") as bar:
        merged = settle_map(merged, (first, second), rasterizer, steps, bar.update)
    save_map(output, merged.params, merged.snapshot)
    report = merged.figures | figures | dict(transform=motion, seconds=round(time.monotonic() - started, 2))
    common.write_json(options.json, report)
    common.print_message(options, f"{output}: {_summary(report)}")
    return 0


def _to_motion(numbers: list[float]) -> np.ndarray:
    """The rigid motion [4, 4] of x y z qx qy qz qw.

    Raises:
        UserError: a number is not finite, or the quaternion is not of length 1.
    """
    x, y, z, qx, qy, qz, qw = numbers
    length = float(np.linalg.norm([qx, qy, qz, qw]))
    if not np.isfinite(numbers).all() or abs(length - 1) > _MAX_LENGTH_ERROR:
        raise UserError(
            f"--transform {' '.join(f'{n:g}' for n in numbers)}: give x y z and a unit quaternion qx qy qz qw"
        )
    motion = np.eye(4)
    motion[:3, :3] = quat_to_matrix(np.array([qw, qx, qy, qz]) / length)
    motion[:3, 3] = x, y, z
    return motion


def _summary(report: dict) -> str:
    text = (
        f"{report['gaussians']} Gaussians, {report['fused']} fused, {report['keyframes']} keyframes, "
        f"{report['seconds']:.0f} s"
    )
    if "confidence" in report:
        text += (
            f"; aligned with confidence {report['confidence']:.2f} ({report['agreement']:.0%} of what both "
            f"show agrees, {report['overlap']:.0%} overlap)"
        )
    if report["refined_dropped"]:
        text += "; the refined field is left out, run `ovs3d refine` again"
    if report["images_dropped"]:
        text += "; only one map holds its keyframes' images (map.keep_keyframes), they are left out"
    return text
