"""Drives through many rooms, made from the demo scene, and measures what grows with the drive. Prints JSON.

Run: python benchmarks/scale.py [--rooms 40] [--keyframes 30] [--steps 5] [--minutes 45] [--colours 3]
                                [--off] [--all-rooms] [--set key=value ...] [--picture FILE.svg]

The rooms lie on a grid, `SPACING` metres apart. Their colours differ; with `--colours 3` there are three
kinds of rooms. With `--set clip.cache=FOLDER` all images are encoded before the drive, so that hours of it
need the encoder for minutes: its time does not depend on the drive, and is not part of the figures then.
After every fourth room the drive passes the first one again, on other views. After each keyframe the map is
published and trained for some steps; now and then it answers ten names at once. Each is measured by the
clock and by the time of all processors, which means more on a busy machine. At the end the first, the middle
and the last room, or with `--all-rooms` all of them, are compared with maps of that room alone, on views that
no drive shows. With `--off`, nothing is parked, pruned or moved to a file.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from documents import print_document

from ovs3d_ros.config import Config, override
from ovs3d_ros.config.yaml_io import parse_assignments
from ovs3d_ros.datasets import Dataset, open_dataset
from ovs3d_ros.demo.scene import SHIPPED
from ovs3d_ros.encoders import ImageTextEncoder, encode_frame
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Frame
from ovs3d_ros.warm_up import warm_up
from ovs3d_ros.worker.memory import MIB, resident_bytes

SPACING = 8.0  # metres; a room is 5 m wide
SIDE = 16  # rooms along a row
LOOP = 4  # rooms before the first one is passed again
RATE = 2.0  # keyframes per second of the drive
PARTS = 10
QUERY_EVERY = 10  # keyframes
REPORT_EVERY = 200  # keyframes
COLORS = ("#1f6f8b", "#d1603d")
PANELS = (  # title, the keys of its lines, and what they are divided by
    ("frame to map, processor ms", ("frame_to_map_cpu_p50_ms", "frame_to_map_cpu_p95_ms"), 1),
    ("publication, processor ms", ("published_cpu_p50_ms", "published_cpu_p95_ms"), 1),
    ("ten names, processor ms", ("query_cpu_p50_ms", "query_cpu_p95_ms"), 1),
    ("memory and disk, MiB", ("rss_mib", "disk_mib"), 1),
    ("Gaussians, thousands", ("gaussians",), 1000),
)
OFF = {"map.memory_limit_mib": 0, "map.max_gaussians": 20_000_000}
PROMPTS = (
    "yellow teapot", "blue chair", "red clock", "wooden table", "pink phone",
    "black book", "green hat", "brown mug", "purple elephant", "white piano",
)  # fmt: skip


class Building:
    """Copies of a scene at places of their own, in some number of colours.

    Attributes:
        first: numbers of the frames that a room is seen in at first.
        again: those when it is passed again; where the first ones are all, some of them.
        held_out: those that no drive shows.
    """

    def __init__(self, dataset: Dataset, keyframes: int, colours: int) -> None:
        self.dataset, self._colours = dataset, colours
        numbers = range(len(dataset))
        self.first = _spread(numbers, keyframes)
        self.held_out = [number for number in numbers[::5] if number not in self.first]
        others = [number for number in numbers if number not in {*self.first, *self.held_out}]
        self.again = _spread(others or self.first, len(self.first) // 3)

    def frame(self, room: int, number: int, stamp: float = 0.0) -> Frame:
        """A frame of the scene as seen in a room."""
        frame = self.dataset[number]
        pose, image = frame.camtoworld.copy(), frame.image
        pose[:2, 3] += SPACING * np.array([room % SIDE, room // SIDE])
        if turn := 37 * (room % self._colours) % 180:
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            hsv[..., 0] = (hsv[..., 0].astype(int) + turn) % 180
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        return replace(frame, camtoworld=pose, image=image, stamp=stamp, name=f"room {room} {frame.name}")

    def encode(self, encoder: ImageTextEncoder) -> None:
        """Fills the cache of an encoder with the images of a drive."""
        for room in range(self._colours):
            for number in self.first if room else sorted({*self.first, *self.again}):
                encode_frame(encoder, self.frame(room, number))

    def drive(self, rooms: Sequence[int]) -> Iterator[Frame]:
        """Frames of rooms, one after the other, with loops through the first one."""
        parts = []
        for count, room in enumerate(rooms, 1):
            parts += [(room, self.first)] + [(rooms[0], self.again)] * (count % LOOP == 0)
        stamps = itertools.count()
        for room, numbers in parts:
            for number in numbers:
                yield self.frame(room, number, next(stamps) / RATE)


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    """At most `count` of some numbers, evenly."""
    places = np.linspace(0, len(numbers) - 1, count).round().astype(int)
    return [numbers[place] for place in np.unique(places)]


def timed(row: dict, name: str, action: Callable[[], Any]) -> Any:
    """The result of an action; adds the milliseconds of the clock and of the processors to a row."""
    clock, processors = time.perf_counter(), time.process_time()
    result = action()
    row[name] = row.get(name, 0) + 1e3 * (time.perf_counter() - clock)
    row[f"{name}_cpu"] = row.get(f"{name}_cpu", 0) + 1e3 * (time.process_time() - processors)
    return result


def quality_of_room(pipeline: Ovs3d, building: Building, room: int) -> dict:
    """PSNR and mIoU over the held-out views of a room; only the first room has the colours of its names."""
    views = [building.frame(room, number) for number in building.held_out]
    snapshot, errors = pipeline.snapshot(), []
    for frame in views:
        rgb = pipeline.render(frame.camera, frame.camtoworld, snapshot).rgb.cpu().numpy()
        errors.append(-10 * np.log10(np.mean((rgb - frame.image / 255) ** 2)))
    names = list(building.dataset.class_names)
    answer = pipeline.query(names, snapshot=snapshot, mode="argmax")
    both, either = np.zeros(len(names)), np.zeros(len(names))
    for frame in views:
        assert frame.labels is not None, "the scene has labels"
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
    building: Building, config: Config, rooms: Sequence[int], steps: int, minutes: float
) -> tuple[Ovs3d, list[dict]]:
    """Drives for some minutes at most; returns the map, and the figures of each keyframe."""
    pipeline, rows = Ovs3d(config), []
    warm_up(pipeline)  # kernels compile once per machine
    if config.clip.cache and pipeline.clip is not None:
        building.encode(pipeline.clip)
    start = time.perf_counter()
    for frame in building.drive(rooms):
        if time.perf_counter() - start > 60 * minutes:
            break
        row: dict = dict(room=int(frame.name.split()[1]))
        if not timed(row, "frame_to_map", lambda frame=frame: pipeline.add_frame(frame)):
            continue
        snapshot = timed(row, "published", pipeline.snapshot)
        for suffix in ("", "_cpu"):
            row[f"frame_to_map{suffix}"] += row[f"published{suffix}"]
        timed(row, "trained", lambda: pipeline.optimize(steps))
        if len(rows) % QUERY_EVERY == QUERY_EVERY - 1:
            timed(row, "query", lambda snapshot=snapshot: pipeline.query(PROMPTS, snapshot=snapshot))
        stats = pipeline.stats
        disk = stats["keyframes_disk_mib"] + stats["parked_disk_mib"]
        rows.append(row | dict(rss=resident_bytes() / MIB, disk=disk, gaussians=stats["num_gaussians"]))
        if len(rows) % REPORT_EVERY == 0:
            print(len(rows), summarize(rows[-REPORT_EVERY:]), file=sys.stderr, flush=True)
    return pipeline, rows


def summarize(rows: list[dict]) -> dict:
    """Figures of a part of a drive; those with `cpu` are of the time of all processors."""
    figures: dict[str, float] = {}
    for name in ("frame_to_map", "published", "trained", "query"):
        for key in (name, f"{name}_cpu"):
            values = [row[key] for row in rows if key in row]
            for share in (50, 95) if values else ():
                figures[f"{key}_p{share}_ms"] = round(float(np.percentile(values, share)), 1)
    last = rows[-1]
    return figures | dict(
        rss_mib=round(last["rss"]), disk_mib=round(last["disk"]), gaussians=last["gaussians"]
    )


def draw(parts: list[dict], keyframes: int) -> str:
    """Draws the parts of a drive as SVG, one panel per quantity."""
    width, height, gap = 215, 150, 60
    drawn = []
    for column, (title, keys, unit) in enumerate(PANELS):
        left, top = 45 + column * (width + gap), 40
        lines = [[part[key] / unit for part in parts] for key in keys]
        most = 1.1 * max(map(max, lines))
        drawn.append(f'<text x="{left}" y="20" font-weight="bold">{title}</text>')
        drawn.append(f'<path d="M{left} {top}v{height}h{width}" fill="none" stroke="#999"/>')
        for value, y in ((0, top + height), (most, top)):
            drawn.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{value:.3g}</text>')
        end = f'x="{left + width}" y="{top + height + 16}" text-anchor="end"'
        drawn.append(f"<text {end}>{keyframes} keyframes</text>")
        for line, color in zip(lines, COLORS, strict=False):
            points = [
                f"{left + width * (i + 0.5) / len(line):.1f},{top + height * (1 - value / most):.1f}"
                for i, value in enumerate(line)
            ]
            drawn.append(
                f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="2"/>'
            )
    size = f'viewBox="0 0 {len(PANELS) * (width + gap) + 20} {height + 70}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="#fafaf8"/>{"".join(drawn)}</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rooms", type=int, default=40)
    parser.add_argument("--keyframes", type=int, default=30, help="in each room")
    parser.add_argument("--steps", type=int, default=5, help="of training after each keyframe")
    parser.add_argument("--colours", type=int, default=180, help="of rooms that look different, at most")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of the clock, at most")
    parser.add_argument("--all-rooms", action="store_true", help="compare all rooms with maps of them alone")
    parser.add_argument("--off", action="store_true", help="no limit of memory, no parking, no pruning")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("-o", "--output", type=Path, help="a copy of the result")
    parser.add_argument("--picture", type=Path, help="an SVG of the result")
    args = parser.parse_args()
    settings = {"clip.model": "bundled", **(OFF if args.off else {}), **parse_assignments(args.set)}
    config = override(Config(), settings)
    dataset = open_dataset(SHIPPED, config.map.image_size)
    building = Building(dataset, args.keyframes, args.colours)
    start = time.perf_counter()
    pipeline, rows = measure(building, config, range(args.rooms), args.steps, args.minutes)
    seconds, last = time.perf_counter() - start, max(row["room"] for row in rows)
    rooms = {}
    chosen = range(last + 1) if args.all_rooms else sorted({0, last // 2, max(last - 1, 0)})
    for room in chosen:  # a drive of some minutes may not complete the last one
        alone, _ = measure(building, config, [room], args.steps, args.minutes)
        rooms[room] = dict(
            at_the_end=quality_of_room(pipeline, building, room),
            alone=quality_of_room(alone, building, room),
        )
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
        rooms=rooms,
    )
    print_document(document, args.output)
    if args.picture:
        args.picture.write_text(draw(parts, len(rows)))


if __name__ == "__main__":
    main()
