"""From a command line, and the file that it may name, to settings."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError, create_model

from nucseg_ray.config import Settings
from nucseg_ray.errors import UsageError
from nucseg_ray.flags import FlagParser, flag
from nucseg_ray.settings_file import SettingsFile, as_settings_file, read_settings_file

SettingsT = TypeVar("SettingsT", bound=Settings)
_PLAIN = {"a valid integer": "a whole number", "a valid boolean": "true or false", "a valid string": "text"}


def parse(settings_class: type[SettingsT], argv: Sequence[str], *, prog: str) -> SettingsT:
    """Read flags, and the file of ``--config``, into settings; flags win. ``--help`` and ``--print-config`` exit.

    Raises
    ------
    UsageError
        A flag or key is unknown (the message names the closest), missing, or its value does not fit.
    InputError
        The file cannot be read.
    """
    parser = FlagParser(settings_class, prog=prog)
    # What is missing is found last, by the settings: a mistyped flag would else be told as the lack of the right one.
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        hint = did_you_mean(unknown[0].split("=")[0], parser.known_flags)
        raise UsageError(f"{unknown[0]!r} is not a flag of this command{hint}")
    file = SettingsFile() if given.config is None else read_settings_file(given.config)
    for name, (key, _) in file.keys.items():
        if name not in settings_class.model_fields:
            hint = did_you_mean(name, settings_class.model_fields)
            raise UsageError(f"{file.where(name)}: {key!r} is not a setting of this command{hint}")
    flags = {name: getattr(given, name) for name in settings_class.model_fields if getattr(given, name) is not None}
    if given.print_config:
        sys.stdout.write(as_settings_file(settings_class, _known(settings_class, flags, file), prog=prog))
        raise SystemExit(0)
    return _checked(settings_class, flags, file)


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Name the closest of what is known, or point to ``--help``; to be put behind a message."""
    closest = difflib.get_close_matches(given.lower(), list(known), n=1)
    return f"; did you mean {closest[0]}?" if closest else "; see --help"


def _checked(settings_class: type[SettingsT], flags: Mapping[str, Any], file: SettingsFile) -> SettingsT:
    try:
        return settings_class(**{**file.values, **flags})
    except ValidationError as error:
        raise UsageError("; ".join(_explain(detail, flags, file) for detail in error.errors())) from error


def _known(settings_class: type[Settings], flags: Mapping[str, Any], file: SettingsFile) -> dict[str, Any]:
    """Give the checked value of every setting, but of those that are required and missing."""
    fields = settings_class.model_fields.items()
    missing = {name for name, field in fields if field.is_required() and name not in {**flags, **file.values}}
    optional: dict[str, Any] = dict.fromkeys(missing, (Any, None))
    lenient = create_model(settings_class.__name__, __base__=settings_class, **optional)
    return _checked(lenient, flags, file).model_dump(exclude=missing)


def _explain(detail: Any, flags: Mapping[str, Any], file: SettingsFile) -> str:
    if not detail["loc"]:  # a check of several settings together: it names them itself
        return str(detail["msg"]).removeprefix("Value error, ")
    name = str(detail["loc"][0])
    if detail["type"] == "missing":
        return f"{flag(name)} is required{f', here or in {file.path}' if file.path else ''}; see --help"
    where = flag(name) if name in flags else f"{file.where(name)}: {file.keys[name][0]}"
    message = str(detail["msg"]).removeprefix("Value error, ").split(", unable to ")[0]
    message = re.sub("^Input should be (?=greater|less)", "expected a number ", message)
    message = message.replace("Input should be", "expected")
    for term, plain in _PLAIN.items():
        message = message.replace(term, plain)
    return f"{where}: {message}, found {'nothing' if detail['input'] is None else repr(detail['input'])}"
