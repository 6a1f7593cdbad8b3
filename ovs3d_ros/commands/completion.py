"""Tab completion of the command line in a shell, by argcomplete."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from ovs3d_ros.config import leaves


def offer_completion(parser: argparse.ArgumentParser) -> None:
    """Ends the process with the possible next words if a shell asks for them, else does nothing.

    A shell whose completion is registered (docs/quickstart.md) runs the command with a variable set.
    """
    if "_ARGCOMPLETE" not in os.environ:
        return
    try:
        import argcomplete
        from argcomplete.completers import FilesCompleter
    except ImportError:  # registered by another Python; a Tab must not run the command
        raise SystemExit(1) from None
    maps = FilesCompleter(["ovs3d"])
    _attach({"set": complete_setting, "map": maps, "other": maps, "prompts": _complete_nothing}, parser)
    argcomplete.autocomplete(parser)


def complete_setting(prefix: str, **_: Any) -> list[str]:
    """The words of `--set` that begin so: parameters up to the equals sign, and values of those with few."""
    words = []
    for spec, _value in leaves():
        values = ("true", "false") if spec.type is bool else spec.choices
        words += [f"{spec.path}={value}" for value in values] if "=" in prefix else [f"{spec.path}="]
    return [word for word in words if word.startswith(prefix)]


def _complete_nothing(**_: Any) -> list[str]:
    return []  # a name of a thing is no file


def _attach(completers: dict[str, Callable[..., Any]], parser: argparse.ArgumentParser) -> None:
    """Sets the completers of the arguments of a parser and of its commands, by their names."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _attach(completers, command)
        elif action.dest in completers:
            setattr(action, "completer", completers[action.dest])  # noqa: B010  argparse declares no such field
