"""Names of things: letter case makes no difference."""

from __future__ import annotations

from collections.abc import Sequence


def distinct_names(names: Sequence[str]) -> list[str]:
    """The names without repetitions, in the spelling that comes first."""
    return list(dict.fromkeys(unify_spelling(names)))


def unify_spelling(names: Sequence[str]) -> list[str]:
    """Gives names that differ only in letter case the spelling of the first, so that they get one answer."""
    first: dict[str, str] = {}
    return [first.setdefault(name.casefold(), name) for name in names]
