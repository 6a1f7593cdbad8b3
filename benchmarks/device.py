"""Speed, memory and quality of mapping on this machine's device, ideally a GPU. Prints one JSON document.

    python benchmarks/device.py [--device auto] [--gaussians 100000] [--steps 100] [--horizon 1000]
                                [--clip ViT-B-16]

`quality`: PSNR of held-out views of the demo scene after `--horizon` steps, on the device and on the CPU.
`training`: steps per second in maps of `--gaussians` and of twice as many, and peak memory per 100,000
Gaussians. `keyframes`: keyframes per second. Each is encoded by a full-size CLIP, seeded, lifted and trained
for `train.steps_per_keyframe` steps. The CLIP has random weights, which cost as much time as trained ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import open_clip
import torch
from lift import fill_up
from mapping import run_mode

from ovs3d_ros.config import Config, override, resolve_device
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.demo.scene import SHIPPED
from ovs3d_ros.encoders.clip import ClipEncoder
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.warm_up import warm_up

UNTIMED = 5  # first keyframes, during which caches and allocators settle


def quality(device: str, horizon: int) -> dict[str, float]:
    """Held-out PSNR in dB, by device."""
    settings = {"train.final_steps": horizon}
    return {
        name: run_mode("offline", str(SHIPPED), 8, {**settings, "compute.device": name})["end"]["psnr"]
        for name in dict.fromkeys((device, "cpu"))
    }


def training(device: str, counts: tuple[int, int], steps: int) -> dict:
    """Steps per second at each map size, and on a GPU MiB per 100,000 Gaussians."""
    rates, sizes, peaks = [], [], []
    for count in counts:
        pipeline = Ovs3d(
            override(
                Config(), {"compute.device": device, "map.max_gaussians": 2 * count, "train.densify_every": 0}
            ),
            encode=False,
        )
        warm_up(pipeline)
        for frame in open_dataset(SHIPPED):
            pipeline.add_frame(frame)
        fill_up(pipeline, count)
        pipeline.optimize(UNTIMED * 6)  # past the coarse visits of most keyframes
        start = _now(device)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        pipeline.optimize(steps)
        rates.append(round(steps / (_now(device) - start), 2))
        sizes.append(pipeline.stats["num_gaussians"])
        if device == "cuda":
            peaks.append(torch.cuda.max_memory_allocated() / 2**20)
    growth = round(1e5 * (peaks[1] - peaks[0]) / (sizes[1] - sizes[0]), 1) if peaks else None
    return {
        "gaussians": sizes,
        "steps_per_second": rates,
        "peak_mib": peaks,
        "mib_per_100k_gaussians": growth,
    }


def keyframes(device: str, model: str) -> dict:
    """Keyframes per second including their features, and the time of each part in ms."""
    config = override(Config(), {"compute.device": device})
    warm_up(Ovs3d(config, encode=False))
    tower = open_clip.create_model(model).eval().to(device)
    tower.visual.to(memory_format=torch.channels_last)
    clip = ClipEncoder(tower, open_clip.get_tokenizer(model), model, config.clip, device)
    pipeline = Ovs3d(config, clip=clip)
    times = []
    for frame in open_dataset(SHIPPED):
        start = _now(device)
        if pipeline.add_frame(frame):
            added = _now(device)
            pipeline.optimize(pipeline.config.train.steps_per_keyframe)
            times.append((1e3 * (added - start), 1e3 * (_now(device) - added)))
    add_ms, train_ms = (sum(column) / len(column) for column in zip(*times[UNTIMED:], strict=True))
    return {
        "encoder": f"{model}, {clip.mode}, random weights",
        "keyframes_per_second": round(1e3 / (add_ms + train_ms), 2),
        "encode_seed_lift_ms": round(add_ms, 1),
        "train_ms": round(train_ms, 1),
    }


def _now(device: str) -> float:
    """The time in seconds, after the device has finished all pending work."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--gaussians", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--horizon", type=int, default=1000)
    parser.add_argument("--clip", default="ViT-B-16", help="open_clip model")
    options = parser.parse_args()
    device = resolve_device(override(Config(), {"compute.device": options.device}).compute)
    report = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "training": training(device, (options.gaussians, 2 * options.gaussians), options.steps),
        "keyframes": keyframes(device, options.clip),
        "quality": quality(device, options.horizon),
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
