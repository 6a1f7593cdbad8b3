"""Teaches the image tower's trunk to name things.

Usage: `python tools/models/pretrain.py --data DIR --init TEXT --out DIR`.

On mixed regions the contrastive loss learns colours at once, but hardly any shapes within an hour of CPU
time. Classification of noun, colour and material on crops of single objects learns shapes an order of
magnitude faster, so this script runs first. `train_clip.py --fit-head` then connects the trunk with the text
tower and learns mixtures.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "world")]

import captions
import clip_model
import crops
import parallel
from frames import FrameStore

log = logging.getLogger("pretrain")

NUM_CLASSES = (len(captions.NOUNS), len(captions.COLOURS), len(captions.MATERIALS))
WEIGHTS = (2.0, 1.0, 0.5)  # of the losses of noun, colour and material


def draw(store: FrameStore, count: int, rng) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops [count, 3, 64, 64] of single things and their codes [count, 3] of noun, colour and material."""
    images, codes = [], []
    while len(images) < count:
        if (found := crops.sample_object(store, rng)) is not None:
            images.append(found[0])
            codes.append(found[1])
    return clip_model.normalised(crops.augment(np.stack(images), rng)), torch.from_numpy(
        np.stack(codes)
    ).long()


def candidate_classes(codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Classes that may be denied of crops with codes [B, 3]: those that form no held-out pair."""
    held_out = torch.from_numpy(captions.HELD_OUT)
    return (
        ~held_out[codes[:, 1]],
        ~held_out[:-1, codes[:, 0]].T,
        torch.ones(len(codes), NUM_CLASSES[2], dtype=torch.bool),
    )


def naming_loss(logits: torch.Tensor, codes: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the candidates with label smoothing of 0.05.

    Crops with codes beyond the classes are ignored.

    Args:
        logits: [B, classes].
        codes: [B].
        candidates: [B, classes] bool.
    """
    named = codes < logits.shape[1]
    logits, codes, candidates = logits[named], codes[named], candidates[named]
    log_share = logits.masked_fill(~candidates, -math.inf).log_softmax(dim=1)
    uniform = log_share.masked_fill(~candidates, 0).sum(dim=1) / candidates.sum(dim=1)
    right = log_share.gather(1, codes[:, None])[:, 0]
    return -(0.95 * right + 0.05 * uniform).mean()


def pretrain(model: torch.nn.Module, store: FrameStore, args: argparse.Namespace) -> None:
    """Trains `model.visual.trunk` with three temporary linear heads; saves averaged weights."""
    trunk = model.visual.trunk
    learner = torch.nn.ModuleDict(
        {"trunk": trunk, "heads": torch.nn.Linear(trunk.num_features, sum(NUM_CLASSES))}
    )
    rank = parallel.join(learner)
    rng = np.random.default_rng([args.seed, rank])
    average = copy.deepcopy(trunk)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=args.lr, weight_decay=0.05, fused=True)
    loader = ThreadPoolExecutor(1)
    pending = loader.submit(draw, store, args.batch, rng)
    start, step, right, progress = time.monotonic(), 0, 0.0, 0.0
    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = (
                args.lr * min(1.0, (step + 1) / 50) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
            )
        (batch, codes), pending = pending.result(), loader.submit(draw, store, args.batch, rng)
        with torch.autocast("cpu", torch.bfloat16):
            features = trunk.train()(batch)
        logits = learner["heads"](features.float()).split(NUM_CLASSES, dim=1)
        losses = [
            naming_loss(logit, code, candidates)
            for logit, code, candidates in zip(logits, codes.T, candidate_classes(codes), strict=True)
        ]
        optimizer.zero_grad()
        sum(weight * loss for weight, loss in zip(WEIGHTS, losses, strict=True)).backward()
        progress = parallel.share_gradients(learner, (time.monotonic() - start) / (60 * args.minutes))
        optimizer.step()
        step += 1
        clip_model.average_weights(average, trunk, min(0.995, (step + 1) / (step + 10)))
        right = 0.97 * right + 0.03 * float((logits[0].argmax(1) == codes[:, 0]).float().mean())
        if step % 50 == 0 and rank == 0:
            log.info(
                "step %d, %.1f min, losses %s, nouns right %.2f",
                step,
                progress * args.minutes,
                " ".join(f"{loss.item():.2f}" for loss in losses),
                right / (1 - 0.97**step),
            )
        if step % 500 == 0 and rank == 0:
            save_with_trunk(model, average, args.out)
    loader.shutdown()
    if rank == 0:
        save_with_trunk(model, average, args.out)


def save_with_trunk(model: torch.nn.Module, trunk: torch.nn.Module, folder: Path) -> None:
    """Writes the model with another trunk in place of its own."""
    model = copy.deepcopy(model)
    model.visual.trunk.load_state_dict(trunk.state_dict())
    clip_model.save(model, folder)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of training scenes")
    parser.add_argument("--init", type=Path, required=True, help="model folder whose text tower is kept")
    parser.add_argument("--trunk", type=Path, help="model folder whose trunk to start from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=96, help="crops per step and process")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(args.seed)
    if not (args.out / "open_clip_config.json").is_file():
        clip_model.create(args.out)
    model, _ = clip_model.load(args.out, weights=False)
    text = {
        name: value
        for name, value in clip_model.load(args.init)[0].state_dict().items()
        if not name.startswith("visual.")
    }
    model.load_state_dict(text, strict=False)  # the image tower is new
    if args.trunk is not None:
        model.visual.load_state_dict(clip_model.load(args.trunk)[0].visual.state_dict())
    store = FrameStore(args.data)
    store.refresh()
    log.info("%d frames", len(store.views))
    pretrain(model, store, args)


if __name__ == "__main__":
    main()
