"""Answers prompts that say where a thing is, from the answer to the plain names in them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.geometry import mean_up
from ovs3d_ros.query.boxes import vertical_axis
from ovs3d_ros.query.completion import Layout, Shapes, complete_shapes, lay_out
from ovs3d_ros.query.presence import verdicts
from ovs3d_ros.query.relations import RELATIONS, is_related
from ovs3d_ros.semantics.names import distinct_names
from ovs3d_ros.types import MapSnapshot, Query, QueryResult, Relation, SemanticObject


@dataclass(frozen=True, slots=True)
class _Part:
    """The answer to one prompt.

    Attributes:
        column: of its thing in the plain answer.
        objects: those of the plain answer that fit.
        presence: probability that it is in the map.
        note: what there is to say about it, or "".
    """

    column: int
    objects: list[SemanticObject]
    presence: float
    note: str = ""


def plain_names(query: Query) -> list[str]:
    """The names of all things in a query, and of the places that relations name, each once."""
    names: list[str] = []
    for prompt, relation in zip(query.prompts, query.relations or [None] * len(query.prompts), strict=True):
        names += [prompt] if relation is None else [relation.thing, relation.place]
    return distinct_names(names)


def answer_related(
    query: Query,
    answer: Callable[[Query], QueryResult],
    snapshot: MapSnapshot,
    config: QueryConfig,
    layout: Callable[[MapSnapshot, str], Layout],
) -> QueryResult:
    """Answers a query of which at least one prompt holds a relation.

    A relation has the objects of its thing that stand in that relation to an object of its place. It needs
    both, so its presence is the smaller one of the two; it is 0 if both have objects and none are related.

    Args:
        query: the question. Its region holds for things and places.
        answer: answers a query of plain names from the snapshot.
        snapshot: the map.
        config: when a prompt counts as found.
        layout: `map_layout`, or one that remembers it.
    """
    plain = answer(replace(query, prompts=tuple(plain_names(query)), relations=(), max_instances=0))
    index = {name.casefold(): column for column, name in enumerate(plain.prompts)}
    objects = [[o for o in plain.objects if o.label == column + 1] for column in range(len(index))]
    shapes = _shapes(plain, layout(snapshot, config.upright))
    parts = []
    for prompt, relation in zip(query.prompts, query.relations, strict=True):
        if relation is None:
            column = index[prompt.casefold()]
            part = _Part(column, objects[column], float(plain.presence[column]))
        else:
            columns = index[relation.thing.casefold()], index[relation.place.casefold()]
            part = _relate(relation, columns, objects, shapes, plain, config)
        parts.append(replace(part, objects=part.objects[: query.max_instances or None]))
    return _assemble(query, parts, plain, config)


def relate_objects(
    names: Sequence[str], result: QueryResult, snapshot: MapSnapshot, config: QueryConfig
) -> list[tuple[int, str, int]]:
    """The relations of the objects of some names to the other objects of an answer.

    Args:
        names: some of the answer's prompts; others are ignored.
        result: the answer.
        snapshot: the map that answered.
        config: settings of the answer.

    Returns:
        Thing, relation and place, with things and places as indices of the answer's objects.
    """
    wanted = {name.casefold() for name in names}
    things = [t for t, item in enumerate(result.objects) if item.prompt.casefold() in wanted]
    # An object that answers several prompts is one place.
    places = list({item.instance: p for p, item in reversed(list(enumerate(result.objects)))}.values())[::-1]
    objects = result.objects
    if not things:
        return []
    shapes = _shapes(result, map_layout(snapshot, config.upright))
    return [
        (thing, relation, place)
        for thing in things
        for place in places
        for relation in RELATIONS
        if _stand_in(relation, objects[thing], objects[place], shapes)
    ]


def _stand_in(relation: str, thing: SemanticObject, place: SemanticObject, shapes: Shapes) -> bool:
    """Whether a relation holds between two objects."""
    a, b = thing.instance, place.instance
    return a != b and shapes.are_near(a, b) and is_related(shapes[a], relation, shapes[b])


def map_layout(snapshot: MapSnapshot, upright: str) -> Layout:
    """The Gaussians of a map as shapes are completed from them, 32 bytes each; see `query.upright`."""
    return lay_out(snapshot.gaussians["means"].cpu().numpy(), _up(snapshot.camtoworlds, upright))


def _shapes(answer: QueryResult, layout: Layout) -> Shapes:
    """The completed shapes of the objects of an answer."""
    relevancy = functools.cache(lambda: answer.relevancy.cpu().numpy())
    return complete_shapes(
        answer.objects,
        answer.instances.cpu().numpy(),
        layout,
        lambda label: relevancy()[:, label - 1],
        answer.query.threshold,
    )


def _up(camtoworlds: np.ndarray, upright: str) -> np.ndarray:
    """The direction [3] up: z where boxes would stand along it, else that of the cameras on average."""
    axis = vertical_axis(camtoworlds, upright if upright == "always" else "auto")
    if axis is None and len(camtoworlds):
        axis = mean_up(camtoworlds)
    return np.array([0.0, 0.0, 1.0]) if axis is None else axis


def _relate(
    relation: Relation,
    columns: tuple[int, int],
    objects: list[list[SemanticObject]],
    shapes: Shapes,
    plain: QueryResult,
    config: QueryConfig,
) -> _Part:
    """The answer to a relation between the things and the places of two columns of the plain answer."""
    things, places = (objects[column] for column in columns)
    related = [
        thing for thing in things if any(_stand_in(relation.name, thing, place, shapes) for place in places)
    ]
    presence = float(plain.presence[list(columns)].min())
    if related or not plain.found[list(columns)].all():
        return _Part(columns[0], related, presence)
    both = f"{relation.thing} and {relation.place} are here"
    if things and places:
        return _Part(
            columns[0], [], 0.0, f"{both}, but no {relation.thing} is {relation.name} {relation.place}"
        )
    below = float(np.nextafter(config.presence, 0))
    return _Part(
        columns[0], [], min(presence, below), f"{both}, but one of them has no object to compare with"
    )


def _assemble(query: Query, parts: list[_Part], plain: QueryResult, config: QueryConfig) -> QueryResult:
    """The answer to the query from those to its prompts; objects that nobody asked for are left out."""
    columns = [part.column for part in parts]
    numbers = torch.zeros(int(plain.instances.max()) + 1, dtype=torch.int64)
    for item in (item for part in parts for item in part.objects):
        if not numbers[item.instance]:
            numbers[item.instance] = numbers.max() + 1
    labels = torch.zeros_like(plain.labels)
    plain_first = sorted(range(len(parts)), key=lambda p: (query.relations[p] is not None, -p))
    for p in plain_first:  # later ones, which say more about a thing, win
        mine = plain.labels == columns[p] + 1
        if query.relations[p] is not None:
            mine &= torch.isin(plain.instances, torch.tensor([o.instance for o in parts[p].objects])).to(
                mine.device
            )
        labels[mine] = p + 1
    presence = np.array([part.presence for part in parts], plain.presence.dtype)
    return replace(
        plain,
        query=query,
        found=presence >= config.presence,
        presence=presence,
        score=plain.score[columns],
        evidence=plain.evidence[columns],
        score_all=lambda: plain.relevancy[:, columns],
        labels=labels,
        instances=numbers[plain.instances],
        objects=[
            replace(o, prompt=query.prompts[p], label=p + 1, instance=int(numbers[o.instance]))
            for p, part in enumerate(parts)
            for o in part.objects
        ],
        verdicts=verdicts(presence, config),
        notes=tuple(part.note for part in parts),
    )
