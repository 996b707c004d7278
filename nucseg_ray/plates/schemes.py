"""How instruments name their images: each scheme is a pattern to read a path and a function to write one.

A new scheme is one more entry of `SCHEMES`. The patterns exclude one another, so that looking at a listing decides
which scheme it follows (a test proves it). They match the whole path below the input, case ignored, with these groups:

- `folder`: the folders above what the instrument itself makes; the last of them is the plate;
- `row`, `column`: the well, rows as letters or numbers; `site`, `timepoint`: numbers, kept without leading zeros;
- `z`: the plane, absent where the file is a projection or the only plane; `channel`: as written;
- `path`: instead of all of them, an image that is its own site.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache

from nucseg_ray.errors import NamingError, UsageError
from nucseg_ray.plates.keys import SiteKey, Well

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class FileName:
    """What a file's path says about its image.

    `plate` is None where no folder names it, `timepoint` where the export names none, `z` for a projection or an only
    plane; `well` and `channel` are empty where the scheme knows none. Site and time point carry no leading zeros.
    """

    plate: str | None
    well: str
    site: str
    timepoint: str | None
    z: int | None
    channel: str

    def key(self, root_name: str) -> SiteKey:
        """Return the site's key, with `root_name` as the plate where no folder below the input names one."""
        return SiteKey(root_name if self.plate is None else self.plate, self.well, self.site, self.timepoint)


@dataclass(frozen=True, slots=True)
class Scheme:
    """One naming scheme: `pattern` reads, `write` writes, `ignored` tells previews, `example` is for messages."""

    name: str
    example: str
    pattern: re.Pattern[str]
    write: Callable[[FileName], str]
    ignored: re.Pattern[str] | None = None

    def parse(self, relative_path: str) -> FileName | None:
        """Read a path below the input (with `/`); None where it does not follow this scheme."""
        match = self.pattern.fullmatch(relative_path)
        if match is None:
            return None
        part = match.groupdict()
        if part.get("path"):
            return FileName(None, "", part["path"].replace("/", "__"), None, None, "")
        well = _well_name(part["row"], part["column"])
        if well is None:
            return None
        folder = part["folder"].rstrip("/")
        return FileName(
            plate=folder.rpartition("/")[2] or None,
            well=well,
            site=_number(part.get("site")) or "1",
            timepoint=_number(part.get("timepoint")),
            z=int(part["z"]) if part.get("z") else None,
            channel=part["channel"] or "w1",  # ImageXpress leaves `_w1` out where there is one wavelength
        )

    def plate_folder(self, relative_path: str) -> str:
        """Return the folder that names the plate, from the input on; empty where the input itself is the plate."""
        match = self.pattern.fullmatch(relative_path)
        return "" if match is None else match.groupdict().get("folder", "").rstrip("/")

    def is_ignored(self, relative_path: str) -> bool:
        """Tell whether the instrument wrote this file for people to look at, such as a thumbnail."""
        return self.ignored is not None and self.ignored.fullmatch(relative_path) is not None

    def format(self, name: FileName) -> str:
        """Write the path that `parse` reads back as `name`.

        Where the scheme always writes a time point, plane or plate that `name` leaves None, it becomes the first one;
        `parse` the result to learn the full name. Raises `UsageError` for what the scheme cannot write.
        """
        remedy = f"Expected what fits into names such as {self.example}; choose other values or another scheme."
        try:
            path = self.write(name)
        except ValueError as error:
            raise UsageError(f"{name} cannot be written in the {self.name!r} scheme ({error}). {remedy}") from error
        back = self.parse(path)
        if back is None:
            raise UsageError(f"the {self.name!r} scheme would not know {path!r} again, written for {name}. {remedy}")
        for field in fields(FileName):
            given, found = getattr(name, field.name), getattr(back, field.name)
            if given is not None and given != found:
                raise UsageError(
                    f"the {self.name!r} scheme cannot hold {field.name}={given!r}: {path!r} would be read back with "
                    f"{found!r}. {remedy}"
                )
        return path


@lru_cache(maxsize=4096)
def _well_name(row: str, column: str) -> str | None:
    try:
        return (Well(int(row) - 1, int(column)) if row.isdigit() else Well.parse(row + column)).name
    except NamingError:
        return None


def _number(digits: str | None) -> str | None:
    return str(int(digits)) if digits else None


def _folder(name: FileName) -> str:
    return "" if name.plate is None else f"{name.plate}/"


def _write_bbbc(name: FileName) -> str:
    well = Well.parse(name.well)
    plates = ((8, 12), (16, 24), (32, 48))  # the number counts wells on the smallest plate that has this one
    columns = next(columns for rows, columns in plates if well.row < rows and well.column <= columns)
    number = well.row * columns + well.column
    return f"{_folder(name)}{name.channel}-{number:02d}-{well.letters}-{well.column:02d}.tif"


def _write_imagexpress(name: FileName) -> str:
    time = "" if name.timepoint is None else f"TimePoint_{name.timepoint}/"
    step = "" if name.z is None else f"ZStep_{name.z}/"
    return f"{_folder(name)}{time}{step}{name.plate or 'plate'}_{name.well}_s{name.site}_{name.channel}.tif"


def _write_cellvoyager(name: FileName) -> str:
    z = 1 if name.z is None else name.z
    numbers = f"T{int(name.timepoint or 1):04d}F{int(name.site):03d}L01A01Z{z:02d}{name.channel}"
    return f"{_folder(name)}{name.plate or 'plate'}_{name.well}_{numbers}.tif"


def _write_operetta(name: FileName) -> str:
    well = Well.parse(name.well)
    z = 1 if name.z is None else name.z
    position = f"r{well.row + 1:02d}c{well.column:02d}f{int(name.site):02d}p{z:02d}"
    return f"{_folder(name)}Images/{position}-{name.channel}sk{name.timepoint or 1}fk1fl1.tiff"


def _write_image(name: FileName) -> str:
    return f"{_folder(name)}{name.site}.png"


_FOLDER = r"(?P<folder>(?:[^/]+/)*?)"
_LETTER_WELL = r"(?P<row>[A-Z]{1,2})(?P<column>[0-9]{1,2})"
_GUID = r"(?:[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})?"
_SUFFIX = rf"(?:{'|'.join(re.escape(suffix) for suffix in IMAGE_SUFFIXES)})"


def _compiled(*pieces: str) -> re.Pattern[str]:
    return re.compile("".join(pieces) + _SUFFIX, re.ASCII | re.IGNORECASE)


IMAGES = Scheme("images", "any/name.png", _compiled(r"(?P<path>[\s\S]*[^/])"), _write_image)
"""The fallback for a plain folder: each image is its own site, named by its path with `__` for each slash."""

SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        # The Broad Bioimage Benchmark Collection's SBS plates (BBBC013, 014): channel, running number, row, column.
        Scheme(
            "bbbc",
            "Channel2-01-A-01.tif",
            _compiled(_FOLDER, r"(?P<channel>[^/]+)-[0-9]{2,4}-(?P<row>[A-Z]{1,2})-(?P<column>[0-9]{2})"),
            _write_bbbc,
        ),
        # MetaXpress: `_s1` and `_w1` are left out where there is one only, but not both here, or any name would match.
        # ZStep_0 is the projection that the instrument stores beside planes 1, 2, ...; a database export puts it beside
        # the ZStep folders instead, below <date>/<plate id>, and adds a GUID to every name. The first thing that can be
        # the well is the well: in `Plate_A01_s1_w1` a later one would be S01.
        Scheme(
            "imagexpress",
            "TimePoint_1/ZStep_1/Plate_B02_s1_w1.TIF",
            _compiled(
                _FOLDER,
                r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}/[0-9]+/)?(?:TimePoint_(?P<timepoint>[0-9]+)/)?",
                r"(?:ZStep_(?:0+|(?P<z>[0-9]+))/)?",
                rf"(?:[^/]*?_)??{_LETTER_WELL}(?=_[sw][0-9])(?:_s(?P<site>[0-9]+))?(?:_(?P<channel>w[0-9]+))?{_GUID}",
            ),
            _write_imagexpress,
            ignored=_compiled(rf"[\s\S]*_thumb{_GUID}"),
        ),
        # Yokogawa CellVoyager 7000/8000: time point, field, timeline, action, plane, channel.
        Scheme(
            "cellvoyager",
            "Plate_D08_T0001F002L01A01Z04C01.tif",
            _compiled(
                _FOLDER,
                rf"(?:[^/]*_)?{_LETTER_WELL}_T(?P<timepoint>[0-9]{{4,}})F(?P<site>[0-9]{{3,}})",
                r"L[0-9]{2,}A[0-9]{2,}Z(?P<z>[0-9]{2,})(?P<channel>C[0-9]{2,})",
            ),
            _write_cellvoyager,
        ),
        # Revvity Operetta and Opera Phenix (Harmony): row, column, field, plane, channel; sk is the time point.
        Scheme(
            "operetta",
            "Images/r03c03f03p01-ch5sk1fk1fl1.tiff",
            _compiled(
                _FOLDER,
                r"(?:Images/)?r(?P<row>[0-9]{2,})c(?P<column>[0-9]{2,})f(?P<site>[0-9]{2,})p(?P<z>[0-9]{2,})",
                r"-(?P<channel>ch[0-9]+)sk(?P<timepoint>[0-9]+)fk[0-9]+fl[0-9]+",
            ),
            _write_operetta,
        ),
        IMAGES,
    )
}
