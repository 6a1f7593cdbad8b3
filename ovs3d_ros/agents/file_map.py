"""A map file that answers the tools of language agents."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ovs3d_ros.agents.asked_map import Goal, Reply, Thing, goal_of
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.description import explain_missing, more_digits
from ovs3d_ros.query.navigation import goal_pose
from ovs3d_ros.query.related import relate_objects
from ovs3d_ros.types import QueryResult
from ovs3d_ros.visualization.answer_views import PICTURE_WIDTH, picture_answer


class FileMap:
    """The map of a pipeline, as it is now; one question at a time. See `asked_map.AskedMap`.

    Args:
        pipeline: holds the map.
        title: names the map.
    """

    def __init__(self, pipeline: Ovs3d, title: str) -> None:
        self.title = title
        self._pipeline = pipeline
        self._snapshot = pipeline.snapshot()
        self._lock = threading.Lock()
        self.digits = 3 + more_digits(self._snapshot.frame.unit)

    def ask(self, names: Sequence[str], *, relate: Sequence[str] = ()) -> Reply:
        """See `AskedMap.ask`."""
        result, config = self._query(names), self._pipeline.config.query
        with self._lock:
            relations = relate_objects(relate, result, self._snapshot, config)
        notes = explain_missing(result, config)
        return Reply(
            names=result.prompts,
            verdicts=result.verdicts,
            presence=[float(p) for p in result.presence],
            notes=[notes.get(p, "") for p in range(len(result.prompts))],
            things=[Thing(item.prompt, item.center, item.size) for item in result.objects],
            relations=relations,
            observed=result.observed,
        )

    def known_names(self) -> list[str]:
        """See `AskedMap.known_names`."""
        field = self._snapshot.refined
        return [*(field.names if field is not None else ()), *self._pipeline.queries.common_names()]

    def picture(self, names: Sequence[str]) -> bytes:
        """See `AskedMap.picture`."""
        result = self._query(names)
        with self._lock:
            return picture_answer(self._pipeline, self._snapshot, result, PICTURE_WIDTH)[1]

    def goal(self, name: str) -> Goal | None:
        """See `AskedMap.goal`."""
        result = self._query([name])
        if not result.objects:
            return None
        item = result.objects[0]
        pose = goal_pose(item, self._snapshot.camtoworlds, self._pipeline.config.output.stand_off)
        return goal_of(pose, item.center)

    def _query(self, names: Sequence[str]) -> QueryResult:
        with self._lock:
            return self._pipeline.query(names, snapshot=self._snapshot)
