"""Trains ovs3d-tiny-dino without labels.

Usage: `python tools/models/train_dino.py --data DIR --out DIR --minutes 20`.

Self-distillation at patch level. A student sees one crop of a frame, its exponential moving average (the
teacher) another crop with other colours. The student must tell the teacher patches that lie next to one of
its patches from distant patches of the same frame and from patches of other frames (InfoNCE). Patches that
predict each other belong together, so features agree inside an object and differ across its border (Isola et
al., Learning visual groups from co-occurrences in space and time, 2015; teacher and crops as in DINO, Caron
et al., ICCV 2021; dense pairs as in DenseCL, Wang et al., CVPR 2021).
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "world")]

import parallel
from clip_model import average_weights
from crops import augment

log = logging.getLogger("train_dino")

PATCH = 8
SIDE_PX = 96
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
CONFIG = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 0,
    "model_args": {
        "patch_size": PATCH,
        "embed_dim": 128,
        "depth": 4,
        "num_heads": 4,
        "img_size": SIDE_PX,
        "num_classes": 0,
    },
    "pretrained_cfg": {
        "input_size": [3, SIDE_PX, SIDE_PX],
        "fixed_input_size": False,
        "mean": MEAN,
        "std": STD,
        "num_classes": 0,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    },
}


class Student(torch.nn.Module):
    """The vision transformer and a head that is used in training only."""

    def __init__(self) -> None:
        import timm

        super().__init__()
        width = CONFIG["model_args"]["embed_dim"]
        self.trunk = timm.create_model(CONFIG["architecture"], dynamic_img_size=True, **CONFIG["model_args"])
        self.head = torch.nn.Sequential(
            torch.nn.Linear(width, 256), torch.nn.GELU(), torch.nn.Linear(256, 64)
        )

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit patch features before the head [B, N, D] and behind it [B, N, 64]."""
        (tokens,) = self.trunk.forward_intermediates(
            pixels, indices=1, norm=False, intermediates_only=True, output_fmt="NLC"
        )
        return F.normalize(tokens.float(), dim=-1), F.normalize(self.head(tokens).float(), dim=-1)


class Frames:
    """RGB frames of all scenes; no labels are read."""

    def __init__(self, folder: Path) -> None:
        self.images, self._folder, self._known = [], folder, set()

    def refresh(self) -> None:
        for scene in sorted(self._folder.glob("scene_*")):
            if scene.name in self._known:
                continue
            self._known.add(scene.name)
            for frame in json.loads((scene / "transforms.json").read_text())["frames"]:
                self.images.append(cv2.imread(str(scene / frame["file_path"]))[..., ::-1].copy())


def two_crops(image: np.ndarray, rng) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two overlapping square crops, and the positions [N, 2] of their patches in the image, in pixels."""
    height, width = image.shape[:2]
    centre = np.array([rng.uniform(0, width), rng.uniform(0, height)])
    base = np.exp(rng.uniform(np.log(70), np.log(150)))
    crops, places = [], []
    for _ in range(2):
        side = int(min(base * np.exp(rng.uniform(-0.2, 0.2)), height))
        corner = centre - side / 2 + rng.normal(0, 0.12 * base, 2)
        left, top = np.clip(corner, 0, [width - side, height - side]).astype(int)
        flags = cv2.INTER_AREA if side > SIDE_PX else cv2.INTER_LINEAR
        crops.append(
            cv2.resize(image[top : top + side, left : left + side], (SIDE_PX, SIDE_PX), interpolation=flags)
        )
        axis = (np.arange(SIDE_PX // PATCH) + 0.5) * PATCH * side / SIDE_PX
        y, x = np.meshgrid(top + axis, left + axis, indexing="ij")
        places.append(np.stack([x.ravel(), y.ravel()], axis=1))
    return crops, places


def loss_of(cosines: torch.Tensor, near: torch.Tensor, temperature: float = 0.1) -> torch.Tensor:
    """InfoNCE with several positives: mean over queries of minus the mean log-softmax of the near keys.

    Args:
        cosines: [Q, K] cosines of queries and keys; -inf excludes a key.
        near: [Q, K] True where a key lies next to the query in the frame.
    """
    has_near = near.any(dim=1)
    cosines, near = cosines[has_near], near[has_near]
    log_share = (cosines / temperature).log_softmax(dim=1)
    return -(log_share.masked_fill(~near, 0).sum(dim=1) / near.sum(dim=1)).mean()


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(args.seed)
    frames = Frames(args.data)
    student = Student()
    if args.init is not None:
        from safetensors.torch import load_file

        student.trunk.load_state_dict(load_file(args.init / "model.safetensors"))
    teacher = copy.deepcopy(student).eval()
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.04, fused=True
    )
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    frames.refresh()
    rank = parallel.join(student)
    rng = np.random.default_rng([args.seed, rank])
    start, step, running, saved, progress = time.monotonic(), 0, 0.0, time.monotonic(), 0.0
    while progress < 1:
        if rank == 0 and time.monotonic() - saved > 120:
            saved = time.monotonic()
            save(teacher.trunk, args.out)
        rate = args.lr * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        drawn = rng.integers(len(frames.images), size=args.batch)
        crops, places = zip(*[two_crops(frames.images[index], rng) for index in drawn], strict=True)
        views = [((augment(np.stack(side), rng) - mean) / std) for side in zip(*crops, strict=True)]
        with torch.autocast("cpu", torch.bfloat16):
            features, projected = student(views[0])
            with torch.no_grad():
                targets, keys = teacher(views[1])
        loss = 0.0
        others = torch.from_numpy(rng.integers(keys.shape[0] * keys.shape[1], size=args.others))
        at = torch.from_numpy(np.stack(places, axis=1)).float()
        for pair in ((projected, keys), (features, targets)):
            loss = loss + _batch_loss(*pair, at, (args.near, args.far), others)
        optimizer.zero_grad()
        loss.backward()
        progress = parallel.share_gradients(student, (time.monotonic() - start) / (60 * args.minutes))
        torch.nn.utils.clip_grad_norm_(student.parameters(), 3.0)
        optimizer.step()
        step, running = step + 1, 0.95 * running + 0.05 * loss.item()
        average_weights(teacher, student, min(0.99, (step + 1) / (step + 10)))
        if step % 50 == 0 and rank == 0:
            log.info(
                "step %d, %.1f min, %d frames, loss %.3f",
                step,
                (time.monotonic() - start) / 60,
                len(frames.images),
                running / (1 - 0.95**step),
            )
    if rank == 0:
        save(teacher.trunk, args.out)


def _batch_loss(
    queries: torch.Tensor,
    keys: torch.Tensor,
    places: torch.Tensor,
    radii: tuple[float, float],
    others: torch.Tensor,
) -> torch.Tensor:
    """`loss_of` over all patches.

    Near patches compete with far patches of the same image and some patches of other images.

    Args:
        queries: [B, N, D] unit features of the first crops.
        keys: [B, N, D] unit features of the second crops.
        places: [2, B, N, 2] where the patches of both lie in their image, pixels.
        radii: largest distance of a near patch and smallest distance of a far one, in patches.
        others: [M] rows of the flattened `keys` that serve as additional negatives of every query.
    """
    batch, count, width = queries.shape
    spacing = (places[0, :, 1, 0] - places[0, :, 0, 0]).view(batch, 1, 1)
    distance = torch.cdist(places[0], places[1]) / spacing  # [B, N, N] patches
    near = distance < radii[0]
    logits = queries @ keys.transpose(1, 2)
    between = ~near & (distance < radii[1])
    elsewhere = queries @ keys.reshape(-1, width)[others].T  # [B, N, M]
    own = others.div(count, rounding_mode="floor")[None, :] == torch.arange(batch)[:, None]  # [B, M]
    logits = torch.cat(
        [logits.masked_fill(between, -math.inf), elsewhere.masked_fill(own[:, None], -math.inf)], dim=2
    )
    near = torch.cat([near, torch.zeros_like(elsewhere, dtype=torch.bool)], dim=2)
    return loss_of(logits.flatten(0, 1), near.flatten(0, 1))


def save(trunk: torch.nn.Module, folder: Path) -> None:
    """Writes a folder that timm's `local-dir:` reads, weights in half precision."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1))
    save_file(
        {name: value.half().contiguous() for name, value in trunk.state_dict().items()},
        folder / "model.partial",
    )
    (folder / "model.partial").replace(folder / "model.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of training scenes")
    parser.add_argument("--out", type=Path, required=True, help="model folder, written every two minutes")
    parser.add_argument("--init", type=Path, help="model folder to start from")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument(
        "--near", type=float, default=1.6, help="largest distance of a near patch, in patches"
    )
    parser.add_argument("--far", type=float, default=3.5, help="smallest distance of a far patch, in patches")
    parser.add_argument(
        "--others", type=int, default=96, help="patches of other images that serve as negatives"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
