"""Prompts that say where a thing is: "mug on the table"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ovs3d_ros.types import Relation

_WORDS = {
    "on top of": "on",
    "on": "on",
    "underneath": "under",
    "beneath": "under",
    "below": "under",
    "under": "under",
    "above": "above",
    "over": "above",
    "next to": "beside",
    "beside": "beside",
    "close to": "near",
    "near": "near",
    "inside": "in",
    "in": "in",
}
_ARTICLE = re.compile(r"^(?:the|an|a)(?:\s+|$)", re.IGNORECASE)
_PREPOSITION = re.compile(rf"\s+({'|'.join(_WORDS)})\s+", re.IGNORECASE)
# "on the left of the sofa" depends on who looks, and "on the edge of the table" names a part.
_PART = re.compile(r"\b(?:left|right|front|back|rear|side|top|bottom|edge|corner|end)\b", re.IGNORECASE)


def parse_relations(prompts: Sequence[str]) -> tuple[Relation | None, ...]:
    """The relations in P prompts and None for plain names; empty if all are plain."""
    relations = tuple(map(parse_relation, prompts))
    return relations if any(relations) else ()


def parse_relation(prompt: str) -> Relation | None:
    """Reads a prompt as "thing preposition place"; None: it is a plain name.

    Articles are left out. A prompt stays plain if it has several prepositions, one that depends on the viewer
    ("behind", "left of"), a part of a thing as the place ("edge of the table"), nothing on one side ("hand
    on"), or "in" without an article, which is about looks more often than places ("man in black"). A hyphen
    keeps any prompt plain ("man-on-phone").
    """
    found = list(_PREPOSITION.finditer(prompt))
    if len(found) != 1:
        return None
    word = found[0][1].casefold()
    thing, place = prompt[: found[0].start()], prompt[found[0].end() :]
    if word == "in" and not _ARTICLE.match(place):
        return None
    thing, place = (_ARTICLE.sub("", part) for part in (thing, place))
    if not thing or not place or _PART.match(place):
        return None
    return Relation(thing, _WORDS[word], place)
