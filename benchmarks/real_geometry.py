"""Measures codec, query and presence decision on features distributed as a real CLIP's. Prints JSON.

Run: python benchmarks/real_geometry.py FOLDER [--ranks 16 29 61 125] [--rooms 12] [--matched 0.27] [--seed 0]

FOLDER has text features of real prompts, `*.npy` [T, D] and `*names.txt` [T lines]. Image features are
simulated. The feature of a thing has a cosine of 0.195 +- 0.022 with all texts (measured on ViT-B/32, 50
photographs x 1203 names) and of `--matched` with its own name; crops of one thing share four fifths of the
variance that is independent of text. A real CLIP has such a narrow range of cosines. Each room has twenty
things and five surfaces. Its queries are the names of its things, random other names, and the names nearest
to those of its things (hard negatives). All names are the bank they are compared with. `by_bank` is the
decision without a calibration.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.evaluation.calibration import SceneEvidence, decision_metrics, leave_one_out
from ovs3d_ros.packed_codes import PackedCodes
from ovs3d_ros.query.bank_presence import BankPresence, bank_evidence, describe_cells
from ovs3d_ros.query.name_bank import make_bank
from ovs3d_ros.query.presence import (
    EVIDENCE_COLUMNS,
    PEAK_GAUSSIANS,
    PresenceCalibration,
    general_prompts,
    presence_evidence,
)
from ovs3d_ros.query.similarity import lerf_competition, score_gaussians
from ovs3d_ros.semantics.codec import CodecFitter, FeatureCodec
from ovs3d_ros.semantics.packing import pack_codes

COSINE = 0.195  # of an image with any text; noise orthogonal to the mean text gives the deviation of 0.022
SHARED = 0.8  # share of the text-independent variance that crops of one thing have in common
THINGS, SURFACES, RANDOM = 20, 5, 40
CROPS, GAUSSIANS = 12, 150  # per thing; a surface has ten times as many Gaussians
CELL = 10  # Gaussians of one thing that share a cell of the map
NEGATIVES, RIVALS = 4, 200  # texts in place of "object, things, stuff, texture"; distractors


class Room:
    """Simulated crops [.., D] of things and surfaces, and the lifted features of their Gaussians."""

    def __init__(self, texts: torch.Tensor, matched: float, rng: np.random.Generator) -> None:
        names = torch.from_numpy(rng.permutation(len(texts)))
        self.things, self.surfaces = names[:THINGS], names[THINGS : THINGS + SURFACES]
        self.others = names[THINGS + SURFACES :]
        noise = torch.Generator().manual_seed(int(rng.integers(2**31)))
        mean = texts.mean(0)
        contents = names[: THINGS + SURFACES]
        own = texts[contents] - mean
        anchor = (
            COSINE / mean.square().sum() * mean
            + (matched - COSINE) / own.square().sum(-1, keepdim=True) * own
        )
        # Length of the text-independent part.
        text_free = (1 - anchor.square().sum(-1, keepdim=True)).sqrt()[:, None]

        def unit(*shape: int) -> torch.Tensor:
            random = torch.randn(*shape, texts.shape[1], generator=noise)
            return F.normalize(random - (random @ mean)[..., None] / mean.square().sum() * mean, dim=-1)

        look = SHARED**0.5 * unit(len(contents), 1) + (1 - SHARED) ** 0.5 * unit(len(contents), CROPS)
        self.crops = F.normalize(anchor[:, None] + text_free * look, dim=-1)  # [things + surfaces, CROPS, D]
        weights = torch.rand(len(contents), 10 * GAUSSIANS, CROPS, generator=noise).pow(4)
        lifted = F.normalize(weights @ self.crops, dim=-1)
        self.features = torch.cat([lifted[:THINGS, :GAUSSIANS].flatten(0, 1), lifted[THINGS:].flatten(0, 1)])
        self.owner = torch.cat(
            [
                torch.arange(THINGS).repeat_interleave(GAUSSIANS),
                (THINGS + torch.arange(SURFACES)).repeat_interleave(10 * GAUSSIANS),
            ]
        )


def fit_codec(room: Room, rank: int) -> FeatureCodec:
    """Fits the codec to all crops, as lifting does."""
    fitter = CodecFitter(room.crops.shape[-1], rank)
    fitter.add(room.crops.flatten(0, 1))
    return fitter.fit()


def exactness(room: Room, codec: FeatureCodec, texts: torch.Tensor) -> dict[str, float]:
    """Compares cosines of codes with those of full features; counts how often a name finds its thing."""
    codes = codec.normalize(codec.encode(room.features))
    own = texts[room.things]
    coded, full = codes @ codec.directions(own), room.features @ own.T
    decoded = F.normalize(codec.decode(codes), dim=-1) @ own.T
    right = room.owner[coded.argmax(0)] == torch.arange(THINGS)
    return dict(
        residual=codec.residual(room.crops.flatten(0, 1)),
        cosine_error=float((coded - full).abs().mean()),
        decoding_error=float((coded - decoded).abs().max()),
        found_by_name=float(right.float().mean()),
        found_by_name_full=float((room.owner[full.argmax(0)] == torch.arange(THINGS)).float().mean()),
    )


def ask(
    room: Room, codec: FeatureCodec, texts: torch.Tensor, names: list[str], rng: np.random.Generator
) -> SceneEvidence:
    """Collects presence evidence for things of the room, random absent names and the nearest absent names."""
    likeness = texts[room.others] @ texts[room.things].T
    hard = room.others[likeness.argmax(0).unique()]
    others = room.others[~torch.isin(room.others, hard)]
    asked = torch.cat([room.things, hard, others[:RANDOM]])
    rivals, negatives = others[RANDOM : RANDOM + RIVALS], others[-NEGATIVES:]
    codes = pack_codes(codec.normalize(codec.encode(room.features)))
    against, known = codec.directions(texts[negatives]), torch.ones(len(codes), dtype=torch.bool)
    temperature = PresenceCalibration().temperature
    competition = lerf_competition(codec.directions(texts[asked]), against, temperature)
    scanned = score_gaussians(codes, known, competition, PEAK_GAUSSIANS)
    competing = texts[asked] @ texts[rivals].T < PresenceCalibration().synonym
    evidence = presence_evidence(
        scanned, codes, torch.ones(len(codes)), codec.directions(texts[rivals]), competing
    )
    prompts = [names[i] for i in asked]
    return SceneEvidence(
        prompts,
        np.hstack([evidence.table, rank(codes, codec, texts, names, asked)]),
        general_prompts(prompts, ()),
        np.arange(len(asked)) < THINGS,
        np.zeros((1, 25)),
    )


def rank(
    codes: PackedCodes, codec: FeatureCodec, texts: torch.Tensor, names: list[str], asked: torch.Tensor
) -> np.ndarray:
    """Evidence [P, 4] of `bank_presence.bank_evidence` for the names with the numbers `asked`."""
    bank = make_bank(names, lambda _: texts)
    cells = codec.normalize(codes.unpack().unflatten(0, (-1, CELL)).sum(1))
    described = describe_cells(cells, codec.directions(texts), bank.among)
    return bank_evidence(described, codec.directions(texts[asked]), bank.among[asked])


def by_bank(scenes: list[SceneEvidence]) -> dict[str, float]:
    """Figures of the decision by the bank alone."""
    decision = BankPresence(lambda _: torch.empty(0))
    probability = np.concatenate([decision.decide(scene.evidence[:, EVIDENCE_COLUMNS:]) for scene in scenes])
    return decision_metrics(probability, np.concatenate([scene.present for scene in scenes]))


def main() -> None:
    """Simulates rooms and prints one JSON document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ranks", nargs="+", type=int, default=[16, 29, 61, 125])
    parser.add_argument("--rooms", type=int, default=12)
    parser.add_argument("--matched", type=float, default=0.27, help="cosine of a thing with its own name")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    features, names = (
        next(args.folder.glob("*.npy")),
        next(args.folder.glob("*names.txt")).read_text().splitlines(),
    )
    texts = F.normalize(torch.from_numpy(np.load(features).astype(np.float32)), dim=-1)
    rng = np.random.default_rng(args.seed)
    rooms = [Room(texts, args.matched, rng) for _ in range(args.rooms)]
    pairs = torch.cat([room.crops[:, 0] for room in rooms]) @ texts.T
    document = dict(texts=len(texts), image_text_cosine=[float(pairs.mean()), float(pairs.std())], ranks={})
    for rank_of_codes in args.ranks:
        codecs = [fit_codec(room, rank_of_codes) for room in rooms]
        exact = [exactness(room, codec, texts) for room, codec in zip(rooms, codecs, strict=True)]
        scenes = [ask(room, codec, texts, names, rng) for room, codec in zip(rooms, codecs, strict=True)]
        decided = leave_one_out(scenes)["all"] | dict(by_bank=by_bank(scenes))
        document["ranks"][rank_of_codes] = {
            key: float(np.mean([row[key] for row in exact])) for key in exact[0]
        } | decided
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
