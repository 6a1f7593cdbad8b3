"""The parts of a text query are checked and completed once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ovs3d_ros.config import Config
from ovs3d_ros.query.presence import PresenceCalibration
from ovs3d_ros.query.request import MAX_PROMPTS, check_prompts, make_query
from ovs3d_ros.semantics.names import distinct_names
from ovs3d_ros.types import UserError

CONFIG = Config().query
CALIBRATION = PresenceCalibration(threshold=0.62)


def test_repeated_names_take_the_first_spelling() -> None:
    prompts = ["Mug", " mug", "Straße", "cup", "STRASSE"]
    assert make_query(prompts, CONFIG, CALIBRATION).prompts == ("Mug", "Mug", "Straße", "cup", "Straße")
    assert distinct_names(check_prompts(prompts)) == ["Mug", "Straße", "cup"]


def test_prompts_are_stripped_and_checked() -> None:
    assert check_prompts([" red mug ", "so\n fa"]) == ["red mug", "so fa"]
    for prompts, word in (
        ([], "no prompt"),
        (["a", "  "], "prompt 2 is empty"),
        (["x" * 257], "257 characters"),
        (["caf\udce9"], "prompt 1 is not valid UTF-8"),
        (["a"] * (MAX_PROMPTS + 1), "at most"),
    ):
        with pytest.raises(UserError, match=word):
            check_prompts(prompts)
    with pytest.raises(UserError, match="negative 1 is empty"):
        check_prompts([""], "negative")


def test_query_holds_the_resolved_defaults() -> None:
    query = make_query([" red  mug"], CONFIG, CALIBRATION)
    assert query.prompts == ("red mug",) and query.mode == "relevancy" and query.roi is None
    assert query.negatives == CONFIG.negatives and not query.own_negatives
    assert query.threshold == 0.62, "the calibrated one"
    configured = dataclasses.replace(CONFIG, threshold=0.0, negatives=("wall",))
    query = make_query(["mug"], configured, CALIBRATION)
    assert query.threshold == 0.0 and query.negatives == ("wall",)


def test_query_keeps_the_arguments() -> None:
    roi = [[1, 0, 0], [0, 1, 1]]
    query = make_query(
        ["mug", "mug"],
        CONFIG,
        CALIBRATION,
        negatives=["wall "],
        mode="argmax",
        threshold=0.3,
        roi=roi,
        refine=True,
    )
    assert query.prompts == ("mug", "mug") and query.negatives == ("wall",) and query.own_negatives
    assert query.mode == "argmax" and query.threshold == 0.3 and query.refine
    assert query.roi.dtype == np.float64 and query.roi.tolist() == roi


@pytest.mark.parametrize(
    "options, word",
    [
        (dict(mode="best"), "mode 'best'"),
        (dict(negatives=["b", " "]), "negative 2"),
        (dict(threshold=1.5), "threshold 1.5"),
        (dict(threshold=-0.1), "threshold -0.1"),
        (dict(threshold=float("nan")), "threshold nan"),
        (dict(max_instances=-1), "max_instances -1"),
        (dict(roi=np.zeros((3, 2))), "two finite corners"),
        (dict(roi=[[0, 0, 0], [1, np.nan, 1]]), "two finite corners"),
        (dict(roi=[[0, 0, 0], [1, 1e39, 1]]), "two finite corners"),
    ],
)
def test_query_refuses_bad_options(options: dict, word: str) -> None:
    with pytest.raises(UserError, match=word):
        make_query(["a"], CONFIG, CALIBRATION, **options)
