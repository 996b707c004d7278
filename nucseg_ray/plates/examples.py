"""The parts of messages that many of them have: a few examples, and the closest of what is known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

SHOWN = 3


def examples(names: Sequence[str], count: int = SHOWN) -> str:
    """Give a few names in brackets, to be put behind what they are; nothing where there are none."""
    return f" (such as {', '.join(names[:count])})" if names else ""


def closest(name: str, choices: Iterable[str]) -> str:
    """Ask whether the closest of some choices was meant; nothing where none is close."""
    by_case = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(name.casefold(), by_case, n=1)
    return f" (did you mean {by_case[close[0]]!r}?)" if close else ""
