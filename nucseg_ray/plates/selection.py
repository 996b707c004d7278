"""Which wells and sites of a plate a run is to segment: what `--wells` and `--sites` say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nucseg_ray.errors import NamingError, UsageError
from nucseg_ray.plates.examples import examples
from nucseg_ray.plates.keys import SiteKey, Well

_COUNTED = re.compile(r"[Ww]?([0-9]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Rectangle:
    """Wells from one corner to another, as on the plate; one well where they are the same."""

    text: str
    first: Well
    last: Well

    def holds(self, key: SiteKey) -> bool:
        try:
            well = Well.parse(key.well)
        except NamingError:
            return False
        return self.first.row <= well.row <= self.last.row and self.first.column <= well.column <= self.last.column


@dataclass(frozen=True, slots=True)
class _Run:
    """Wells that are only counted, or sites that are numbers, from one to another."""

    text: str
    first: int
    last: int
    of_wells: bool

    def holds(self, key: SiteKey) -> bool:
        text = key.well if self.of_wells else key.site
        number = _COUNTED.fullmatch(text)
        return number is not None and (self.of_wells or text.isdigit()) and self.first <= int(number[1]) <= self.last


@dataclass(frozen=True, slots=True)
class _Name:
    """One site whose name is no number."""

    text: str

    def holds(self, key: SiteKey) -> bool:
        return key.site == self.text


@dataclass(frozen=True, slots=True)
class Selection:
    """The wells and the sites asked for, on every plate; nothing named is everything."""

    wells: tuple[_Rectangle | _Run, ...] = ()
    sites: tuple[_Run | _Name, ...] = ()

    @classmethod
    def parse(cls, wells: str | None, sites: str | None) -> Selection:
        """Read `A01,B02-D04` (a range is a rectangle of the plate; `W0003-W0012` counts) and `1,3-5`.

        Raises `UsageError` for what is neither a well nor a range of wells.
        """
        return cls(
            tuple(_wells(item) for item in _items("--wells", wells)),
            tuple(_sites(item) for item in _items("--sites", sites)),
        )

    def chosen(self, keys: Sequence[SiteKey], root_name: str) -> list[bool]:
        """Tell which sites are asked for.

        Raises
        ------
        UsageError
            Some wells or sites that are named match none, or they have none in common.
        """
        for flag, parts in (("--wells", self.wells), ("--sites", self.sites)):
            for part in parts:
                if not any(part.holds(key) for key in keys):
                    names = list(dict.fromkeys(key.well or "none" if flag == "--wells" else key.site for key in keys))
                    raise UsageError(
                        f"{flag} {part.text}: {root_name} has none of these; found {len(names)} "
                        f"{flag.removeprefix('--')}{examples(names)}. Correct it, or leave it out."
                    )
        chosen = [
            (not self.wells or any(part.holds(key) for part in self.wells))
            and (not self.sites or any(part.holds(key) for part in self.sites))
            for key in keys
        ]
        if not any(chosen) and keys:
            raise UsageError(
                f"--wells and --sites: no site of {root_name} is in both; expected sites that these wells have. Leave "
                "one of them out."
            )
        return chosen


def _items(flag: str, text: str | None) -> list[str]:
    if text is None:
        return []
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise UsageError(f"{flag} {text!r}: expected names with commas between them, found an empty one. Correct it.")
    return items


def _wells(item: str) -> _Rectangle | _Run:
    first, hyphen, last = item.partition("-")
    ends = [first.strip(), last.strip() if hyphen else first.strip()]
    counted = [_COUNTED.fullmatch(end) for end in ends]
    # W01 is a well in row W; W0001, and a bare number, counts wells.
    if all(match and (len(end) > len("W01") or end.isdigit()) for match, end in zip(counted, ends, strict=True)):
        low, high = sorted(int(match[1]) for match in counted if match)
        return _Run(item, low, high, of_wells=True)
    try:
        one, other = (Well.parse(end) for end in ends)
    except NamingError as error:
        raise UsageError(f"--wells {item}: {error} A range is two wells with a hyphen, such as B02-D04.") from error
    rows, columns = sorted((one.row, other.row)), sorted((one.column, other.column))
    return _Rectangle(item, Well(rows[0], columns[0]), Well(rows[1], columns[1]))


def _sites(item: str) -> _Run | _Name:
    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", item, re.ASCII)
    if match is None:
        return _Name(item)
    low, high = sorted((int(match[1]), int(match[2] or match[1])))
    return _Run(item, low, high, of_wells=False)
