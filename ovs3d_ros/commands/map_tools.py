"""What a language agent may do with a map: find, list, describe, look, go there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from ovs3d_ros.commands.query import best_view, legend
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.description import describe, more_digits
from ovs3d_ros.query.navigation import goal_pose
from ovs3d_ros.query.related import find_relations, plain_names
from ovs3d_ros.query.relations import RELATIONS
from ovs3d_ros.query.request import MAX_PROMPTS
from ovs3d_ros.semantics.names import distinct_names
from ovs3d_ros.types import QueryResult, UserError
from ovs3d_ros.visualization import pictures

_VIEW_WIDTH = 768  # px
_WEAKER = {"on": ("above", "near"), "in": ("on", "above", "near"), "above": ("near",), "under": ("near",)}
_WEAKER["beside"] = ("near",)  # relations that go without saying beside a stronger one


class MapTools:
    """Answers an agent's questions about one map, one at a time, as values for JSON.

    Objects are named by their prompt and number, like "chair 2"; the best one of a prompt has number 1.

    Args:
        pipeline: holds the map.
    """

    def __init__(self, pipeline: Ovs3d) -> None:
        self._pipeline = pipeline
        self._snapshot = pipeline.snapshot()
        self._lock = threading.Lock()

    def find(self, names: Sequence[str]) -> dict[str, Any]:
        """Whether and where things are; a name may say where, like "mug on the table".

        Raises:
            UserError: names that cannot be asked for.
        """
        result = self._ask(names)
        found = self._describe(result)
        return dict(things=found, share_of_the_horizon_seen=round(result.observed, 2))

    def list_objects(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """The things of a list that are in the map: of `names`, or else of names the encoder knows well."""
        asked = self._choose_names(names)
        things = [
            entry
            for start in range(0, len(asked), MAX_PROMPTS)
            for entry in self._describe(self._ask(asked[start : start + MAX_PROMPTS]))
            if entry["verdict"] == "yes"
        ]
        return dict(things=things, looked_for=asked)

    def describe_place(self, name: str, others: Sequence[str] = ()) -> dict[str, Any]:
        """Where a thing is in relation to others: of `others`, or else of names the encoder knows well."""
        asked = plain_names(self._pipeline.make_query([name]))
        others = [other for other in self._choose_names(others) if not _is_nested(other, asked[0])]
        result = self._ask([name, *others[: MAX_PROMPTS - len(asked)]])
        items = [item for item in result.objects if item.label == 1]
        with self._lock:
            relations = find_relations(items, result, self._snapshot, self._pipeline.config.query)
        labels = _labels(result)
        places = {
            labels[item.label, item.instance]: _strongest(
                [
                    (relation, labels[place.label, place.instance])
                    for a, relation, place in relations
                    if a is item
                ]
            )
            for item in items
        }
        return dict(**self._describe(result)[0], relations=places)

    def view(self, names: Sequence[str]) -> bytes:
        """A JPEG of the keyframe that shows the answer best, with the things in colour and a legend."""
        result = self._ask(names)
        with self._lock:
            index = best_view(self._pipeline, self._snapshot, result)
            camera, pose = self._snapshot.cameras[index], self._snapshot.camtoworlds[index]
            labels, _ = self._pipeline.render_labels(result, camera, pose, self._snapshot)
            rendered = self._pipeline.render(camera, pose, self._snapshot).rgb.cpu().numpy()
        picture = pictures.overlay(pictures.to_uint8(rendered), labels, width=_VIEW_WIDTH)
        shown = np.ascontiguousarray(pictures.add_legend(picture, legend(result))[..., ::-1])
        return cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()

    def goal(self, name: str) -> dict[str, Any]:
        """A pose on the ground from which a robot faces the best object of a name.

        Raises:
            UserError: there is none.
        """
        result = self._ask([name])
        if not result.objects:
            raise UserError(f"{name}: {result.verdicts[0]}, so there is no place to go to; `find` tells more")
        item = result.objects[0]
        stand_off = self._pipeline.config.output.stand_off
        pose = goal_pose(item, self._snapshot.camtoworlds, stand_off)
        yaw = float(np.arctan2(pose[1, 0], pose[0, 0]))
        return dict(
            x=round(pose[0, 3], 3),
            y=round(pose[1, 3], 3),
            yaw=round(yaw, 4),
            object_center=self._round(item.center),
        )

    def _ask(self, names: Sequence[str]) -> QueryResult:
        with self._lock:
            return self._pipeline.query(distinct_names(names), snapshot=self._snapshot)

    def _choose_names(self, names: Sequence[str]) -> list[str]:
        field = self._snapshot.refined
        known = [*(field.names if field is not None else ()), *self._pipeline.queries.common_names()]
        return distinct_names(list(names) or known)

    def _describe(self, result: QueryResult) -> list[dict[str, Any]]:
        labels = _labels(result)
        return [
            dict(
                name=entry["prompt"],
                verdict=entry["verdict"],
                presence=entry["presence"],
                objects=[
                    dict(
                        object=labels[p + 1, item["instance"]],
                        center=self._round(item["center"]),
                        size=self._round(item["size"]),
                    )
                    for item in entry["objects"]
                ],
                note=entry["note"],
            )
            for p, entry in enumerate(describe(result, self._snapshot, self._pipeline.config.query))
        ]

    def _round(self, values: np.ndarray) -> list[float]:
        return np.round(values, 3 + more_digits(self._snapshot.frame.unit)).tolist()


def _labels(result: QueryResult) -> dict[tuple[int, int], str]:
    """The names of objects, like "chair 2", by label and instance."""
    names, counts = {}, dict.fromkeys(range(1, len(result.prompts) + 1), 0)
    for item in result.objects:
        counts[item.label] += 1
        names[item.label, item.instance] = f"{item.prompt} {counts[item.label]}"
    return names


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
