"""Names of things that are in a scene and of things that are not, in a file beside the data."""

from __future__ import annotations

from pathlib import Path

from ovs3d_ros.datasets.text import read_json_object
from ovs3d_ros.evaluation.calibration import ScenePrompts
from ovs3d_ros.semantics.names import distinct_names
from ovs3d_ros.types import UserError

NAMES_FILE = "presence.json"


def read_presence(path: Path) -> ScenePrompts:
    """Reads names from a JSON file: {"present": ["sofa", ...], "absent": ["piano", ...]}.

    Raises:
        UserError: it is missing or not such a file, or a name is in both lists.
    """
    document, kinds = read_json_object(path), ("present", "absent")
    names: dict[str, list[str]] = {}
    for kind in kinds:
        given = document.get(kind)
        if not isinstance(given, list) or not given or not all(isinstance(name, str) for name in given):
            raise UserError(
                f'{path}: give names that are there and names that are not: {{"present": ["sofa"], "absent": '
                '["piano"]}'
            )
        names[kind] = distinct_names([" ".join(name.split()) for name in given])
    present, absent = (names[kind] for kind in kinds)
    both = {name.casefold() for name in present} & {name.casefold() for name in absent}
    if both:
        raise UserError(f"{path}: {min(both)!r} is in both lists; leave it in one")
    return ScenePrompts(present, absent)
