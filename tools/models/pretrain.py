"""Teaches the image tower's trunk to name things: `python tools/models/pretrain.py --data DIR --init TEXT --out DIR`.

On mixed regions the contrastive loss teaches colours at once and shapes hardly at all within an hour of CPU time. Plain
classification of noun, colour and material on crops centred on one thing teaches shapes an order of magnitude faster,
so it comes first; `train_clip.py --fit-head` then ties the trunk to the text tower and learns mixtures.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "world")]

import captions
import crops
import train_clip
from frames import FrameStore

log = logging.getLogger("pretrain")

NUM_CLASSES = (len(captions.NOUNS), len(captions.COLOURS), len(captions.MATERIALS))
MIN_SHARE = 0.3  # of the crop that its thing must fill
WEIGHTS = (2.0, 1.0, 0.5)  # of the losses of noun, colour and material
RECOLOURED = 0.4  # share of a batch whose channels are swapped: its shapes keep their nouns and lose their colours


def object_crops(store: FrameStore, per_instance: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Crops [M, 64, 64, 3] uint8 around single things and their codes [M, 3] of noun, colour and material."""
    images, codes = [], []
    for view in store.views:
        for instance, (left, top, right, bottom, _) in view.boxes.items():
            extent = max(right - left, bottom - top)
            for _ in range(per_instance if extent >= 16 else 0):
                side = extent * np.exp(rng.uniform(math.log(0.9), math.log(1.6)))
                x = (left + right) / 2 + rng.normal(0, 0.05) * side
                y = (top + bottom) / 2 + rng.normal(0, 0.05) * side
                side = float(np.clip(side, 16, 240))
                image, ids = crops._cut(view, x, y, side, side * rng.uniform(0.9, 1.1), rng.normal(0, 6),
                                        crops.CROP_PX, crops.CROP_PX, rng)
                if (ids == view.things[instance]).mean() >= MIN_SHARE:
                    images.append(image)
                    codes.append(store.things[view.things[instance]])
    return np.stack(images), np.stack(codes)


def balanced(nouns: np.ndarray) -> np.ndarray:
    """Sampling probabilities [M]: each noun's share is that of the square root of its crops."""
    weights = 1 / np.sqrt(np.bincount(nouns, minlength=NUM_CLASSES[0])[nouns])
    return weights / weights.sum()


def pretrain(model: torch.nn.Module, images: np.ndarray, codes: np.ndarray, minutes: float, rate: float, rng) -> None:
    """Trains `model.visual.trunk` with three linear heads that are thrown away afterwards."""
    trunk = model.visual.trunk
    heads = torch.nn.Linear(trunk.num_features, sum(NUM_CLASSES))
    optimizer = torch.optim.AdamW([*trunk.parameters(), *heads.parameters()], lr=rate, weight_decay=0.05, fused=True)
    targets, chances = torch.from_numpy(codes).long(), balanced(codes[:, 0])
    start, step, right = time.monotonic(), 0, 0.0
    while (progress := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 30) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        rows = rng.choice(len(images), 96, p=chances)
        batch = train_clip._normalised(crops.augment(images[rows].copy(), rng))
        if rng.random() < 0.5:
            batch = batch.flip(-1)
        recoloured = int(RECOLOURED * len(batch))
        batch[:recoloured] = batch[:recoloured, rng.permutation(3)]
        with torch.autocast("cpu", torch.bfloat16):
            features = trunk.train()(batch)
        logits = heads(features.float()).split(NUM_CLASSES, dim=1)
        first = (0, recoloured, recoloured)  # a recoloured crop teaches its noun only
        losses = [F.cross_entropy(logit[k:], targets[rows[k:], i], label_smoothing=0.05)
                  for i, (k, logit) in enumerate(zip(first, logits))]
        optimizer.zero_grad()
        sum(weight * loss for weight, loss in zip(WEIGHTS, losses)).backward()
        optimizer.step()
        step += 1
        right = 0.97 * right + 0.03 * float((logits[0].argmax(1) == targets[rows, 0]).float().mean())
        if step % 50 == 0:
            log.info("step %d, %.1f min, losses %s, nouns right %.2f", step, 60 * progress * minutes / 60,
                     " ".join(f"{loss.item():.2f}" for loss in losses), right / (1 - 0.97**step))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of training scenes")
    parser.add_argument("--init", type=Path, required=True, help="model folder whose text tower is kept")
    parser.add_argument("--trunk", type=Path, help="model folder whose trunk to go on from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--per-instance", type=int, default=3, help="crops of each thing in each view")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    if not (args.out / "open_clip_config.json").is_file():
        train_clip.create(args.out)
    model, _ = train_clip.load(args.out, weights=False)
    text = {name: value for name, value in train_clip.load(args.init)[0].state_dict().items()
            if not name.startswith("visual.")}
    model.load_state_dict(text, strict=False)
    if args.trunk is not None:
        model.visual.load_state_dict(train_clip.load(args.trunk)[0].visual.state_dict())
    store = FrameStore(args.data)
    store.refresh()
    images, codes = object_crops(store, args.per_instance, rng)
    log.info("%d crops", len(images))
    pretrain(model, images, codes, args.minutes, args.lr, rng)
    train_clip.save(model, args.out)


if __name__ == "__main__":
    main()
