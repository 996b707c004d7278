"""From a command line to settings: the flags are the fields of a settings class."""

from __future__ import annotations

import argparse
import difflib
import inspect
import types
from collections.abc import Sequence
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from nucseg_ray.config import Settings
from nucseg_ray.errors import UsageError

SettingsT = TypeVar("SettingsT", bound=Settings)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see --help")


def parse(settings_class: type[SettingsT], argv: Sequence[str], *, prog: str) -> SettingsT:
    """Read flags into settings. ``--help`` prints the flags and exits.

    Raises
    ------
    UsageError
        A flag is unknown (the message names the closest), missing, or its value does not fit.
    """
    parser = _Parser(
        prog=prog,
        description=inspect.cleandoc(settings_class.__doc__ or ""),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, field in settings_class.model_fields.items():
        _add_flag(parser, name, field)
    # What is missing is found last, by the settings: a mistyped flag would else be told as the lack of the right one.
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        raise UsageError(_unknown(unknown[0], settings_class))
    try:
        return settings_class(**{name: value for name, value in vars(given).items() if value is not None})
    except ValidationError as error:
        raise UsageError("; ".join(_explain(detail) for detail in error.errors())) from error


def flag(name: str) -> str:
    """Give the flag of a field."""
    return "--" + name.replace("_", "-")


def _add_flag(parser: argparse.ArgumentParser, name: str, field: FieldInfo) -> None:
    annotation = _without_none(field.annotation)
    text = (field.description or "") + (
        "" if field.is_required() or field.default is None or field.default is False else f" (default: {field.default})"
    )
    if annotation is bool:
        parser.add_argument(flag(name), action="store_true", default=None, help=text)
        return
    options: dict[str, Any] = {"metavar": _metavar(annotation)}
    if get_origin(annotation) is tuple:
        options["nargs"] = len(get_args(annotation))
    if get_origin(annotation) is Literal and all(isinstance(choice, int) for choice in get_args(annotation)):
        options["type"] = int  # pydantic takes the text "8" for an int, but not for the literal 8
    parser.add_argument(flag(name), default=None, help=f"{text} (required)" if field.is_required() else text, **options)


def _metavar(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if get_origin(annotation) is tuple:
        return "N"
    return {int: "N", float: "X"}.get(annotation, "TEXT")


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def _unknown(given: str, settings_class: type[Settings]) -> str:
    flags = [flag(name) for name in settings_class.model_fields]
    closest = difflib.get_close_matches(given.split("=")[0], flags, n=1)
    hint = f"; did you mean {closest[0]}?" if closest else "; see --help"
    return f"{given!r} is not a flag of this command{hint}"


def _explain(detail: Any) -> str:
    name = flag(str(detail["loc"][0])) if detail["loc"] else "settings"
    if detail["type"] == "missing":
        return f"{name} is required; see --help"
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"{name}: {message}, found {detail['input']!r}"
