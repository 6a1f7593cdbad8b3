"""Calibrates the bundled CLIP.

Usage: `python tools/models/calibrate.py --scenes DIR [DIR ...] [--judge] [--json FILE]`.

`ovs3d calibrate` does this for any encoder. This script draws its prompts from the whole vocabulary of the
world, with hard ones among them (the right noun in another colour), and writes the result into
`calibration.json` of the model. `--judge` only measures the present calibration on unseen scenes.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "world")]

import vocabulary
import words

from ovs3d_ros.config import Config, override
from ovs3d_ros.datasets import Dataset, open_dataset
from ovs3d_ros.evaluation import calibration
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.presence import PresenceCalibration

log = logging.getLogger("calibrate")

CALIBRATION = Path(__file__).resolve().parents[2] / "ovs3d_ros" / "models" / "tiny_clip" / "calibration.json"
SETTINGS = {
    "clip.model": "bundled",
    "keyframe.translation": 0.02,
    "keyframe.rotation": 2.0,
    "map.image_size": 320,
    "train.steps_per_keyframe": 15,
}
ABSENT_PAIRS, ABSENT_WORDS = 20, 20  # queries per scene, in addition to all absent nouns


def distractors() -> tuple[str, ...]:
    """Distractors of every prompt: the nouns of the world, with and without colours, and its surfaces."""
    names = list(vocabulary.NOUNS)
    for noun, about in vocabulary.NOUNS.items():
        names += [f"{colour} {noun}" for colour in about.colours]
    return (*names, "wooden table", "wooden shelf", "wooden chair", "wooden stool")


def draw_prompts(dataset: Dataset, rng: np.random.Generator) -> calibration.ScenePrompts:
    """Prompts for objects of a scene, with nouns without colour among them, and for absent objects."""
    named = [name for name in dataset.classes if name]
    present = calibration.visible_classes(dataset)
    bare_nouns = [noun for noun in vocabulary.NOUNS if any(name.endswith(noun) for name in present)]
    present += [noun for noun in bare_nouns if noun not in present]
    nouns = [noun for noun in vocabulary.NOUNS if not any(name.endswith(noun) for name in named)]
    pairs = [f"{colour} {noun}" for noun, about in vocabulary.NOUNS.items() for colour in about.colours]
    # The class "wooden table" is natural wood, which "brown table" describes as well.
    pairs = [pair for pair in pairs if pair not in named and pair.replace("brown", "wooden") not in named]
    absent = [
        *nouns,
        *rng.choice(pairs, ABSENT_PAIRS, replace=False),
        *rng.choice(words.DISTRACTORS, ABSENT_WORDS, replace=False),
    ]
    return calibration.ScenePrompts(present, [str(name) for name in absent])


def measure_scenes(folders: Sequence[Path]) -> tuple[list[calibration.SceneEvidence], PresenceCalibration]:
    """The evidence of the queries in each scene, and the current calibration of the encoder."""
    pipeline = Ovs3d(override(Config(), SETTINGS))
    pipeline.recalibrate(distractors=distractors())
    scenes = []
    for folder in folders:
        dataset = open_dataset(folder)
        for _ in calibration.map_scene(pipeline, dataset):
            pass
        prompts = draw_prompts(dataset, np.random.default_rng(len(scenes)))
        scenes.append(calibration.collect_evidence(pipeline, dataset, prompts))
        log.info(
            "%s: %d prompts, best mean IoU %.3f",
            folder,
            len(scenes[-1].prompts),
            scenes[-1].iou.mean(0).max(),
        )
    return scenes, pipeline.calibration


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=Path, nargs="+", required=True, help="labelled scene folders")
    parser.add_argument(
        "--judge", action="store_true", help="measure the present calibration instead of fitting a new one"
    )
    parser.add_argument(
        "--json", type=Path, help="file for the report; after a fit it is the leave-one-scene-out result"
    )
    args = parser.parse_args()
    scenes, present = measure_scenes(args.scenes)
    if args.judge:
        weights = (
            (present.presence_weights, present.presence_bias),
            (present.general_weights, present.general_bias),
        )
        figures = calibration.presence_metrics(
            scenes, [calibration.predict_presence(scene, *weights) for scene in scenes]
        )
    else:
        fitted, figures = calibration.fit_calibration(scenes), calibration.leave_one_out(scenes)
        source = (
            f"{len(scenes)} rendered scenes, {figures['all']['prompts']} prompts (tools/models/calibrate.py)"
        )
        document = json.loads(CALIBRATION.read_text())
        document["query"] = dict(fitted, distractors=distractors(), source=source)
        CALIBRATION.write_text(json.dumps(document, indent=1) + "\n")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    log.info("%s", figures)


if __name__ == "__main__":
    main()
