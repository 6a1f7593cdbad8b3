"""Fits the presence decision without labels over several encoders and judges it. Prints JSON.

    python benchmarks/presence.py ROOM [ROOM ...] [--judge FOLDER ...] [--maps FOLDER] [--set KEY=VALUE ...]

ROOM is a labelled walk of the rendered world. The weights in `ovs3d_ros/query/bank_presence.py` are the fit
on the five that this makes:

    tools/world/generate.py --split val --kind walk --seeds 0-4 --views 20 --out walks

Each room is mapped with five encoders: the bundled one, two distorted forms of it, and `conse` at two sets of
image sizes. A map is asked for its classes, the classes of the other rooms and `ELSEWHERE`, without names of
colours and surfaces. Each encoder is then predicted by a fit on the others; `conse` at both sizes is one.
Folders of `--judge` have a `presence.json`, see `benchmarks/photos.py`; they are mapped with `conse` and
predicted by the fit on the other encoders and by the fit on all.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from documents import map_folder, print_document

from ovs3d_ros.config import ClipConfig, Config, override
from ovs3d_ros.config.yaml_io import parse_assignments
from ovs3d_ros.datasets import Dataset, open_dataset
from ovs3d_ros.encoders import make_clip
from ovs3d_ros.evaluation.calibration import LogisticFit, choose_prompts, fit_logistic, map_scene
from ovs3d_ros.evaluation.metrics import auroc, fpr_at_tpr
from ovs3d_ros.evaluation.presence_names import NAMES_FILE, read_presence
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.bank_presence import BankPresence
from ovs3d_ros.query.presence import logistic_regression
from ovs3d_ros.types import CropTable

MAPPING = {"map.image_size": 256, "train.steps_per_keyframe": 2, "compute.device": "cpu"}
ENCODERS: dict[str, dict[str, Any]] = {
    "bundled": {"clip.model": "bundled"},
    "in a narrow cone": {"clip.model": "presence:NarrowCone"},
    "projected": {"clip.model": "presence:Projected"},
    "conse": {"clip.model": "conse"},
    "conse, 480 px": {"clip.model": "conse", "clip.dense_sizes": (480,)},
}
PHOTOGRAPHS = "conse"  # of `ENCODERS`, the one that knows photographs
ELSEWHERE = [
    "piano",
    "dog",
    "bicycle",
    "bathtub",
    "guitar",
    "umbrella",
    "horse",
    "airplane",
    "tent",
    "violin",
]
ELSEWHERE += ["skateboard", "toilet", "motorcycle", "elephant", "boat", "tree", "refrigerator", "bed", "drum"]
ELSEWHERE += ["snake", "bridge", "cat", "shoe", "keyboard", "camera", "clock", "lamp", "book", "sofa", "vase"]
UNASKED = {"red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "black", "white", "grey"}
UNASKED |= {"wooden", "floor", "wall", "carpet"}

Evidence = tuple[np.ndarray, np.ndarray]  # [P, 4] see `bank_evidence`, and [P] bool, the truth


class Distorted:
    """The bundled encoder with features that a function changes: an encoder with another geometry.

    Args:
        name: of the encoder.
        config: of the bundled encoder, whose model is replaced.
        device: torch device name.
        images: maps unit image features [M, D] to [M, D'].
        texts: maps unit text features [P, D] to [P, D'].
    """

    calibration: dict | None = None

    def __init__(
        self,
        name: str,
        config: ClipConfig,
        device: str,
        images: Callable[[torch.Tensor], torch.Tensor],
        texts: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self.name, self._images, self._texts = name, images, texts
        self._encoder = make_clip(dataclasses.replace(config, model="bundled"), device)
        self.dim = int(self.encode_text(["a"]).shape[1])

    def encode_image(self, image: np.ndarray) -> CropTable:
        """Crop table of an [H, W, 3] uint8 RGB image."""
        table = self._encoder.encode_image(image)
        features = self._images(F.normalize(table.embeddings.float(), dim=-1))
        return dataclasses.replace(table, embeddings=F.normalize(features, dim=-1))

    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """[P, D'] float32 unit-norm embeddings."""
        return F.normalize(self._texts(self._encoder.encode_text(prompts)), dim=-1)


def NarrowCone(config: ClipConfig, device: str) -> Distorted:
    """All features in two narrow cones, one of images and one of texts, as those of CLIP are."""
    dim = make_clip(dataclasses.replace(config, model="bundled"), device).dim
    a, b = F.normalize(torch.randn(2, dim, generator=torch.Generator().manual_seed(7)), dim=-1)
    return Distorted(
        "bundled, cone", config, device, lambda x: x + 2 * a + 0.5 * b, lambda x: x + 1.5 * b + 0.5 * a
    )


def Projected(config: ClipConfig, device: str) -> Distorted:
    """Features projected to three quarters of their dimensions: names become harder to tell apart."""
    dim = make_clip(dataclasses.replace(config, model="bundled"), device).dim
    random = torch.randn(dim, 3 * dim // 4, generator=torch.Generator().manual_seed(7))
    basis = torch.linalg.qr(random).Q
    return Distorted("bundled, projected", config, device, lambda x: x @ basis, lambda x: x @ basis)


def collect(
    dataset: Dataset, settings: dict[str, Any], present: Sequence[str], absent: Sequence[str], path: Path
) -> Evidence:
    """The evidence of names in the map of a dataset; the map is read from `path` if that exists."""
    if path.exists():
        pipeline = Ovs3d.load(path, settings)
    else:
        pipeline = Ovs3d(override(Config(), settings))
        for _ in map_scene(pipeline, dataset):
            pass
        pipeline.save(path)
    names = [*present, *absent]
    decision = BankPresence(pipeline.encode_text)
    evidence = decision.evidence(
        names, pipeline.encode_text(names), pipeline.snapshot(), pipeline.config.query.min_weight
    )
    return evidence, np.arange(len(names)) < len(present)


def ask_rooms(datasets: Sequence[Dataset]) -> list[tuple[list[str], list[str]]]:
    """Names of what is in each room and of what is not."""
    names = [name for dataset in datasets for name in dataset.class_names]
    asked = []
    for dataset in datasets:
        prompts = choose_prompts(dataset, [*names, *ELSEWHERE])
        asked.append(
            tuple([n for n in s if not UNASKED & set(n.split())] for s in (prompts.present, prompts.absent))
        )
    return asked


def fit(rows: Sequence[Evidence]) -> LogisticFit:
    """One logistic regression of all rows."""
    return fit_logistic(*(np.concatenate(part) for part in zip(*rows, strict=True)))


def judge(rows: Sequence[Evidence], fitted: LogisticFit, threshold: float) -> dict[str, Any]:
    """How well a fit tells present from absent names."""
    evidence, present = (np.concatenate(part) for part in zip(*rows, strict=True))
    probability = logistic_regression(evidence, *fitted)
    found = probability >= threshold
    return dict(
        auroc=round(auroc(probability, present), 4),
        fpr_at_95_tpr=round(fpr_at_tpr(probability, present), 4),
        present=int(present.sum()),
        found=int(found[present].sum()),
        absent=int((~present).sum()),
        found_falsely=int(found[~present].sum()),
    )


def main() -> None:
    """Maps all rooms with all encoders, fits and judges; prints one JSON document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rooms", nargs="+", type=Path)
    parser.add_argument("--judge", nargs="+", default=[], type=Path, metavar="FOLDER")
    parser.add_argument("--maps", type=Path, help="folder to keep the maps in")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, help="file for a copy of the output")
    options = parser.parse_args()
    settings = MAPPING | parse_assignments(options.set)
    datasets = [open_dataset(folder) for folder in options.rooms]
    rooms = list(zip(datasets, ask_rooms(datasets), strict=True))
    rows: dict[str, list[Evidence]] = {}
    with map_folder(options.maps) as maps:
        for encoder, values in ENCODERS.items():
            for dataset, names in rooms:
                path = maps / f"{dataset.name}-{encoder}.ovs3d"
                rows.setdefault(encoder, []).append(collect(dataset, settings | values, *names, path))
                sys.stderr.write(f"{path.stem}\n")
        photographs = []
        for folder in options.judge:
            dataset, names = open_dataset(folder), read_presence(folder / NAMES_FILE)
            path = maps / f"{dataset.name}-{PHOTOGRAPHS}.ovs3d"
            chosen = settings | ENCODERS[PHOTOGRAPHS]
            photographs.append((dataset.name, collect(dataset, chosen, names.present, names.absent, path)))
    print_document(_report(rows, photographs), options.json)


def _report(rows: dict[str, list[Evidence]], photographs: list[tuple[str, Evidence]]) -> dict[str, Any]:
    """Weights of the fit on all encoders, and figures of each encoder by the fit on the others."""
    threshold = Config().query.presence
    families: dict[str, list[Evidence]] = {}
    for encoder, evidence in rows.items():
        families.setdefault(encoder.partition(",")[0], []).extend(evidence)
    weights, bias = fit_all = fit([row for evidence in rows.values() for row in evidence])
    others = {
        left_out: fit([row for name, evidence in families.items() if name != left_out for row in evidence])
        for left_out in families
    }
    return dict(
        weights=[round(float(w), 3) for w in weights],
        bias=round(bias, 3),
        left_out={name: judge(families[name], others[name], threshold) for name in families},
        photographs={
            name: dict(
                fit_on_others=judge([row], others[PHOTOGRAPHS], threshold),
                fit_on_all=judge([row], fit_all, threshold),
            )
            for name, row in photographs
        },
    )


if __name__ == "__main__":
    main()
