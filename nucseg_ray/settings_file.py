"""Settings in a YAML file: reading one, and writing the complete one of a run."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from nucseg_ray import __version__
from nucseg_ray.config import Settings
from nucseg_ray.errors import InputError, UsageError
from nucseg_ray.flags import HELP_WIDTH, described, grouped, metavar
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.locations import Location

_NEVER_FOLD = 1 << 30


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What a file holds: values by field name, as text; and each one's key and line, for messages."""

    path: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    def where(self, name: str) -> str:
        """Say where a field stands."""
        return f"{self.path}, line {self.keys[name][1]}"


def read_settings_file(path: str) -> SettingsFile:
    """Read a file of ``key: value`` lines; keys with ``-`` are the same as with ``_``.

    Values stay the text that was written (``null`` is None), so that the settings read them as they read flags:
    ``plate: 007`` keeps its zeros, and ``learning_rate: 2e-3`` is a number, which YAML 1.1 would say of neither.

    Raises
    ------
    UsageError
        It is not YAML, not a mapping, or holds a key twice.
    InputError
        It cannot be read.
    """
    try:
        content = fetch_bytes(Location(path))
    except (InputError, UsageError) as error:
        raise type(error)(f"--config: {error}") from error
    try:
        root = yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: expected YAML in UTF-8; {_problem(error)}") from error
    if root is None:
        return SettingsFile(path)
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"{path}: expected lines of `key: value`, found {_kind(root)}")
    values: dict[str, Any] = {}
    keys: dict[str, tuple[str, int]] = {}
    for key_node, value_node in root.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UsageError(f"{path}, line {line}: expected `key: value`, found {_kind(key_node)} as the key")
        name = key_node.value.replace("-", "_")
        if name in keys:
            raise UsageError(f"{path}, line {line}: {key_node.value} was given before, in line {keys[name][1]}")
        values[name] = _value(value_node, where=f"{path}, line {line}: {key_node.value}")
        keys[name] = key_node.value, line
    return SettingsFile(path, values, keys)


def as_settings_file(settings_class: type[Settings], values: Mapping[str, Any], *, prog: str) -> str:
    """Give the text of a file that reads as these values. Lines of fields that have none are commented out."""
    return "\n".join(_lines(settings_class, values, prog=prog)) + "\n"


def _lines(settings_class: type[Settings], values: Mapping[str, Any], *, prog: str) -> Iterator[str]:
    yield f"# All settings of {prog} ({__version__}), to be used with: {prog} --config FILE"
    for title, fields in grouped(settings_class).items():
        yield from ("", f"# ---- {title} ----")
        for name, definition in fields.items():
            text = f"{described(definition)} [{metavar(definition)}]"
            yield ""
            yield from textwrap.wrap(text, HELP_WIDTH, initial_indent="# ", subsequent_indent="# ")
            if name in values:
                yield _line(name, values[name])
            else:
                yield f"# {name}: {metavar(definition)}"


def _line(name: str, value: Any) -> str:
    # PyYAML would write a line separator such as U+0085 as it is, and read it as a space.
    as_it_is = str(value).isprintable()
    return yaml.dump({name: value}, Dumper=_Dumper, allow_unicode=as_it_is, width=_NEVER_FOLD).rstrip("\n")


def _value(node: yaml.Node, *, where: str) -> Any:
    if isinstance(node, yaml.SequenceNode) and _is_plain(node):
        return [_text(item, where=where) for item in node.value]
    return _text(node, where=where)


def _text(node: yaml.Node, *, where: str) -> str | None:
    if not isinstance(node, yaml.ScalarNode) or not _is_plain(node):
        raise UsageError(f"{where}: expected a value or a list of values, found {_kind(node)}")
    return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)


def _is_plain(node: yaml.Node) -> bool:
    """Tell whether the safe loader would take it; a tag such as !!python/name does not mean the text behind it."""
    return node.tag in yaml.SafeLoader.yaml_constructors


def _kind(node: yaml.Node) -> str:
    if not _is_plain(node):
        return f"the tag {node.tag}"
    if isinstance(node, yaml.ScalarNode):
        return repr(textwrap.shorten(node.value, 60))
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return str(error).splitlines()[0]


class _Dumper(yaml.SafeDumper):
    """Writes the two numbers of a pair in one line."""


_Dumper.add_representer(
    tuple, lambda dumper, pair: dumper.represent_sequence("tag:yaml.org,2002:seq", pair, flow_style=True)
)
