"""Trains ovs3d-tiny-clip.

Usage: `python tools/models/train_clip.py --data DIR --out DIR --text-steps 500 --minutes 60`.

Contrastive with the sigmoid loss (Zhai et al., SigLIP, ICCV 2023) on soft targets: the share of a region that
fits a caption. Half of the regions are crops on their own, half are cells and rectangles of enlarged windows,
pooled from one feature map, because the dense mode reads the same map.

The text tower learns first (`--text-steps`), against a table of attribute vectors in place of an image tower,
which costs minutes. Then the image tower learns with the text tower locked, and `--joint` trains both.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "world")]

import captions
import crops
import dense_windows
import parallel
import vocabulary
from clip_model import DIM, average_weights, create, load, normalised, save
from frames import FrameStore

from ovs3d_ros.encoders.precision import image_autocast

log = logging.getLogger("train_clip")

NOUN_NAMES = [f"a {noun}" for noun in captions.NOUNS]
COLOUR_NAMES = [f"a {colour} object" for colour in captions.COLOURS]


class Batch:
    """One batch of crops, windows, large windows, captions and targets, drawn by one generator."""

    def __init__(self, store: FrameStore, counts: Sequence[int], rng) -> None:
        num_crops, *num_windows = counts
        images, shares = zip(*[crops.sample_crop(store, rng) for _ in range(num_crops)], strict=True)
        drawn = [
            list(zip(*[sample(store, rng) for _ in range(count)], strict=True))
            for sample, count in zip(
                (crops.sample_window, dense_windows.sample_view), num_windows, strict=True
            )
            if count
        ]
        shares = np.concatenate([np.stack(shares), *(inside for kind in drawn for inside in kind[2])])
        self.kept = torch.from_numpy(np.flatnonzero(shares.any(axis=1)))  # R regions that show something
        present = shares.any(axis=0)
        shares, things = shares[self.kept.numpy()][:, present], store.things[present]  # [R, K]
        told = draw_captions(shares, things, rng)
        self.texts = [caption.text for caption in told]
        self.targets = torch.from_numpy(captions.targets(told, things, shares))  # [R, T]
        self.nouns, self.colours = (
            torch.from_numpy(_summed(shares, things[:, column], len(names)))
            for column, names in enumerate((captions.NOUNS, captions.COLOURS))
        )
        names = dense_windows.names_of(things)
        named = _summed(shares[:, names >= 0], names[names >= 0], len(dense_windows.NAMES))
        self.names = torch.from_numpy(named), torch.from_numpy(dense_windows.open_names(named))
        nouns, colours = captions.open_questions(things, shares)
        # Shape [R, T].
        self.scored = torch.from_numpy(captions.scored_captions(told, self.targets.numpy(), nouns, colours))
        self.open = [torch.from_numpy(codes) for codes in (nouns, colours)]  # [R, nouns], [R, colours]
        self.crops = normalised(crops.augment(np.stack(images), rng))
        # For each size of windows: [W, 3, H, W] pixels and [W, regions, cells].
        self.windows = [normalised(crops.augment(np.stack(kind[0]), rng)) for kind in drawn]
        self.regions = [torch.from_numpy(np.stack(kind[1])) for kind in drawn]


def _summed(shares: np.ndarray, codes: np.ndarray, count: int) -> np.ndarray:
    """Shares [R, K] of things, added up over the things that have the same code: [R, count] float32."""
    return (shares @ (codes[:, None] == np.arange(count))).astype(np.float32)


def draw_captions(shares: np.ndarray, things: np.ndarray, rng) -> list[captions.Caption]:
    """Draws distinct captions for the regions of a batch [R, K], and a third as many that fit none."""
    drawn = [captions.caption_of(*_things(share, things, rng), rng) for share in shares if share.any()]
    main_things = [tuple(things[np.argmax(share)]) for share in shares]
    drawn += [captions.negative_caption(main_things, rng) for _ in range(len(shares) // 3)]
    return list({caption.text: caption for caption in drawn}.values())


def _things(share: np.ndarray, things: np.ndarray, rng) -> tuple[tuple, tuple | None]:
    """Draws an object with its share as probability, and perhaps another object of the region."""
    first, second = rng.choice(len(share), p=share / share.sum(), size=2)
    return tuple(things[first]), tuple(things[second]) if second != first else None


def embed_regions(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """[R, D] unit embeddings of the batch's crops and regions."""
    with image_autocast("auto", "cpu"):
        parts = [model.visual(batch.crops)]
        for windows, regions in zip(batch.windows, batch.regions, strict=True):
            cells = model.visual.trunk.forward_features(windows).flatten(2).transpose(1, 2)  # [W, cells, C]
            parts.append(model.visual.head((regions.to(cells.dtype) @ cells).flatten(0, 1)))
    return F.normalize(torch.cat(parts).float()[batch.kept], dim=-1)


def loss_of(
    model: torch.nn.Module,
    regions: torch.Tensor,
    texts: torch.Tensor,
    targets: torch.Tensor,
    scored: torch.Tensor,
) -> torch.Tensor:
    """Mean over regions of the binary cross-entropies with all captions that are `scored` for them."""
    logits = model.logit_scale.exp().clamp(5.0, 20.0) * regions @ texts.T + model.logit_bias
    return F.binary_cross_entropy_with_logits(logits, targets, weight=scored.float(), reduction="sum") / len(
        regions
    )


@torch.no_grad()
def fit_head(
    model: torch.nn.Module, batch: Batch, noun_texts: torch.Tensor, colour_texts: torch.Tensor
) -> None:
    """Initialises the projection by ridge regression from pooled features to texts of the objects.

    Pooled activations are all positive. With a random projection all images start at almost the same
    embedding, and take thousands of steps to separate.
    """
    features = model.train().visual.trunk(batch.crops)  # [B, C]
    count = len(features)
    goal = batch.nouns[:count] @ noun_texts + batch.colours[:count] @ colour_texts  # [B, D]
    mean, centre = features.mean(dim=0), goal.mean(dim=0)
    centred = features - mean
    gram = centred.T @ centred
    gram.diagonal().add_(0.03 * gram.trace() / len(gram) + 1e-6)
    weight = torch.linalg.solve(gram, centred.T @ (goal - centre)).T  # [D, C]
    model.visual.head.proj.weight.copy_(weight)
    model.visual.head.proj.bias.copy_(centre - weight @ mean)


def naming_loss(
    model: torch.nn.Module,
    regions: torch.Tensor,
    texts: torch.Tensor,
    shares: torch.Tensor,
    left_open: torch.Tensor,
) -> torch.Tensor:
    """Cross-entropy of a softmax over names with shares [R, names]; it teaches shapes faster early on."""
    logits = model.logit_scale.exp().clamp(5.0, 20.0) * regions @ texts.T
    log_share = logits.masked_fill(left_open & (shares == 0), -math.inf).log_softmax(dim=-1)
    return -(shares * log_share.masked_fill(shares == 0, 0)).sum(dim=-1).mean()


class TextBank:
    """Embeds captions; caches the embeddings while the text tower is locked."""

    def __init__(self, model: torch.nn.Module, tokenizer, locked: bool) -> None:
        self._model, self._tokenizer, self._locked = model, tokenizer, locked
        self._rows: dict[str, torch.Tensor] = {}

    def __call__(self, texts: list[str]) -> torch.Tensor:
        if not self._locked:
            return self._model.encode_text(self._tokenizer(texts), normalize=True)
        missing = [text for text in texts if text not in self._rows]
        if missing:
            with torch.no_grad():
                self._rows.update(
                    zip(
                        missing,
                        self._model.encode_text(self._tokenizer(missing), normalize=True),
                        strict=True,
                    )
                )
        return torch.stack([self._rows[text] for text in texts])


class AttributeTable(torch.nn.Module):
    """One vector per noun, colour and material; a region is the sum over objects, weighted by share.

    The table takes the place of the image tower while the text tower learns captions and unknown words.
    """

    def __init__(self) -> None:
        super().__init__()
        sizes = (len(captions.NOUNS), len(captions.COLOURS), len(captions.MATERIALS))
        self.tables = torch.nn.ModuleList(torch.nn.Embedding(size, DIM) for size in sizes)

    def forward(self, things: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        # Shape [K, D].
        vectors = F.normalize(
            sum(table(codes) for table, codes in zip(self.tables, things.T, strict=True)), dim=-1
        )
        return F.normalize(shares @ vectors, dim=-1)


def train_text(model: torch.nn.Module, tokenizer, steps: int, rng) -> None:
    """Trains text tower, logit scale and bias against an `AttributeTable`.

    The regions are random and contain no held-out pairs.
    """
    table = AttributeTable()
    things = np.array(
        [
            (captions.NOUNS.index(n), captions.COLOURS.index(c), captions.MATERIALS.index(m))
            for n, spec in vocabulary.NOUNS.items()
            for c in spec.colours
            for m in spec.materials
            if (c, n) not in vocabulary.HELD_OUT_PAIRS
        ]
    )
    parameters = [*table.parameters(), *model.text.parameters(), model.logit_scale, model.logit_bias]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        shares = np.zeros((192, len(things)), np.float32)
        for row in shares:
            several = rng.integers(1, 4)
            row[rng.integers(len(things), size=several)] = rng.dirichlet(np.ones(several))
        shares /= shares.sum(axis=1, keepdims=True)
        drawn = draw_captions(shares, things, rng)
        targets = torch.from_numpy(captions.targets(drawn, things, shares))
        scored = captions.scored_captions(drawn, targets.numpy(), *captions.open_questions(things, shares))
        regions = table(torch.from_numpy(things), torch.from_numpy(shares))
        texts = model.encode_text(tokenizer([c.text for c in drawn]), normalize=True)
        loss = loss_of(model, regions, texts, targets, torch.from_numpy(scored))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            log.info("text step %d, loss %.3f", step, loss.item())


def train(args: argparse.Namespace) -> None:
    """Trains the text tower, then the image tower."""
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    if not (args.out / "open_clip_config.json").is_file():
        create(args.out)
    model, tokenizer = load(args.out, weights=False)
    if args.init is not None:
        model.load_state_dict(load(args.init)[0].state_dict())
    if args.text_steps:
        train_text(model, tokenizer, args.text_steps, rng)
        save(model, args.out)
    if not args.minutes:
        return
    for parameter in model.text.parameters():
        parameter.requires_grad_(args.joint)
    store = FrameStore(args.data)
    store.refresh()
    bank = TextBank(model, tokenizer, locked=not args.joint)
    if args.fit_head:
        with torch.no_grad():
            fit_head(model, Batch(store, (1024, 1, 0), rng), bank(NOUN_NAMES), bank(COLOUR_NAMES))
    train_images(model, store, bank, args)


def train_images(model: torch.nn.Module, store: FrameStore, bank: TextBank, args: argparse.Namespace) -> None:
    """Trains the image tower for `args.minutes`; saves averaged weights.

    The text tower is trained too unless it is locked.
    """
    counts = args.crops, args.windows, args.views
    loader = ThreadPoolExecutor(1)  # draws the next batch during a training step
    rank = parallel.join(model)
    rng = np.random.default_rng([args.seed, rank])
    average, optimizer = copy.deepcopy(model).eval(), _optimizer(model, args.lr)
    pending = loader.submit(Batch, store, counts, rng)
    start, step, running, saved, progress = time.monotonic(), 0, 0.0, -math.inf, 0.0
    while progress < 1:
        if time.monotonic() - saved > 120:
            loader.submit(store.refresh)
            saved = time.monotonic()
            if rank == 0:
                save(average, args.out)
        rate = args.lr * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch, pending = pending.result(), loader.submit(Batch, store, counts, rng)
        regions = embed_regions(model.train(), batch)
        names = bank(NOUN_NAMES + COLOUR_NAMES).split([len(NOUN_NAMES), len(COLOUR_NAMES)])
        matching = loss_of(model, regions, bank(batch.texts), batch.targets, batch.scored)
        naming = [
            naming_loss(model, regions, *kind)
            for kind in zip(names, (batch.nouns, batch.colours), batch.open, strict=True)
        ]
        loss = matching + 2 * args.naming * (naming[0] + args.colour * naming[1])
        if args.names:
            told = naming_loss(model, regions, bank(dense_windows.NAMES), *batch.names)
            naming.append(told)
            loss = loss + args.names * told
        optimizer.zero_grad()
        loss.backward()
        progress = parallel.share_gradients(model, (time.monotonic() - start) / (60 * args.minutes))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        step, running = step + 1, 0.95 * running + 0.05 * matching.item()
        average_weights(average, model, min(0.998, (step + 1) / (step + 10)))
        if step % 25 == 0 and rank == 0:
            log.info(
                "step %d, %.1f min, %d frames, loss %.3f, naming %s, scale %.1f, bias %.2f",
                step,
                (time.monotonic() - start) / 60,
                len(store.views),
                running / (1 - 0.95**step),
                " ".join(f"{value.item():.2f}" for value in naming),
                model.logit_scale.exp().item(),
                model.logit_bias.item(),
            )
    loader.shutdown()
    if rank == 0:
        save(average, args.out)


def _optimizer(model: torch.nn.Module, rate: float) -> torch.optim.Optimizer:
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of training scenes")
    parser.add_argument("--out", type=Path, required=True, help="model folder, written every two minutes")
    parser.add_argument("--init", type=Path, help="model folder to start from")
    parser.add_argument("--text-steps", type=int, default=0, help="steps of the text tower alone, first")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="length of the image run and its schedule"
    )
    parser.add_argument("--fit-head", action="store_true", help="start the projection at a regression")
    parser.add_argument(
        "--joint", action="store_true", help="train the text tower along with the image tower"
    )
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--naming", type=float, default=4.0, help="weight of the softmax over names")
    parser.add_argument(
        "--colour", type=float, default=1.0, help="weight of naming colours relative to nouns"
    )
    parser.add_argument("--crops", type=int, default=128, help="crops per step")
    parser.add_argument("--windows", type=int, default=16, help="windows per step")
    parser.add_argument(
        "--views", type=int, default=0, help="large windows per step, as the dense mode sees them"
    )
    parser.add_argument("--names", type=float, default=0.0, help="weight of the softmax over whole names")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
