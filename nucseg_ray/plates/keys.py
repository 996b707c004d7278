"""What a site is called: `Well` and `SiteKey`, the row id, the sort key and the output path in one."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache, total_ordering
from typing import Any

from nucseg_ray.errors import NamingError

ROWS, COLUMNS = 32, 48  # the 1536-well plate, the largest of the ANSI/SLAS 4-2004 layouts
LONGEST_NAME_BYTES = 200  # file systems allow 255; the rest is for a time point, a suffix and a temporary name

_WELL = re.compile(r"([A-Za-z]{1,2})([0-9]{1,2})")


@dataclass(frozen=True, order=True, slots=True)
class Well:
    """One well of a plate: `row` counts from 0 (row A), `column` from 1, as they are printed on plates.

    Raises `NamingError` outside the 32 x 48 wells of a 1536-well plate.

    >>> Well.parse("b3")
    Well(row=1, column=3)
    >>> Well.parse("b3").name
    'B03'
    """

    row: int
    column: int

    def __post_init__(self) -> None:
        """Refuse what is on no plate."""
        if not (0 <= self.row < ROWS and 1 <= self.column <= COLUMNS):
            raise NamingError(
                f"no plate has a well in row {self.row + 1}, column {self.column}: expected rows 1 to {ROWS} (A to AF) "
                f"and columns 1 to {COLUMNS}. Correct the well's name."
            )

    @classmethod
    def parse(cls, text: str) -> Well:
        """Read `A1`, `a01` or `AA03`; anything else raises `NamingError`."""
        match = _WELL.fullmatch(text)
        if match is None:
            raise NamingError(
                f"{text!r} is not a well: expected one or two letters and a column of one or two digits, such as "
                "A1, a01 or AA03. Correct the name."
            )
        row = 0
        for letter in match[1].upper():
            row = row * 26 + ord(letter) - ord("A") + 1
        return cls(row - 1, int(match[2]))

    @property
    def letters(self) -> str:
        """The row as printed: A to Z, then AA to AF."""
        beyond, last = divmod(self.row, 26)
        return ("A" if beyond else "") + chr(ord("A") + last)

    @property
    def name(self) -> str:
        """The one spelling that is used everywhere, such as `A01`."""
        return f"{self.letters}{self.column:02d}"


def counted_well(number: int) -> str:
    """Name a well of which only its number on the plate is known: where it lies depends on the plate's size.

    >>> counted_well(7)
    'W0007'
    """
    return f"W{number:04d}"


@total_ordering
@dataclass(frozen=True, slots=True)
class SiteKey:
    """One image to segment: plate, well, site within the well, and time point where the export names one.

    `well` is empty for a plain folder of images. All parts are strings, also those that look like numbers. Keys sort as
    a person would: wells by row and column (AA01 after Z48), sites and time points that are numbers as numbers, a site
    without a time point first. Every part can be a file name as it stands: one that could lead out of the output
    folder, be hidden in it or be too long for it raises `NamingError`.
    """

    plate: str
    well: str
    site: str
    timepoint: str | None = None

    def __post_init__(self) -> None:
        """Refuse parts that cannot be part of a path."""
        parts = {"plate": self.plate, "site": self.site}
        if self.well:
            parts["well"] = self.well
        if self.timepoint is not None:
            parts["time point"] = self.timepoint
        for what, text in parts.items():
            fault = _path_fault(text)
            if fault:
                raise NamingError(
                    f"the {what} {text!r} {fault} (plate {self.plate!r}, well {self.well!r}, site {self.site!r}): "
                    "expected a plain file name, since results are stored under it. Rename the file or folder."
                )

    def __lt__(self, other: SiteKey) -> bool:
        """Order by plate, well, site and time point."""
        return self.order() < other.order()

    def __str__(self) -> str:
        """Name the site for a person, as in the output tree."""
        return self.path("")

    @property
    def stem(self) -> str:
        """The file name without its suffix: `<site>` or `<site>_t<timepoint>`."""
        return self.site if self.timepoint is None else f"{self.site}_t{self.timepoint}"

    def path(self, suffix: str) -> str:
        """Where this site's file lies below a folder of results: `<plate>/<well>/<stem><suffix>`."""
        return "/".join(part for part in (self.plate, self.well, self.stem + suffix) if part)

    def order(self) -> tuple[Any, ...]:
        """Return what keys are sorted by; quicker than comparing them where there are many."""
        time = () if self.timepoint is None else _natural(self.timepoint)
        # Of two names of wells the longer one is in the later row: two letters come after one.
        return (self.plate, len(self.well), self.well, _natural(self.site), time)


@lru_cache(maxsize=4096)
def _natural(text: str) -> tuple[int, int, str]:
    """Order numbers by value and before other text, which stays as it is."""
    return (0, int(text), text) if text.isascii() and text.isdigit() else (1, 0, text)


@lru_cache(maxsize=4096)  # plates, wells and numbers of sites come again and again
def _path_fault(text: str) -> str | None:
    """Say what keeps `text` from being one level of a path; None where nothing does."""
    if not text:
        return "is empty"
    if text.startswith("."):
        return "begins with a dot"  # "..", and names that listings skip as hidden
    if "/" in text or "\\" in text:
        return "holds a slash"
    if not text.isprintable() and any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        return "holds a control character or is not UTF-8"
    if len(text.encode()) > LONGEST_NAME_BYTES:
        return f"is longer than {LONGEST_NAME_BYTES} bytes"
    return None
