"""The configuration as text: YAML files, plain or with the wrapper of ROS, and `key=value` assignments."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import yaml

from ovs3d_ros.config.leaf import MACHINE, drop_placeholder
from ovs3d_ros.config.schema import Config, group_descriptions, leaves, override
from ovs3d_ros.types import UserError

_WIDTH = 110  # columns of the YAML file
_HEADER = """
# All parameters of ovs3d_ros with their defaults, as printed by `ovs3d config`.
#
# Brackets hold the unit, the allowed values, and two words about when a value counts:
#   runtime       `ros2 param set` changes it while the node runs; all others are read when it starts.
#   this machine  it belongs to this computer. It never travels in a map file.
#
# [] is an empty list. Python and XML launch files refuse it among their parameters: write [''] or [0.0] there.
/**:
  ros__parameters:
"""  # noqa: E501 - the text of a file


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Reads `key=value` strings.

    A value is written as in YAML, so it can be copied from `ovs3d config`. Text needs no quotes and a list no
    brackets: `key=[a, b]` and `key=a,b` are the same, `key=[]` and `key=` are empty lists.

    Raises:
        UserError: a string without '=', or a value that is not YAML.
    """
    specs = {spec.path: spec for spec, _ in leaves()}
    values = {}
    for text in assignments:
        path, sign, raw = text.partition("=")
        if not sign:
            raise UserError(f"--set {text}: expected key=value, for example --set clip.model=bundled")
        path, raw = path.strip(), raw.strip()
        spec = specs.get(path)
        if spec is None:
            values[path] = raw  # `override` refuses the name
        elif spec.item is not None:
            values[path] = _read_list(path, raw, spec.item is str)
        else:
            values[path] = _read_value(path, raw, spec.type is str)
    return values


def _read_list(path: str, raw: str, is_text: bool) -> Any:
    if raw.startswith("["):
        # BaseLoader leaves every scalar as the text it is, so that `[no, 1]` are two names.
        return _read_yaml(path, raw, yaml.BaseLoader if is_text else yaml.SafeLoader)
    return [_read_value(path, item.strip(), is_text) for item in raw.split(",") if item.strip()]


def _read_value(path: str, raw: str, is_text: bool) -> Any:
    is_quoted = len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "'\""
    return raw if is_text and not is_quoted else _read_yaml(path, raw, yaml.SafeLoader)


def _read_yaml(path: str, raw: str, loader: Any) -> Any:
    try:
        return yaml.load(raw, loader)
    except yaml.YAMLError:
        raise UserError(
            f"{path}: cannot read the value {raw}; write it as `ovs3d config` does, a list as [a, b] or a,b"
        ) from None


def load(path: str | Path, config: Config | None = None) -> Config:
    """Reads a YAML file, plain or with the `/**: ros__parameters:` wrapper of ROS, over `config`.

    Raises:
        UserError: missing file, broken YAML, unknown or invalid parameter.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; `ovs3d config > {path}` writes a template") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a mapping of parameters")
    for node in list(tree.values()):
        if isinstance(node, dict) and "ros__parameters" in node:
            tree = node["ros__parameters"] or {}
    specs = {spec.path: spec for spec, _ in leaves()}
    values = _flatten(tree)
    values |= {path: drop_placeholder(specs[path], value) for path, value in values.items() if path in specs}
    return override(config or Config(), values)


def _flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        flat.update(
            _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        )
    return flat


def to_yaml(config: Config | None = None) -> str:
    """The commented YAML of all parameters, in the form of a ROS parameter file."""
    lines = [_HEADER.strip()]
    descriptions, section = group_descriptions(), ""
    for spec, value in leaves(config):
        group, _, name = spec.path.rpartition(".")
        if group != section:
            lines += ["", *_comment(descriptions[group], 4), f"    {group}:"]
            section = group
        facts = [spec.unit, spec.allowed, "runtime" * spec.runtime, "this machine" * (MACHINE in spec.policy)]
        facts = "; ".join(fact for fact in facts if fact)
        plain = list(value) if isinstance(value, tuple) else value
        text = yaml.safe_dump(plain, default_flow_style=True, width=1000).replace("\n...", "").strip()
        indent = 6 if group else 4
        lines += [*_comment(spec.doc, indent, f"[{facts}]" if facts else ""), f"{' ' * indent}{name}: {text}"]
    return "\n".join(lines) + "\n"


def _comment(text: str, indent: int, facts: str = "") -> list[str]:
    """The lines of a YAML comment; the facts follow the text, on a line of their own if it is full."""
    prefix = " " * indent + "# "
    lines = textwrap.wrap(
        text, _WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False
    )
    if facts and len(lines[-1]) + len(facts) < _WIDTH:
        return [*lines[:-1], f"{lines[-1]} {facts}"]
    return [*lines, prefix + facts] if facts else lines
