"""The grammar of prompts that say where a thing is."""

from __future__ import annotations

import pytest

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.query.presence import PresenceCalibration
from ovs3d_ros.query.relation_prompts import parse_relation
from ovs3d_ros.query.request import make_query
from ovs3d_ros.types import Relation


@pytest.mark.parametrize(
    ("prompt", "thing", "name", "place"),
    [
        ("mug on the table", "mug", "on", "table"),
        ("the red mug on top of a shelf", "red mug", "on", "shelf"),
        ("box under the chair", "box", "under", "chair"),
        ("box underneath chair", "box", "under", "chair"),
        ("shoes below the bench", "shoes", "under", "bench"),
        ("lamp above the sofa", "lamp", "above", "sofa"),
        ("clock over the door", "clock", "above", "door"),
        ("A chair Next To The table", "chair", "beside", "table"),
        ("plant beside the window", "plant", "beside", "window"),
        ("bin near the desk", "bin", "near", "desk"),
        ("bin close to the desk", "bin", "near", "desk"),
        ("ball in the basket", "ball", "in", "basket"),
        ("apple inside bowl", "apple", "in", "bowl"),
        ("glass of water on the desk", "glass of water", "on", "desk"),
        ("anna's mug on the table", "anna's mug", "on", "table"),
    ],
)
def test_thing_preposition_place(prompt, thing, name, place):
    assert parse_relation(prompt) == Relation(thing, name, place)


@pytest.mark.parametrize(
    "prompt",
    [
        "red mug",
        "hand on",
        "on the table",
        "mug on the",
        "man in black",
        "bag of cookies",
        "box in front of the sofa",
        "mug behind the monitor",
        "lamp on the left of the sofa",
        "mug on the edge of the table",
        "book on the table near the window",
        "man-on-phone",
        "onion",
        "underwear",
        "tea pot",
    ],
)
def test_anything_else_is_a_plain_name(prompt):
    assert parse_relation(prompt) is None


def test_query_keeps_the_words_and_what_they_mean():
    query = make_query(["sofa", "Mug on the table"], QueryConfig(), PresenceCalibration())
    assert query.prompts == ("sofa", "Mug on the table")
    assert query.relations == (None, Relation("Mug", "on", "table"))
    assert make_query(["sofa"], QueryConfig(), PresenceCalibration()).relations == ()
