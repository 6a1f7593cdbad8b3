"""Measures latency of text queries and memory of maps of different sizes. Prints JSON.

Run: python benchmarks/query.py [--sizes 50000 1000000] [--prompts 10 100] [--threads 2] [--repeats 30]
     python benchmarks/query.py --ask current --sizes 50000
     python benchmarks/query.py --map room.ovs3d --against ../other_checkout

The script maps the demo scene, or loads a map of it, and repeats it side by side up to each size, so that
queries find real objects. Half of the prompts, if there are so many, name objects of the scene; the others
are absent things and nouns of the presence decision. Texts are encoded before the timing starts, as the
pipeline caches them. `--ask fresh` asks a snapshot what it was never asked: each question has another limit
of objects, none of which is reached, so that no answer is remembered. `repeated` asks the same again, which
is. `current` asks afresh without a snapshot: of the pipeline's own map, which does not change. `--against`
asks this package and that of another checkout in turn, query by query, each in a process of its own, and
tells how their answers differ.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovs3d_ros.config import Config, override
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.demo.scene import SHIPPED
from ovs3d_ros.evaluation.calibration import map_scene
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import MapSnapshot

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("fresh", "repeated", "current")
MOST = 10**6  # objects of a prompt, a limit that is never reached
SEMANTIC = ("weight", "views", "selection")
SETTINGS = {"clip.model": "bundled", "train.steps_per_keyframe": 5}


def enlarge(snapshot: MapSnapshot, count: int) -> MapSnapshot:
    """Repeats a map side by side up to `count` Gaussians."""
    rows = torch.arange(count) % snapshot.num_gaussians
    return dataclasses.replace(
        snapshot,
        gaussians=enlarge_rows(snapshot.gaussians, count),
        packed_codes=snapshot.packed_codes[rows],
        packed_levels=snapshot.packed_levels[rows],
        **{name: getattr(snapshot, name)[rows] for name in SEMANTIC},
    )


def enlarge_rows(tensors: dict[str, torch.Tensor], count: int) -> dict[str, torch.Tensor]:
    """Repeats the Gaussians of a map side by side."""
    given = len(tensors["means"])
    larger = {name: tensor[torch.arange(count) % given] for name, tensor in tensors.items()}
    span = tensors["means"].amax(0) - tensors["means"].amin(0)
    larger["means"][:, 0] += torch.arange(count) // given * (span[0] + 1.0)
    return larger


def mib_per_100k(snapshot: MapSnapshot) -> dict[str, float]:
    """MiB per 100,000 Gaussians of a snapshot."""

    def mib(tensors) -> float:
        # With one level, two tensors share their memory.
        sizes = {t.data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return round(sum(sizes.values()) / snapshot.num_gaussians * 1e5 / 2**20, 2)

    semantics = [getattr(snapshot, name) for name in SEMANTIC]
    for codes in (snapshot.packed_codes, snapshot.packed_levels):
        semantics += [codes.values, codes.scales, codes.steps]
    return dict(geometry=mib(snapshot.gaussians.values()), semantics=mib(semantics))


def make_map(path: Path) -> None:
    """Maps the demo scene into a file."""
    pipeline = Ovs3d(override(Config(), SETTINGS))
    for _ in map_scene(pipeline, open_dataset(SHIPPED)):
        pass
    pipeline.save(path)


def names_to_ask(pipeline: Ovs3d, count: int) -> list[str]:
    """The prompts of one query."""
    there = [name for name in open_dataset(SHIPPED).classes or () if name]
    absent = [name for name in (SHIPPED / "absent.txt").read_text().split("\n") if name]
    others = dict.fromkeys([*absent, *pipeline.queries.common_names()])
    names = list(dict.fromkeys([*there[: count // 2], *others]))[:count]
    if len(names) < count:
        sys.exit(f"query: there are {len(names)} names to ask for, not {count}")
    return names


class Server:
    """Asks a map with the package of this process.

    Args:
        path: the map.
        threads: of torch.
    """

    def __init__(self, path: str, threads: str) -> None:
        self._pipeline = Ovs3d.load(path, SETTINGS)
        self._params, self._plain = self._pipeline.freeze()
        self._asked = 0
        torch.set_num_threads(int(threads))

    def prepare(self, kind: str, size: str, prompts: str, warm_up: str) -> None:
        """Makes a map of this size, and asks it so many prompts so many times."""
        self._names = names_to_ask(self._pipeline, int(prompts))
        self._snapshot: MapSnapshot | None = enlarge(self._plain, int(size))
        self._kind = kind
        if kind == "current":
            self._pipeline.restore(enlarge_rows(self._params, int(size)), self._snapshot, "enlarged")
            self._snapshot = None
        for _ in range(int(warm_up)):
            self.ask()

    def ask(self) -> tuple[float, float]:
        """Milliseconds of the clock and of the processors that one query takes."""
        self._asked += self._kind != "repeated"
        limit = MOST - self._asked
        wall, processor = time.perf_counter(), time.process_time()
        self._result = self._pipeline.query(self._names, snapshot=self._snapshot, max_instances=limit)
        return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - processor)

    def answer(self) -> dict[str, Any]:
        """The last answer, and the memory of the map."""
        result = self._result
        return dict(
            found=result.found,
            presence=result.presence,
            labels=result.labels.numpy().astype(np.int16),
            scores=result.scores.numpy(),
            objects=[(o.label, o.num_gaussians, o.center, o.size) for o in result.objects],
            memory=mib_per_100k(self._plain),
        )


def serve(path: str, threads: str) -> None:
    """Calls a method of `Server` for each line of the standard input, and pickles what it returns."""
    replies, sys.stdout = sys.stdout.buffer, sys.stderr  # whatever prints must not get among the replies
    server = Server(path, threads)
    for line in sys.stdin:
        name, *arguments = line.split()
        pickle.dump(getattr(server, name)(*arguments), replies)
        replies.flush()


class Asked:
    """A `Server` in a process of its own, with the package of one checkout.

    Args:
        root: the checkout.
        path: the map.
        threads: of torch.
    """

    def __init__(self, root: Path, path: Path, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(path), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # As the package sets it where it is imported before torch, which its commands do.
            env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": str(root)},
        )

    def call(self, name: str, *arguments: object) -> Any:
        """What a method of the server returns."""
        requests, replies = self._process.stdin, self._process.stdout
        assert requests is not None and replies is not None
        requests.write(" ".join(map(str, (name, *arguments))).encode() + b"\n")
        requests.flush()
        try:
            return pickle.load(replies)
        except EOFError:
            sys.exit("query: the process that asks has ended; its message is above")

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def summary(taken: np.ndarray) -> dict[str, float]:
    """Median and more of [repeats, 2] milliseconds of the clock and of the processors."""
    wall, processor = taken.T
    values = np.median(wall), np.percentile(wall, 95), wall.min(), np.median(processor), processor.min()
    names = "p50_ms", "p95_ms", "min_ms", "processor_p50_ms", "processor_min_ms"
    return {name: round(float(value), 1) for name, value in zip(names, values, strict=True)}


def differences(ours: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """How two answers to one query differ."""
    pairs = list(zip(ours["objects"], others["objects"], strict=False))
    return dict(
        labelled=int((ours["labels"] > 0).sum()),
        labels=int((ours["labels"] != others["labels"]).sum()),
        scores=float(np.abs(ours["scores"] - others["scores"]).max()),
        found=int((ours["found"] != others["found"]).sum()),
        presence=float(np.abs(ours["presence"] - others["presence"]).max()),
        objects=[len(ours["objects"]), len(others["objects"])],
        objects_of_other_size=sum(a[:2] != b[:2] for a, b in pairs),
        metres=max((float(np.abs(np.subtract(a[2:], b[2:])).max()) for a, b in pairs), default=0.0),
    )


def measure(
    asked: dict[str, Asked], kind: str, size: int, prompts: int, args: argparse.Namespace
) -> dict[str, Any]:
    """One row of the table, of all checkouts."""
    taken: dict[str, list[Any]] = {name: [] for name in asked}
    for process in asked.values():
        process.call("prepare", kind, size, prompts, args.warm_up)
    for _ in range(args.repeats):
        for name, process in asked.items():
            taken[name].append(process.call("ask"))
    row = dict(asked=kind, gaussians=size, prompts=prompts)
    for name, values in taken.items():
        row[name] = summary(np.array(values))
    answers = [process.call("answer") for process in asked.values()]
    if len(answers) > 1:
        row["differences"] = differences(*answers)
    return row


def main() -> None:
    """Maps, asks and prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--map", type=Path, help="of the demo scene; default: the script maps it")
    parser.add_argument("--ask", nargs="+", choices=KINDS, default=["fresh"], help="what is measured")
    parser.add_argument("--sizes", nargs="+", type=int, default=[50_000, 1_000_000])
    parser.add_argument("--prompts", nargs="+", type=int, default=[10])
    parser.add_argument("--threads", type=int, default=2, help="of torch, while the queries run")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--warm-up", type=int, default=3, help="queries before those that count")
    parser.add_argument("--against", type=Path, help="another checkout, whose kernels its own folder keeps")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.map or Path(folder) / "demo.ovs3d"
        if args.map is None:
            make_map(path)
        roots = dict(this=ROOT, **({"against": args.against.resolve()} if args.against else {}))
        asked = {name: Asked(root, path, args.threads) for name, root in roots.items()}
        sets = [(kind, size, count) for kind in args.ask for size in args.sizes for count in args.prompts]
        rows = [measure(asked, *chosen, args) for chosen in sets]
        memory = asked["this"].call("answer")["memory"]
        for process in asked.values():
            process.close()
    document = dict(
        threads=args.threads,
        load=[round(v, 1) for v in os.getloadavg()],
        queries=rows,
        mib_per_100k_gaussians=memory,
    )
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        main()
