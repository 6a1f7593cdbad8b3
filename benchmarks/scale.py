"""Drives through many rooms, made from the demo scene, and measures what grows with the drive. Prints JSON.

Run: python benchmarks/scale.py [--rooms 40] [--keyframes 30] [--steps 5] [--off] [--set key=value ...]

The rooms lie on a grid, `SPACING` metres apart; in each but the first the colours of the scene are turned.
After every fourth room the drive passes the first one again. After each keyframe the map is published and
trained for some steps; now and then it answers ten names at once. At the end the first room is compared with
a map of that room alone. With `--off` nothing is parked, pruned or moved to a file.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from documents import print_document

from ovs3d_ros.config import Config, override
from ovs3d_ros.config.yaml_io import parse_assignments
from ovs3d_ros.datasets import Dataset, open_dataset
from ovs3d_ros.demo.scene import SHIPPED
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Frame
from ovs3d_ros.warm_up import warm_up
from ovs3d_ros.worker.memory import MIB, resident_bytes

SPACING = 8.0  # metres; a room is 5 m wide
LOOP = 4  # rooms before the first one is passed again
RATE = 2.0  # keyframes per second of the drive
PARTS = 10
QUERY_EVERY = 10  # keyframes
OFF = {"map.memory_limit_mib": 0, "map.max_gaussians": 20_000_000}
PROMPTS = (
    "yellow teapot", "blue chair", "red clock", "wooden table", "pink phone",
    "black book", "green hat", "brown mug", "purple elephant", "white piano",
)  # fmt: skip


def in_room(frame: Frame, room: int, stamp: float) -> Frame:
    """The frame as seen in a copy of the scene at another place, with other colours."""
    pose, image = frame.camtoworld.copy(), frame.image
    side = 16
    pose[:2, 3] += SPACING * np.array([room % side, room // side])
    if room:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + 37 * room) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return replace(frame, camtoworld=pose, image=image, stamp=stamp, name=f"room {room} {frame.name}")


def drive(dataset: Dataset, rooms: int, keyframes: int) -> Iterator[Frame]:
    """Frames of all rooms, one after the other, with loops through the first one."""
    stamp, chosen = 0.0, np.linspace(0, len(dataset) - 1, keyframes).round().astype(int)
    for room in range(rooms):
        for index in chosen:
            yield in_room(dataset[int(index)], room, stamp)
            stamp += 1 / RATE
        if room % LOOP == LOOP - 1:
            for index in chosen[::3]:
                shifted = in_room(dataset[int(index)], 0, stamp)
                shifted.camtoworld[2, 3] += 1e-3 * room  # no view twice
                yield shifted
                stamp += 1 / RATE


def timed(action) -> tuple[float, object]:
    """Milliseconds that an action takes, and its result."""
    start = time.perf_counter()
    result = action()
    return 1e3 * (time.perf_counter() - start), result


def quality_of_first_room(pipeline: Ovs3d, dataset: Dataset, keyframes: int) -> dict:
    """PSNR and mIoU over views of the first room that are no keyframes."""
    chosen = set(np.linspace(0, len(dataset) - 1, keyframes).round().astype(int).tolist())
    views = [dataset[index] for index in range(0, len(dataset), 5) if index not in chosen]
    snapshot, errors = pipeline.snapshot(), []
    for frame in views:
        rgb = pipeline.render(frame.camera, frame.camtoworld, snapshot).rgb.cpu().numpy()
        errors.append(-10 * np.log10(np.mean((rgb - frame.image / 255) ** 2)))
    names = list(dataset.class_names)
    answer = pipeline.query(names, snapshot=snapshot, mode="argmax")
    both, either = np.zeros(len(names)), np.zeros(len(names))
    for frame in views:
        found, _ = pipeline.render_labels(answer, frame.camera, frame.camtoworld, snapshot)
        for number in range(1, len(names) + 1):
            there = frame.labels == number
            both[number - 1] += ((found == number) & there).sum()
            either[number - 1] += (((found == number) | there) & (frame.labels > 0)).sum()
    return dict(
        psnr=round(float(np.mean(errors)), 2),
        miou=round(float((both[either > 0] / either[either > 0]).mean()), 3),
    )


def measure(
    dataset: Dataset, settings: dict, rooms: int, keyframes: int, steps: int
) -> tuple[Ovs3d, list[dict]]:
    """Drives; returns the map, and the figures of each keyframe."""
    pipeline, rows = Ovs3d(override(Config(), settings)), []
    warm_up(pipeline)  # kernels compile once per machine
    for frame in drive(dataset, rooms, keyframes):
        added, inserted = timed(lambda frame=frame: pipeline.add_frame(frame))
        if not inserted:
            continue
        published, snapshot = timed(pipeline.snapshot)
        row = dict(frame_to_map=added + published, published=published)
        row["trained"], _ = timed(lambda: pipeline.optimize(steps))
        if len(rows) % QUERY_EVERY == QUERY_EVERY - 1:
            row["query"], _ = timed(lambda snapshot=snapshot: pipeline.query(PROMPTS, snapshot=snapshot))
        stats = pipeline.stats
        disk = stats["keyframes_disk_mib"] + stats["parked_disk_mib"]
        rows.append(row | dict(rss=resident_bytes() / MIB, disk=disk, gaussians=stats["num_gaussians"]))
    return pipeline, rows


def summarize(rows: list[dict]) -> dict:
    """Figures of a part of a drive."""
    figures: dict[str, float] = {}
    for name, shares in dict(
        frame_to_map=(50, 95), published=(50, 95), trained=(50,), query=(50, 95)
    ).items():
        values = [row[name] for row in rows if name in row]
        figures |= {
            f"{name}_p{share}_ms": round(float(np.percentile(values, share)), 1) for share in shares if values
        }
    last = rows[-1]
    return figures | dict(
        rss_mib=round(last["rss"]), disk_mib=round(last["disk"]), gaussians=last["gaussians"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rooms", type=int, default=40)
    parser.add_argument("--keyframes", type=int, default=30, help="in each room")
    parser.add_argument("--steps", type=int, default=5, help="of training after each keyframe")
    parser.add_argument("--off", action="store_true", help="no limit of memory, no parking, no pruning")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("-o", "--output", type=Path, help="a copy of the result")
    args = parser.parse_args()
    dataset = open_dataset(SHIPPED)
    settings = {"clip.model": "bundled", **(OFF if args.off else {}), **parse_assignments(args.set)}
    start = time.perf_counter()
    pipeline, rows = measure(dataset, settings, args.rooms, args.keyframes, args.steps)
    seconds = time.perf_counter() - start
    quality = quality_of_first_room(pipeline, dataset, args.keyframes)
    alone, _ = measure(dataset, settings, 1, args.keyframes, args.steps)
    edges = np.linspace(0, len(rows), min(PARTS, len(rows)) + 1).round().astype(int)
    parts = [summarize(rows[a:b]) for a, b in itertools.pairwise(edges)]
    document = dict(
        settings=settings,
        keyframes=len(rows),
        simulated_minutes=round(len(rows) / RATE / 60, 1),
        seconds=round(seconds),
        parked=pipeline.stats["parked"],
        evicted=pipeline.stats["evicted"],
        peak_rss_mib=round(max(row["rss"] for row in rows)),
        parts=parts,
        first_room=dict(at_the_end=quality, alone=quality_of_first_room(alone, dataset, args.keyframes)),
    )
    print_document(document, args.output)


if __name__ == "__main__":
    main()
