"""The settings in a map file: only those that say how the map is made (`Policy.MAP`)."""

from __future__ import annotations

from typing import Any

from ovs3d_ros.config.leaf import drop_placeholder
from ovs3d_ros.config.schema import Config, leaves, override


def stored_settings(config: Config) -> dict[str, Any]:
    """The settings that a map file carries, by dotted path."""
    return {leaf.path: value for leaf, value in leaves(config) if leaf.stored}


def restore_config(settings: dict[str, Any]) -> Config:
    """The configuration to open a map with: its stored settings, and the defaults of all others.

    Args:
        settings: from the map file. Files of earlier versions also carry settings of the session and of the
            machine; they are ignored, and so are names this version does not know.

    Raises:
        UserError: a stored setting has a wrong type or lies outside its range.
    """
    stored = {leaf.path: leaf for leaf, _ in leaves() if leaf.stored}
    known = {path: value for path, value in settings.items() if path in stored}
    return override(Config(), {path: drop_placeholder(stored[path], value) for path, value in known.items()})
