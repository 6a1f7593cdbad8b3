"""Measures the bundled models on held-out scenes.

Usage: `python tools/models/evaluate.py --data DIR --json out.json`.

The script uses the encoders of the package. `--clip` and `--dino` select other models for comparison, for
example `--clip local-dir:/path/to/folder`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

sys.path[:0] = [
    str(Path(__file__).resolve().parent.parent / "world"),
    str(Path(__file__).resolve().parents[2]),
]

import captions
import vocabulary
import words
from frames import FrameStore, View
from segmentation import auroc, presence, segmentation

from ovs3d_ros.config import ClipConfig, DinoConfig
from ovs3d_ros.encoders import make_clip, make_dino

NEGATIVES = ["object", "things", "stuff", "texture"]
CONTEXT = 1.3  # crop side in box sides


def object_crops(store: FrameStore, nouns: tuple[str, ...]) -> list[dict]:
    """Crops of single objects: large, inside the image, other objects on at most a tenth of the crop."""
    found = []
    for view in store.views:
        height, width = view.instances.shape
        for instance, (left, top, right, bottom, pixels) in view.boxes.items():
            noun, colour, _ = store.things[view.things[instance]]
            if (
                captions.NOUNS[noun] not in nouns
                or pixels < 400
                or left < 2
                or top < 2
                or right > width - 2
                or bottom > height - 2
            ):
                continue
            side = CONTEXT * max(right - left, bottom - top)
            box = _square((left + right) / 2, (top + bottom) / 2, side, width, height)
            ids = view.instances[box[1] : box[3], box[0] : box[2]]
            others = (ids != instance) & np.isin(ids, _objects(view, store))
            if others.mean() > 0.1 or (ids == instance).mean() < 0.1:
                continue
            found.append(
                {
                    "image": view.image[box[1] : box[3], box[0] : box[2]],
                    "mask": ids == instance,
                    "view": view,
                    "noun": captions.NOUNS[noun],
                    "colour": captions.COLOURS[colour],
                    "variant": int(view.variants[instance]),
                }
            )
    return found


def _square(x: float, y: float, side: float, width: int, height: int) -> tuple[int, int, int, int]:
    side = min(side, width, height)
    left = round(np.clip(x - side / 2, 0, width - side))
    top = round(np.clip(y - side / 2, 0, height - side))
    return left, top, int(left + side), int(top + side)


def _objects(view: View, store: FrameStore) -> list[int]:
    return [i for i in view.boxes if vocabulary.NOUNS[captions.NOUNS[store.things[view.things[i]][0]]].places]


def embed(encoder, images: list[np.ndarray]) -> torch.Tensor:
    """Unit embeddings [N, D] of whole images, each resized to a square as one crop."""
    rows = []
    for image in images:
        side = max(image.shape[:2])
        square = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
        rows.append(encoder.encode_image(square).embeddings[0])
    return F.normalize(torch.stack(rows), dim=-1)


def classification(encoder, crops: list[dict]) -> dict:
    """Zero-shot top-1 accuracy over colour-noun pairs, nouns and colours.

    Each is measured for seen and unseen pairs and meshes.
    """
    nouns = sorted({crop["noun"] for crop in crops} | set(vocabulary.SMALL_NOUNS))
    pairs = [(c, n) for n in nouns for c in vocabulary.NOUNS[n].colours]
    image = embed(encoder, [crop["image"] for crop in crops])

    def predicted(prompts: list[str]) -> list[int]:
        return (image @ encoder.encode_text(prompts).T).argmax(dim=1).tolist()

    by_pair = predicted([f"a {c} {n}" for c, n in pairs])
    by_noun, by_colour = (
        predicted([f"a {n}" for n in nouns]),
        predicted([f"a {c} object" for c in captions.COLOURS]),
    )
    right = {
        "pair": np.array(
            [pairs[k] == (crop["colour"], crop["noun"]) for k, crop in zip(by_pair, crops, strict=True)]
        ),
        "noun": np.array([nouns[k] == crop["noun"] for k, crop in zip(by_noun, crops, strict=True)]),
        "noun_of_pair": np.array(
            [pairs[k][1] == crop["noun"] for k, crop in zip(by_pair, crops, strict=True)]
        ),
        "colour": np.array(
            [captions.COLOURS[k] == crop["colour"] for k, crop in zip(by_colour, crops, strict=True)]
        ),
        "colour_of_pair": np.array(
            [pairs[k][0] == crop["colour"] for k, crop in zip(by_pair, crops, strict=True)]
        ),
    }
    new_pair = np.array([(crop["colour"], crop["noun"]) in vocabulary.HELD_OUT_PAIRS for crop in crops])
    new_mesh = np.array([crop["variant"] == vocabulary.HELD_OUT_VARIANTS.get(crop["noun"]) for crop in crops])
    groups = {
        "all": np.ones(len(crops), bool),
        "seen": ~new_pair & ~new_mesh,
        "unseen_pair": new_pair & ~new_mesh,
        "unseen_mesh": new_mesh & ~new_pair,
        "unseen_both": new_pair & new_mesh,
    }
    report = {
        name: {"crops": int(mask.sum()), **{k: round(float(v[mask].mean()), 4) for k, v in right.items()}}
        for name, mask in groups.items()
        if mask.any()
    }
    report["names"] = len(pairs)
    per_noun = {n: right["noun"][[crop["noun"] == n for crop in crops]] for n in nouns}
    report["noun_by_class"] = {n: round(float(hits.mean()), 3) for n, hits in per_noun.items() if len(hits)}
    return report


def grading(encoder, crops: list[dict], store: FrameStore, rng) -> dict:
    """LERF relevancy of an object's name where the object is absent, half covered and fully visible.

    Each object has one background.

    The cover is a background patch of another scene over one side of the object, from its centre on.
    """
    absent, half, whole, prompts = [], [], [], []
    for crop in crops[:300]:
        other = store.views[rng.integers(len(store.views))]
        if other.scene == crop["view"].scene:
            continue
        height, width = crop["image"].shape[:2]
        behind = _plain(other, store, width, height, rng)
        if behind is None:
            continue
        columns = np.nonzero(crop["mask"].any(axis=0))[0]
        middle = int(columns.mean())
        covered = crop["image"].copy()
        if rng.random() < 0.5:
            covered[:, :middle] = behind[:, :middle]
        else:
            covered[:, middle:] = behind[:, middle:]
        absent.append(behind)
        half.append(covered)
        whole.append(crop["image"])
        prompts.append(f"{crop['colour']} {crop['noun']}")
    negatives = encoder.encode_text(NEGATIVES)
    texts = encoder.encode_text(prompts)
    score = [relevancy(embed(encoder, images), texts, negatives) for images in (absent, half, whole)]
    between = (score[0] < score[1]) & (score[1] < score[2])
    kinds = ("absent", "half", "whole")
    return {
        "triples": len(prompts),
        "mean": dict(zip(kinds, (round(float(s.mean()), 3) for s in score), strict=True)),
        "median": dict(zip(kinds, (round(float(s.median()), 3) for s in score), strict=True)),
        "half_between": round(float(between.float().mean()), 3),
        "whole_over_absent": round(float((score[2] > score[0]).float().mean()), 3),
    }


def _plain(view: View, store: FrameStore, width: int, height: int, rng) -> np.ndarray | None:
    """A patch of a view without any object, or None."""
    busy = np.isin(view.instances, _objects(view, store))
    for _ in range(30):
        y = rng.integers(0, view.instances.shape[0] - height + 1)
        x = rng.integers(0, view.instances.shape[1] - width + 1)
        if not busy[y : y + height, x : x + width].any():
            return view.image[y : y + height, x : x + width]
    return None


def relevancy(image: torch.Tensor, texts: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """LERF relevancy [N] of image i for text i.

    It is the smallest pairwise softmax against the negatives, at temperature 0.1.
    """
    positive = (image * texts).sum(dim=-1, keepdim=True)
    return torch.sigmoid(10 * (positive - image @ negatives.T)).amin(dim=1)


def same_object(encoder, store: FrameStore, rng, patch: int = 8, pairs: int = 4000) -> dict:
    """AUROC of feature similarity for "same object" over patch pairs of a view, against raw patches."""
    ours, cosine, distance = [], [], []
    for view in store.views:
        features = encoder.encode_image(view.image)  # [h, w, D]
        rows, columns = features.shape[:2]
        features = F.normalize(features.reshape(rows * columns, -1), dim=-1)
        size = (columns * patch, rows * patch)
        ids = cv2.resize(view.instances, size, interpolation=cv2.INTER_NEAREST)
        ids = ids.reshape(rows, patch, columns, patch).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
        pure = np.flatnonzero((ids == ids[:, :1]).mean(axis=1) > 0.9)
        owner = ids[pure, 0]
        raw = cv2.resize(view.image, size, interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255 - 0.5
        raw = raw.reshape(rows, patch, columns, patch, 3).transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1)
        first, second = _pairs(owner, rng, pairs)
        if first is None:
            continue
        same = owner[first] == owner[second]
        a, b = pure[first], pure[second]
        ours.append(auroc((features[a] * features[b]).sum(dim=1).numpy(), same))
        unit = raw / np.linalg.norm(raw, axis=1, keepdims=True).clip(1e-6)
        cosine.append(auroc((unit[a] * unit[b]).sum(axis=1), same))
        distance.append(auroc(-np.linalg.norm(raw[a] - raw[b], axis=1), same))
    return {
        "views": len(ours),
        "auroc": round(float(np.mean(ours)), 4),
        "rgb_cosine": round(float(np.mean(cosine)), 4),
        "rgb_distance": round(float(np.mean(distance)), 4),
    }


def _pairs(owner: np.ndarray, rng, count: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Draws pairs, half within one object, half across two.

    All objects are equally likely, so walls do not dominate.
    """
    names, inverse, sizes = np.unique(owner, return_inverse=True, return_counts=True)
    names = np.flatnonzero(sizes >= 4)
    if len(names) < 2:
        return None, None
    members = [np.flatnonzero(inverse == name) for name in names]
    first = rng.integers(len(members), size=count)
    second = np.where(
        np.arange(count) % 2, first, (first + rng.integers(1, len(members), size=count)) % len(members)
    )
    return tuple(
        np.array([members[k][rng.integers(len(members[k]))] for k in side]) for side in (first, second)
    )


def speed(clip, dino, image: np.ndarray) -> dict:
    """Medians of five runs, in wall-clock time and in CPU time, which does not depend on other load."""

    def seconds(call) -> tuple[float, float]:
        wall, cpu = [], []
        for _ in range(6):
            start = time.perf_counter(), time.process_time()
            call()
            wall.append(time.perf_counter() - start[0])
            cpu.append(time.process_time() - start[1])
        return float(np.median(wall[1:])), float(np.median(cpu[1:]))

    count = len(clip["pyramid"].encode_image(image).embeddings)
    wall, cpu = seconds(lambda: clip["pyramid"].encode_image(image))
    report = {
        "threads": torch.get_num_threads(),
        "load": [round(v, 1) for v in os.getloadavg()],
        "pyramid": {
            "crops": count,
            "crops_per_s": round(count / wall),
            "crops_per_cpu_s": round(count / cpu),
        },
    }
    for name, encoder in (("dense", clip["dense"]), ("dino", dino)):
        if encoder is not None:
            wall, cpu = seconds(partial(encoder.encode_image, image))
            report[name] = {"ms": round(1000 * wall, 1), "cpu_ms": round(1000 * cpu, 1)}
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of held-out scenes")
    parser.add_argument("--clip", default="bundled")
    parser.add_argument("--dino", default="bundled", help="'' leaves it out")
    parser.add_argument("--dense-sizes", type=int, nargs="+", default=[0])
    parser.add_argument("--skip-maps", action="store_true", help="no segmentation and presence")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    store = FrameStore(args.data)
    store.refresh()
    kinds = (("pyramid", (1.0,)), ("pyramid", (2.0, 3.0, 5.0)), ("dense", (1.0,)))
    whole, pyramid, dense = (
        make_clip(
            ClipConfig(
                model=args.clip, mode=mode, crop_divisors=divisors, dense_sizes=tuple(args.dense_sizes)
            ),
            "cpu",
        )
        for mode, divisors in kinds
    )
    dino = make_dino(DinoConfig(model=args.dino), "cpu") if args.dino else None
    crops = object_crops(store, tuple(n for n in vocabulary.NOUNS if n not in ("floor", "wall")))
    small = object_crops(store, vocabulary.SMALL_NOUNS)
    report = {
        "data": {"scenes": len({view.scene for view in store.views}), "views": len(store.views)},
        "clip": whole.name,
        "zero_shot": classification(whole, crops),
        "grading": grading(whole, small, store, rng),
    }
    if not args.skip_maps:
        report["segmentation"] = {
            mode: segmentation(encoder, args.data)
            for mode, encoder in (("pyramid", pyramid), ("dense", dense))
        }
        report["presence"] = presence(dense, args.data, words.distractors(held_out=True))
    if dino is not None:
        report["same_object"] = {"dino": dino.name, **same_object(dino, store, rng)}
    report["speed"] = speed({"pyramid": pyramid, "dense": dense}, dino, store.views[0].image)
    text = json.dumps(report, indent=1)
    if args.json:
        args.json.write_text(text + "\n")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
