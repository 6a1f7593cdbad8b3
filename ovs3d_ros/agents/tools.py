"""What a language agent may do with a map: find, list, describe, look, go there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovs3d_ros.agents.asked_map import AskedMap, Reply
from ovs3d_ros.query.relation_prompts import parse_relation
from ovs3d_ros.query.relations import RELATIONS
from ovs3d_ros.query.request import MAX_PROMPTS, check_prompts
from ovs3d_ros.semantics.names import distinct_names
from ovs3d_ros.types import UserError

_WEAKER = {"on": ("above", "near"), "in": ("on", "above", "near"), "above": ("near",), "under": ("near",)}
_WEAKER["beside"] = ("near",)  # relations that go without saying beside a stronger one


class MapTools:
    """Answers an agent's questions about one map as values for JSON.

    Objects are named by their prompt and number, like "chair 2"; the best one of a prompt has number 1.

    Args:
        asked: the map.
    """

    def __init__(self, asked: AskedMap) -> None:
        self._map = asked

    def find(self, names: Sequence[str]) -> dict[str, Any]:
        """Whether and where things are; a name may say where, like "mug on the table".

        Raises:
            UserError: names that cannot be asked for.
        """
        reply = self._map.ask(_checked(names))
        return dict(things=self._describe(reply), share_of_the_horizon_seen=round(reply.observed, 2))

    def list_objects(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """The things of a list that are in the map: of `names`, or else of names the encoder knows well."""
        wanted = self._choose_names(names)
        things = [
            entry
            for start in range(0, len(wanted), MAX_PROMPTS)
            for entry in self._describe(self._map.ask(_checked(wanted[start : start + MAX_PROMPTS])))
            if entry["verdict"] == "yes"
        ]
        return dict(things=things, looked_for=wanted)

    def describe_place(self, name: str, others: Sequence[str] = ()) -> dict[str, Any]:
        """Where a thing is in relation to others: of `others`, or else of names the encoder knows well."""
        (name,) = check_prompts([name])
        relation = parse_relation(name)
        plain = [name] if relation is None else distinct_names([relation.thing, relation.place])
        others = [other for other in self._choose_names(others) if not _is_nested(other, plain[0])]
        reply = self._map.ask(_checked([name, *others[: MAX_PROMPTS - len(plain)]]), relate=[name])
        labels = _labels(reply)
        places = {
            labels[t]: _strongest([(word, labels[place]) for a, word, place in reply.relations if a == t])
            for t, thing in enumerate(reply.things)
            if thing.name == reply.names[0]
        }
        return dict(**self._describe(reply)[0], relations=places)

    def view(self, names: Sequence[str]) -> bytes:
        """A JPEG of the keyframe that shows the answer best, with the things in colour and a legend."""
        return self._map.picture(_checked(names))

    def goal(self, name: str) -> dict[str, Any]:
        """A pose on the ground from which a robot faces the best object of a name.

        Raises:
            UserError: there is none.
        """
        (name,) = check_prompts([name])
        goal = self._map.goal(name)
        if goal is None:
            verdict = self._map.ask([name]).verdicts[0]
            raise UserError(f"{name}: {verdict}, so there is no place to go to; `find` tells more")
        x, y = self._round(goal.position)
        return dict(x=x, y=y, yaw=round(goal.yaw, 4), object_center=self._round(goal.center))

    def _choose_names(self, names: Sequence[str]) -> list[str]:
        return distinct_names(list(names) or self._map.known_names())

    def _describe(self, reply: Reply) -> list[dict[str, Any]]:
        labels = _labels(reply)
        return [
            dict(
                name=name,
                verdict=reply.verdicts[n],
                presence=round(reply.presence[n], 4),
                objects=[
                    dict(object=labels[t], center=self._round(thing.center), size=self._round(thing.size))
                    for t, thing in enumerate(reply.things)
                    if thing.name == name
                ],
                note=reply.notes[n] or None,
            )
            for n, name in enumerate(reply.names)
        ]

    def _round(self, values: np.ndarray) -> list[float]:
        return np.round(values, self._map.digits).tolist()


def _checked(names: Sequence[str]) -> list[str]:
    """The names, each once.

    Raises:
        UserError: see `check_prompts`.
    """
    return distinct_names(check_prompts(names))


def _labels(reply: Reply) -> list[str]:
    """The names of the things, like "chair 2"."""
    labels, counts = [], dict.fromkeys(reply.names, 0)
    for thing in reply.things:
        counts[thing.name] += 1
        labels.append(f"{thing.name} {counts[thing.name]}")
    return labels


def _is_nested(a: str, b: str) -> bool:
    """Whether one name holds all words of the other, like "teapot" and "red teapot": one thing, perhaps."""
    words = [set(name.casefold().split()) for name in (a, b)]
    return words[0] <= words[1] or words[1] <= words[0]


def _strongest(relations: list[tuple[str, str]]) -> list[str]:
    """Relations to places as text, without those that follow from others: what is on a table is near it."""
    implied = {(weaker, place) for relation, place in relations for weaker in _WEAKER.get(relation, ())}
    kept = [pair for pair in relations if pair not in implied]
    return [
        f"{relation} {place}" for relation, place in sorted(kept, key=lambda pair: RELATIONS.index(pair[0]))
    ]
