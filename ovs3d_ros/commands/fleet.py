"""`ovs3d fleet`: maps many datasets in parallel, and finds things in all maps of a folder."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ovs3d_ros.commands import common
from ovs3d_ros.commands.map import warn_about_bundled_model
from ovs3d_ros.fleet.cluster import Resources
from ovs3d_ros.fleet.driver import FleetOptions, FleetProgress, exit_code, map_fleet
from ovs3d_ros.fleet.hits import Hit
from ovs3d_ros.fleet.manifest import DONE, Record
from ovs3d_ros.fleet.pictures import write_pictures
from ovs3d_ros.fleet.search import FleetIndex
from ovs3d_ros.io.text_table import format_table
from ovs3d_ros.offline.mapping import Source
from ovs3d_ros.types import UserError

_HITS = "hits.json"  # file of an answer, which names its pictures


def run(options: argparse.Namespace) -> int:
    """Runs `ovs3d fleet map` or `ovs3d fleet query`.

    Raises:
        UserError: bad settings, folders or prompts, or Ray is missing.
    """
    return _run_map(options) if options.action == "map" else _run_query(options)


def _run_map(options: argparse.Namespace) -> int:
    config = common.read_config(options)
    _check_numbers(options)
    common.check_json(options.json)
    warn_about_bundled_model(config, options.clip)
    sources = [
        Source(path, options.format, None, options.skip_missing, options.holdout) for path in options.data
    ]
    resources = Resources(options.cpus, options.memory, options.gpus)
    settings = FleetOptions(options.address, options.workers, resources, options.retries, options.clip)
    with _Bar(options, len(sources)) as bar:
        records = map_fleet(sources, options.output, config, settings, bar)
    done = sum(record.state == DONE for record in records)
    common.write_json(
        options.json,
        dict(
            maps=str(options.output),
            done=done,
            missing=len(records) - done,
            datasets=[asdict(record) | dict(earlier=record.map in bar.earlier) for record in records],
        ),
    )
    common.print_message(options, _map_table(records, bar.earlier))
    common.print_message(options, f"{options.output}: {done} of {len(records)} maps are there")
    return exit_code(records)


def _check_numbers(options: argparse.Namespace) -> None:
    for name, least in (("workers", 0), ("cpus", 1), ("memory", 0), ("gpus", 0), ("retries", 0)):
        value = getattr(options, name)
        if not least <= value < 10_000:  # NaN too
            raise UserError(f"--{name} {value}: give a number from {least} to 9999")


class _Bar:
    """A bar that counts datasets and names those in work, and a line for each that has ended.

    Attributes:
        earlier: the maps that an earlier run has made.
    """

    def __init__(self, options: argparse.Namespace, total: int) -> None:
        self._options = options
        self._bar = common.progress_bar(options, total, "datasets", "dataset")
        self._is_first = True
        self.earlier: set[str] = set()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def __call__(self, progress: FleetProgress) -> None:
        if self._is_first:
            self.earlier = {record.map for record in progress.ended if record.state == DONE}
            self._is_first = False
        for record in progress.ended[self._bar.n :] if not self._bar.disable else ():
            self._bar.write(f"{record.map}: {record.state}", file=sys.stderr)
        self._bar.total = progress.total
        self._bar.n = len(progress.ended)
        running = (f"{Path(name).stem} {text}" for name, text in progress.running.items())
        self._bar.set_postfix_str(", ".join(running))


def _map_table(records: list[Record], earlier: set[str]) -> str:
    rows = [["map", "state", "tries", "frames", "Gaussians", "PSNR", "seconds"]]
    for record in records:
        figures = record.report
        psnr = figures.get("psnr_training")
        rows.append(
            [
                record.map,
                "done before" if record.map in earlier else record.state,
                str(record.attempts),
                str(figures.get("frames", "-")),
                str(figures.get("num_gaussians", "-")),
                "-" if psnr is None else f"{psnr:.1f}",
                f"{record.seconds:.1f}",
            ]
        )
    lines = [format_table(rows)]
    lines += [
        record.error if record.error.startswith(record.source) else f"{record.source}: {record.error}"
        for record in records
        if record.error
    ]
    lines += [f"{record.map}: {text}" for record in records for text in record.warnings]
    return "\n".join(lines)


def _run_query(options: argparse.Namespace) -> int:
    settings = common.read_settings(options)
    common.check_json(options.json)
    if not options.maps.expanduser().is_dir():
        raise UserError(f"{options.maps}: no such folder; `ovs3d fleet map DATA -o {options.maps}` makes one")
    if options.limit < 1:
        raise UserError(f"--limit {options.limit}: give 1 or more")
    with common.progress_bar(options, 0, "indexing", "map") as bar:

        def on_map(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        index = FleetIndex.open(options.maps, settings, on_map)
    answer = index.query(
        options.prompts,
        negatives=options.negatives.split(",") if options.negatives else (),
        threshold=options.threshold,
        limit=options.limit,
    )
    folder = _answer_folder(options.output) if options.output else None
    pictures = {} if folder is None else write_pictures(folder, answer.hits, settings)
    hits = [_describe(hit, pictures.get(index)) for index, hit in enumerate(answer.hits)]
    document = dict(
        maps=answer.num_maps,
        latency_ms=round(answer.latency_ms, 2),
        prompts=[
            dict(prompt=prompt, maps_found=int(found), maps_unsure=int(unsure))
            for prompt, found, unsure in zip(answer.prompts, answer.found, answer.unsure, strict=True)
        ],
        hits=hits,
        skipped=index.skipped,
    )
    if folder is not None:
        common.write_json(str(folder / _HITS), document)
    common.write_json(options.json, document)
    common.print_message(options, _query_table(answer.hits))
    for prompt, found, unsure in zip(answer.prompts, answer.found, answer.unsure, strict=True):
        common.print_message(
            options, f"{prompt}: found in {found} of {answer.num_maps} maps, unsure in {unsure}"
        )
    for reason in index.skipped.values():
        common.print_message(options, f"not searched: {reason}")
    if folder is not None:
        common.print_message(options, f"{folder}: hits.json, {len(pictures)} pictures")
    return 0


def _answer_folder(path: Path) -> Path:
    """Creates the folder of an answer, and deletes the pictures of an earlier answer in it.

    Raises:
        UserError: the folder cannot be written, or its `hits.json` is not that of an answer.
    """
    folder = common.make_output_folder(path)
    earlier = folder / _HITS
    if earlier.exists():
        try:
            names = [hit["picture"] for hit in json.loads(earlier.read_text(encoding="utf-8"))["hits"]]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(
                f"{earlier}: not written by `ovs3d fleet query`, which would overwrite it; choose another "
                "folder"
            ) from None
        for name in names:
            if isinstance(name, str) and name.endswith(".png") and Path(name).name == name:
                (folder / name).unlink(missing_ok=True)
    return folder


def _describe(hit: Hit, picture: str | None) -> dict[str, Any]:
    """A hit as plain values; lengths to a tenth of a millimetre."""
    return dict(
        prompt=hit.prompt,
        map=str(hit.map),
        verdict=hit.verdict,
        presence=round(hit.presence, 4),
        score=round(hit.score, 4),
        center=np.round(hit.center, 4),
        size=np.round(hit.size, 4),
        num_gaussians=hit.num_gaussians,
        views=hit.views,
        keyframe=hit.keyframe_name or None,
        time=hit.time,
        picture=picture,
    )


def _query_table(hits: list[Hit]) -> str:
    rows = [["prompt", "map", "found", "presence", "score", "position (m)", "time (s)"]]
    rows += [
        [
            hit.prompt,
            hit.map.name,
            hit.verdict,
            f"{hit.presence:.2f}",
            f"{hit.score:.2f}",
            "(" + ", ".join(f"{value:.2f}" for value in hit.center) + ")",
            "-" if hit.time is None else f"{hit.time:.2f}",
        ]
        for hit in hits
    ]
    return format_table(rows)
