"""A settings class as flags: their names, their groups, and what ``--help`` says of them."""

from __future__ import annotations

import argparse
import shutil
import types
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from nucseg_ray.config import Settings
from nucseg_ray.errors import UsageError

HELP_WIDTH = 100
_FLAGS_WIDTH = 30
_TYPES = {str: "TEXT", int: "N", float: "X", bool: "yes|no"}


class FlagParser(argparse.ArgumentParser):
    """The parser of one command's flags. What they mean and whether they fit is for the settings to say."""

    def __init__(self, settings_class: type[Settings], *, prog: str) -> None:
        needed = [
            f"{flag(name)} {metavar(field)}"
            for name, field in settings_class.model_fields.items()
            if field.is_required()
        ]
        super().__init__(
            prog=prog,
            usage=_literally(" ".join([prog, *needed, "[flags]"])),
            description=_literally(summary(settings_class)),
            epilog=_literally(
                "\n".join(["examples:", *(f"  {prog} {example}" for example in settings_class.examples)])
            ),
            allow_abbrev=False,
            add_help=False,
            formatter_class=_Formatter,
        )
        for title, fields in grouped(settings_class).items():
            group = self.add_argument_group(title)
            for name, field in fields.items():
                _add_flag(group, name, field)
        _add_common(self.add_argument_group("settings file and help"))

    @property
    def known_flags(self) -> list[str]:
        """Every flag that is understood, also those that ``--help`` leaves out."""
        return sorted(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        """Raise what ``argparse`` finds wrong, instead of exiting."""
        raise UsageError(f"{message.removeprefix('argument ')}; see --help")


def flag(name: str) -> str:
    """Give the flag of a field."""
    return "--" + name.replace("_", "-")


def summary(settings_class: type[Settings]) -> str:
    """Give the one line that says what a command does."""
    return (settings_class.__doc__ or "").strip().partition("\n")[0]


def grouped(settings_class: type[Settings]) -> dict[str, dict[str, FieldInfo]]:
    """Give the fields by the title of their group, both in the order of the class."""
    groups: dict[str, dict[str, FieldInfo]] = {}
    title = "flags"
    for name, field in settings_class.model_fields.items():
        title = settings_class.groups.get(name, title)
        groups.setdefault(title, {})[name] = field
    return groups


def described(field: FieldInfo) -> str:
    """Give a field's description, and its default or that it has none."""
    text = field.description or ""
    if field.is_required():
        return f"{text} (required)"
    if field.default is None or field.default is False:
        return text
    if isinstance(field.default, tuple):
        return f"{text} (default: {' '.join(map(str, field.default))})"
    return f"{text} (default: {'on' if field.default is True else field.default})"


def metavar(field: FieldInfo) -> str:
    """Give what stands for the value of a field: its choices, its own mark (``Annotated[str, "PATH"]``) or its type."""
    annotation, marks = _bare(field.annotation)
    mark = next((mark for mark in (*field.metadata, *marks) if isinstance(mark, str)), None)
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if get_origin(annotation) is tuple:
        return " ".join(_TYPES[part] for part in get_args(annotation))
    return mark or _TYPES[annotation]


def _add_flag(group: Any, name: str, field: FieldInfo) -> None:
    annotation, _ = _bare(field.annotation)
    text = _literally(described(field))
    if annotation is not bool:
        of_several: dict[str, Any] = {"nargs": len(get_args(annotation)), "metavar": tuple(metavar(field).split())}
        of_one = {"metavar": metavar(field)}
        group.add_argument(flag(name), help=text, **(of_several if get_origin(annotation) is tuple else of_one))
        return
    # Both ways always: what the file turned on can be turned off. Only the way that changes the default is shown.
    if field.default is True:
        group.add_argument(flag(name), action=argparse.BooleanOptionalAction, default=None, help=text)
        return
    group.add_argument(flag(name), action="store_true", default=None, help=text)
    negated = flag(f"no_{name}")
    group.add_argument(negated, dest=name, action="store_false", default=None, help=argparse.SUPPRESS)


def _add_common(group: Any) -> None:
    group.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file with any of these settings, named as the flags (epochs: 30); flags win over it, "
        "--no-FLAG turns off what it turned on; relative paths in it start where the command runs",
    )
    group.add_argument(
        "--print-config", action="store_true", help="print all settings, defaults included, as such a file, and exit"
    )
    group.add_argument("-h", "--help", action="help", help="show this and exit")


def _bare(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Give a type without None, and the marks that it carries."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Annotated:
        return annotation.__origin__, annotation.__metadata__
    return annotation, ()


def _literally(text: str) -> str:
    """Keep ``argparse`` from taking a per cent sign for one of its own."""
    return text.replace("%", "%%")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, HELP_WIDTH)
        super().__init__(prog, max_help_position=_FLAGS_WIDTH, width=width)
