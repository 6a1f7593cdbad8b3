"""Times the CPU rasterizer, forward plus backward, projection included. Prints one JSON document.

    python benchmarks/raster.py [--sizes small medium large] [--channels 3 16 32] [--threads 1 2]
                                [--peer package.module:callable ...] [--json FILE]

Contestants take turns, round by round, so a busy machine slows all of them alike. Times are medians over the
rounds; ratios are medians of the ratios within a round. `fastest_ms` is the shortest of all rounds; with many
short rounds a busy machine disturbs it least. A peer is any callable with the arguments of
`ovs3d_ros.rasterize.Rasterizer.__call__` that returns the image first. gsplat takes part on a machine with a
GPU (`absent` gives the reason otherwise). The plain torch reference takes part on a small scene. `harmonics`
compares spherical harmonics of degree 3 in the rasterizer with those in torch. Start-up and memory are
measured in separate processes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from documents import print_document
from torch import Tensor

from ovs3d_ros.rasterize import Splats, Views, make_rasterizer, reference, spherical_harmonics
from ovs3d_ros.types import UserError

SIZES = {"small": (10_000, 160, 120), "medium": (50_000, 320, 240), "large": (200_000, 640, 480)}
REFERENCE_SIZE = (1_000, 80, 60)  # small: the reference needs memory for every pair of pixel and Gaussian


def make_scene(count: int, width: int, height: int, channels: int) -> tuple[Splats, Tensor, Views]:
    """Random Gaussians that fill a box in front of one camera, their colors and the camera."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    means = (uniform(count, 3) * 2 - 1) * torch.tensor([1.0, 0.75, 1.0]) + torch.tensor([0.0, 0.0, 3.0])
    quats = torch.randn(count, 4, generator=generator)
    scales = torch.exp(torch.randn(count, 3, generator=generator) * 0.4) * 0.3 / count ** (1 / 3)
    opacities, colors = uniform(count) * 0.8 + 0.1, uniform(count, channels)
    K = torch.tensor([[[0.9 * width, 0.0, width / 2], [0.0, 0.9 * width, height / 2], [0.0, 0.0, 1.0]]])
    return Splats(means, quats, scales, opacities), colors, Views(torch.eye(4)[None], K, width, height)


def one_round(
    rasterize: Callable, scene: tuple[Splats, Tensor, Views], device: str = "cpu"
) -> dict[str, float]:
    """Milliseconds of one forward and backward pass: wall-clock, and processor time of the whole process."""
    splats, colors, views = scene
    leaves = [tensor.detach().to(device).requires_grad_() for tensor in (*splats.tensors, colors)]
    views = replace(views, viewmats=views.viewmats.to(device), Ks=views.Ks.to(device))
    start, cpu = time.perf_counter(), time.process_time()
    image = rasterize(Splats(*leaves[:4]), leaves[4], views)[0]
    forward, spent = time.perf_counter() - start, time.process_time() - cpu
    v_image = torch.ones_like(image)
    start, cpu = time.perf_counter(), time.process_time()
    torch.autograd.backward(image, v_image)
    if device != "cpu":
        torch.cuda.synchronize()
    total, spent = forward + time.perf_counter() - start, spent + time.process_time() - cpu
    return {"forward_ms": 1e3 * forward, "forward_backward_ms": 1e3 * total, "processor_ms": 1e3 * spent}


def race(
    contestants: dict[str, tuple[Callable, str]], size: tuple[int, int, int], channels: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Median milliseconds of each contestant (callable, device), and its time over the first one's."""
    scene = make_scene(*size, channels)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for number in range(1 + repeats):
        for name, (rasterize, device) in contestants.items():
            times = one_round(rasterize, scene, device)
            if number:  # the first round compiles and warms caches
                rounds[name].append(times)
    first = next(iter(rounds.values()))
    result = {}
    for name, times in rounds.items():
        result[name] = {key: round(statistics.median(t[key] for t in times), 2) for key in times[0]}
        ratios = [
            t["forward_backward_ms"] / f["forward_backward_ms"] for t, f in zip(times, first, strict=True)
        ]
        result[name]["over_first"] = round(statistics.median(ratios), 3)
        result[name]["fastest_ms"] = round(min(t["forward_backward_ms"] for t in times), 2)
    return result


def harmonics(rasterize: Callable, repeats: int) -> dict[str, dict[str, float]]:
    """Spherical harmonics of degree 3 in the rasterizer, against those in torch before it; medium size."""

    def inside(splats: Splats, sh: Tensor, views: Views) -> tuple:
        return rasterize(splats, sh[:, :0], views, sh=sh.view(-1, 16, 3))

    def before(splats: Splats, sh: Tensor, views: Views) -> tuple:
        (center,) = spherical_harmonics.camera_centers(views.viewmats)
        return rasterize(
            splats, spherical_harmonics.sh_to_colors(sh.view(-1, 16, 3), splats.means, center), views
        )

    return race({"fused": (inside, "cpu"), "in torch": (before, "cpu")}, SIZES["medium"], 48, repeats)


def start(cache: str) -> dict[str, float]:
    """Seconds of a fresh process, torch imported, until every kernel of a mapping session has run once.

    Like `ovs3d_ros.warm_up`, it runs a training step (RGB and depth), a feature render and a lift.
    """
    script = (
        "import json, time, torch; torch.set_num_threads(1);"
        "wall, cpu = time.perf_counter(), time.process_time();"
        "from ovs3d_ros.rasterize import make_rasterizer; import raster; render = make_rasterizer('cpu', 1);"
        "splats, colors, views = raster.make_scene(50, 32, 32, 32);"
        "sh = torch.rand(50, 4, 3).requires_grad_();"
        "leaves = raster.Splats(*(t.clone().requires_grad_() for t in splats.tensors));"
        "render(leaves, colors[:, :1].clone().requires_grad_(), views, sh)[0].sum().backward();"
        "render(splats, colors, views); render.lift(splats, torch.rand(1, 32, 32, 32), views);"
        "print(json.dumps(dict(seconds=time.perf_counter() - wall, processor_s=time.process_time() - cpu)))"
    )
    return _run_process(script, NUMBA_CACHE_DIR=cache)


def memory(size: tuple[int, int, int], channels: int, threads: int) -> dict[str, float]:
    """Peak memory of a fresh process after one forward and backward pass, and before it, in MiB."""
    script = (
        "import json, torch, raster; from ovs3d_ros.rasterize import make_rasterizer;"
        f"cpu_rasterizer = make_rasterizer('cpu', {threads}); raster.one_round(cpu_rasterizer,"
        f"raster.make_scene(50, 32, 32, {channels})); before = raster.peak_mib();"
        f"raster.one_round(cpu_rasterizer, raster.make_scene(*{size}, {channels}));"
        "print(json.dumps(dict(peak_mib=raster.peak_mib(), before_mib=before)))"
    )
    return _run_process(script)


def peak_mib() -> float:
    """Largest resident memory of this process so far. On Linux getrusage would count the parent's too."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def _run_process(script: str, **environment: str) -> dict[str, float]:
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return {name: round(value, 2) for name, value in json.loads(done.stdout).items()}


def _contestants(
    threads: list[int], peers: list[str]
) -> tuple[dict[str, tuple[Callable, str]], dict[str, str]]:
    """(callable, device) of each contestant, and the reason of each absence, by name."""
    contestants = {f"cpu, threads {n}": (make_rasterizer("cpu", n), "cpu") for n in threads}
    for peer in peers:
        module, _, name = peer.partition(":")
        contestants[peer] = (getattr(importlib.import_module(module), name), "cpu")
    try:
        contestants["gsplat"] = (make_rasterizer("gsplat"), "cuda")
    except UserError as error:
        return contestants, {"gsplat": str(error)}
    return contestants, {}


def main() -> None:
    """Runs the benchmarks and prints one JSON document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--channels", nargs="+", type=int, default=[3, 16, 32])
    parser.add_argument(
        "--threads", nargs="+", type=int, default=[2, 1], help="numbers of threads; ratios refer to the first"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peer", nargs="*", default=[], metavar="MODULE:CALLABLE")
    parser.add_argument("--json", type=Path, help="also write the document to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    contestants, absent = _contestants(options.threads, options.peer)
    rows = []
    for name in options.sizes:
        for channels in options.channels:
            sizes = dict(zip(("gaussians", "width", "height"), SIZES[name], strict=True))
            rows.append(
                {
                    **sizes,
                    "channels": channels,
                    "times": race(contestants, SIZES[name], channels, options.repeats),
                }
            )
    small = {**dict(list(contestants.items())[:1]), "torch reference": (reference.rasterize, "cpu")}
    with tempfile.TemporaryDirectory() as cache:
        starts = {"cold": start(cache), "cached": start(cache)}
    report = {
        "processors": os.cpu_count(),
        "repeats": options.repeats,
        "absent": absent,
        "races": rows,
        "reference_race": {
            "gaussians": REFERENCE_SIZE[0],
            "width": REFERENCE_SIZE[1],
            "height": REFERENCE_SIZE[2],
            **{str(d): race(small, REFERENCE_SIZE, d, 3) for d in options.channels},
        },
        "harmonics": harmonics(next(iter(contestants.values()))[0], options.repeats),
        "start": starts,
        "memory": {
            "gaussians": 200_000,
            "width": 640,
            "height": 480,
            "channels": 32,
            **memory(SIZES["large"], 32, options.threads[0]),
        },
    }
    print_document(report, options.json)


if __name__ == "__main__":
    main()
