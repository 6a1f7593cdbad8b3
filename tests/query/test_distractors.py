"""What is remembered of distractors is what would be computed anew."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers import synthetic

from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.distractors import DistractorMemo
from ovs3d_ros.query.presence import PresenceCalibration
from ovs3d_ros.types import MapSnapshot

COLOURS = PresenceCalibration(distractors=("red box", "green", "blue ball", "grey wall"), synonym=0.9)
PROMPTS = "red box", "blue", "purple cow"


@pytest.fixture(scope="module")
def room() -> tuple[Ovs3d, MapSnapshot]:
    pipeline = synthetic.build_map(synthetic.make_frames(2), steps=1)
    return pipeline, pipeline.snapshot()


def ask(memo: DistractorMemo, room: tuple[Ovs3d, MapSnapshot], prompts, calibration) -> None:
    """Compares the rivals of prompts with those that are computed directly."""
    pipeline, snapshot = room
    texts, others = pipeline.encode_text(prompts), pipeline.encode_text(calibration.distractors)
    rivals = memo.rivals(prompts, texts, snapshot, calibration)
    assert torch.equal(rivals.directions, snapshot.directions(others))
    assert torch.equal(rivals.competing, texts @ others.T < calibration.synonym)


def test_rivals_follow_prompts_calibration_and_codec(room) -> None:
    pipeline, snapshot = room
    memo = DistractorMemo(pipeline.encode_text, most=100)
    ask(memo, room, PROMPTS, COLOURS)
    ask(memo, room, PROMPTS[::-1], COLOURS)
    codec = dataclasses.replace(snapshot.codec, basis=-snapshot.codec.basis)
    ask(memo, (pipeline, dataclasses.replace(snapshot, codec=codec)), PROMPTS, COLOURS)
    ask(memo, room, PROMPTS, dataclasses.replace(COLOURS, synonym=-2.0))
    ask(memo, room, PROMPTS, dataclasses.replace(COLOURS, distractors=("yellow", "red")))


def test_a_prompt_that_is_a_distractor_does_not_compete_with_itself(room) -> None:
    pipeline, snapshot = room
    memo = DistractorMemo(pipeline.encode_text, most=100)
    rivals = memo.rivals(["red box"], pipeline.encode_text(["red box"]), snapshot, COLOURS)
    assert not rivals.competing[0, 0] and rivals.competing[0, 1:].any()


def test_texts_are_encoded_once_and_few_prompts_are_kept(room) -> None:
    pipeline, _ = room
    encoded = []

    def encode(names):
        encoded.append(names)
        return pipeline.encode_text(names)

    memo = DistractorMemo(encode, most=2)
    for prompts in (PROMPTS[:1], PROMPTS[1:2], PROMPTS[2:], PROMPTS[:1], PROMPTS):
        ask(memo, room, prompts, COLOURS)
    assert encoded == [COLOURS.distractors]
