"""Which sites of a plate a run is to segment: what `--wells`, `--sites` and `--timepoints` say."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
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

    def holds(self, name: str) -> bool:
        try:
            well = Well.parse(name)
        except NamingError:
            return False
        return self.first.row <= well.row <= self.last.row and self.first.column <= well.column <= self.last.column


@dataclass(frozen=True, slots=True)
class _Run:
    """Wells that are only counted, or sites or time points that are numbers, from one to another."""

    text: str
    first: int
    last: int
    of_wells: bool

    def holds(self, name: str) -> bool:
        number = _COUNTED.fullmatch(name)
        return number is not None and (self.of_wells or name.isdigit()) and self.first <= int(number[1]) <= self.last


@dataclass(frozen=True, slots=True)
class _Name:
    """One site or time point whose name is no number."""

    text: str

    def holds(self, name: str) -> bool:
        return name == self.text


@dataclass(frozen=True, slots=True)
class Selection:
    """The wells, sites and time points asked for, on every plate; nothing named is everything."""

    wells: tuple[_Rectangle | _Run, ...] = ()
    sites: tuple[_Run | _Name, ...] = ()
    timepoints: tuple[_Run | _Name, ...] = ()

    @classmethod
    def parse(cls, wells: str | None, sites: str | None, timepoints: str | None = None) -> Selection:
        """Read `A01,B02-D04` (a range is a rectangle of the plate; `W0003-W0012` counts) and `1,3-5`.

        Raises `UsageError` for what is neither a well nor a range of wells.
        """
        return cls(
            tuple(_wells(item) for item in _items("--wells", wells)),
            tuple(_sites(item) for item in _items("--sites", sites)),
            tuple(_sites(item) for item in _items("--timepoints", timepoints)),
        )

    def numbered_timepoints(self) -> list[int]:
        """Give the numbers, from 1, of the time points asked for, where these are inside files.

        Raises
        ------
        UsageError
            One is no number, or 0.
        """
        numbers: set[int] = set()
        for part in self.timepoints:
            if not isinstance(part, _Run) or part.first < 1:
                raise UsageError(
                    f"--timepoints {part.text}: the file names tell of no time points, so these are numbers, from 1, "
                    "of those inside the files: expected some such as 1,3-5. Correct it, or leave it out."
                )
            numbers.update(range(part.first, part.last + 1))
        return sorted(numbers)

    def chosen(self, keys: Sequence[SiteKey], root_name: str) -> list[bool]:
        """Tell which sites are asked for.

        Raises
        ------
        UsageError
            Some of what is named matches none, or they have none in common.
        """
        wells = _found("--wells", self.wells, {key.well: None for key in keys}, root_name)
        sites = _found("--sites", self.sites, {key.site: None for key in keys}, root_name)
        times = _found("--timepoints", self.timepoints, {key.timepoint or "": None for key in keys}, root_name)
        chosen = [key.well in wells and key.site in sites and (key.timepoint or "") in times for key in keys]
        if not any(chosen) and keys:
            raise UsageError(
                f"--wells, --sites and --timepoints: no site of {root_name} is in all that are given; expected sites "
                "that these wells have. Leave one of them out."
            )
        return chosen


def _found(flag: str, parts: Sequence[_Rectangle | _Run | _Name], names: Collection[str], root_name: str) -> set[str]:
    """Give those of the names that are asked for; each is looked at once, however many sites it has."""
    if not parts:
        return set(names)
    found = {part.text: {name for name in names if part.holds(name)} for part in parts}
    for text, held in found.items():
        if not held:
            raise UsageError(
                f"{flag} {text}: {root_name} has none of these; found {len(names)} {flag.removeprefix('--')}"
                f"{examples([name or 'none' for name in names])}. Correct it, or leave it out."
            )
    return set().union(*found.values())


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
