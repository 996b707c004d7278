"""Which scheme a name of `--scheme` stands for; among them the user's own: `regex:` and a pattern with named groups."""

from __future__ import annotations

import re
from functools import lru_cache

from nucseg_ray.errors import UsageError
from nucseg_ray.plates.examples import closest
from nucseg_ray.plates.naming import SUFFIX, Form, Scheme
from nucseg_ray.plates.schemes import SCHEMES

PREFIX = "regex:"
_GROUPS = ("plate", "well", "row", "column", "site", "channel", "z", "time")
_EXAMPLE = r"regex:(?P<well>[A-P]\d\d)_(?P<site>\d+)_(?P<channel>\w+)"
_MATCHED = "those that it matches from beginning to end"
_FLAGS = re.compile(r"\(\?[aiLmsux]+\)")
_ANY_FOLDER = re.compile(r"(?P<folder>[\s\S]*)")


def scheme_named(name: str) -> Scheme:
    """Return the scheme of this name; raises `UsageError` for one that is not known or cannot be."""
    if name.startswith(PREFIX):
        return _user_scheme(name)
    if name not in SCHEMES:
        raise UsageError(
            f"--scheme {name!r} is not known{closest(name, SCHEMES)}: expected one of {', '.join(SCHEMES)}, or "
            f"{_EXAMPLE!r}, a pattern of your own."
        )
    return SCHEMES[name]


@lru_cache(maxsize=8)
def _user_scheme(name: str) -> Scheme:
    """Make a scheme of a user's pattern.

    It has to match the whole name of a file, with or without its ending; one that has a slash, the whole path below the
    input. The plate is the folder that holds the file, unless the pattern has a group for it.
    """
    text = name.removeprefix(PREFIX)
    _check_groups(text)
    flags = _FLAGS.match(text)
    start, rest = (flags[0], text[flags.end() :]) if flags else ("", text)
    if "x" in start:
        rest += "\n"  # the pattern may end in a comment
    forms = tuple(
        Form(_MATCHED, re.compile(pattern), _ANY_FOLDER, whole_path="/" in text)
        # First without the ending: a last group such as (?P<channel>.*) is not meant to hold it.
        for pattern in (f"{start}(?:{rest})(?i:{SUFFIX})", f"{start}(?:{rest})")
    )
    return Scheme(name, "a regular expression of your own", forms)


def _check_groups(text: str) -> None:
    """Raise `UsageError` for groups that are unknown, missing or too many."""
    try:
        groups = list(re.compile(text).groupindex)
    except re.error as error:
        raise UsageError(
            f"--scheme {PREFIX}{text}: not a regular expression ({error}). Expected one such as {_EXAMPLE!r}."
        ) from error
    unknown = [group for group in groups if group not in _GROUPS]
    if unknown:
        raise UsageError(
            f"--scheme {PREFIX}{text}: the group {unknown[0]!r} means nothing here{closest(unknown[0], _GROUPS)}: "
            f"expected groups among {', '.join(_GROUPS)}. Write (?:...) for a group without a name."
        )
    fault = _missing(groups)
    if fault:
        raise UsageError(f"--scheme {PREFIX}{text}: {fault}. Expected a pattern such as {_EXAMPLE!r}.")


def _missing(groups: list[str]) -> str | None:
    """Say which group the pattern lacks, or has too many."""
    for one, other in (("row", "column"), ("column", "row")):
        if one in groups and other not in groups:
            return f"has the group {one!r} and is missing the group {other!r}"
    if "row" in groups and "well" in groups:
        return "has the groups 'row' and 'column' and also 'well', which say the same"
    if not {"row", "well", "site"} & set(groups):
        return "is missing the group 'well' (or 'row' and 'column'), or 'site': nothing would tell images apart"
    return None
