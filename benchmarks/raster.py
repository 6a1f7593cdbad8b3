"""Times the CPU rasterizer, forward plus backward, against the plain torch reference. Prints JSON.

Run: python benchmarks/rasterizer.py [--sizes small medium large] [--channels 3 16 32] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ovs3d_ros.rasterize import make_rasterizer, reference

SIZES = {"small": (10_000, 160, 120), "medium": (50_000, 320, 240), "large": (200_000, 640, 480)}
REFERENCE_SIZE = (1_000, 80, 60)  # the reference needs memory for every pair of pixel and Gaussian


def make_scene(count: int, width: int, height: int, channels: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Random Gaussians that fill a box in front of one camera: (gaussians, viewmats, Ks)."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    means = (uniform(count, 3) * 2 - 1) * torch.tensor([1.0, 0.75, 1.0]) + torch.tensor([0.0, 0.0, 3.0])
    quats = torch.randn(count, 4, generator=generator)
    scales = torch.exp(torch.randn(count, 3, generator=generator) * 0.4) * 0.3 / count ** (1 / 3)
    opacities, colors = uniform(count) * 0.8 + 0.1, uniform(count, channels)
    K = torch.tensor([[[0.9 * width, 0.0, width / 2], [0.0, 0.9 * width, height / 2], [0.0, 0.0, 1.0]]])
    return [means, quats, scales, opacities, colors], torch.eye(4)[None], K


def milliseconds(
    rasterize: Callable, size: tuple[int, int, int], channels: int, repeats: int
) -> dict[str, float]:
    """Best of `repeats`, after one warm-up."""
    count, width, height = size
    gaussians, viewmats, Ks = make_scene(count, width, height, channels)
    leaves = [tensor.requires_grad_() for tensor in gaussians]
    v_image = torch.ones(1, height, width, channels)
    forward, total = [], []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        image = rasterize(*leaves, viewmats, Ks, width, height)[0]
        forward.append(time.perf_counter() - start)
        torch.autograd.backward(image, v_image)
        total.append(time.perf_counter() - start)
    return {"forward_ms": 1e3 * min(forward[1:]), "forward_backward_ms": 1e3 * min(total[1:])}


def main() -> None:
    """Runs the chosen sizes and prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "medium"])
    parser.add_argument("--channels", nargs="+", type=int, default=[3, 16, 32])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cpu = make_rasterizer("cpu", options.threads)
    rows = []
    for name in options.sizes:
        count, width, height = SIZES[name]
        for channels in options.channels:
            times = milliseconds(cpu, SIZES[name], channels, options.repeats)
            row = {"gaussians": count, "width": width, "height": height, "channels": channels, **times}
            rows.append({key: round(value, 2) for key, value in row.items()})
    count, width, height = REFERENCE_SIZE
    against = {}
    for channels in options.channels:
        fast = milliseconds(cpu, REFERENCE_SIZE, channels, options.repeats)["forward_backward_ms"]
        slow = milliseconds(reference.rasterize, REFERENCE_SIZE, channels, 2)["forward_backward_ms"]
        against[channels] = {
            "cpu_ms": round(fast, 2),
            "reference_ms": round(slow, 1),
            "ratio": round(slow / fast, 1),
        }
    reference_size = {"gaussians": count, "width": width, "height": height, "channels": against}
    print(json.dumps({"threads": options.threads, "cpu": rows, "torch_reference": reference_size}, indent=1))


if __name__ == "__main__":
    main()
