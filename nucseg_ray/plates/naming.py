"""What a naming scheme is: patterns that read the path of an image, and a function that writes one.

A scheme has one or more **forms**, tried in order. A form is a pattern for the file's name and one for the folders that
the instrument itself makes, both with case ignored. Their groups:

- `row`, `column`: the well, rows as letters or numbers; `number`: a well that is only counted; `well`: any of these;
- `site`, `time`: numbers lose their leading zeros, other text is kept; `label`, `position`: the site where there is
  no `site`; `z`: the plane, absent where the file is a projection or the only plane; `channel`: as written;
- `folder`, in the pattern for folders: those above what the instrument makes; the last of them is the plate;
- `plate`: the plate where the file's name has it; `path`: instead of all of them, an image that is its own site.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache

from nucseg_ray.errors import NamingError, UsageError
from nucseg_ray.imaging.codecs import IMAGE_SUFFIXES
from nucseg_ray.plates.keys import SiteKey, Well, counted_well

SUFFIX = rf"(?:{'|'.join(re.escape(suffix) for suffix in IMAGE_SUFFIXES)})"
_SITE_GROUPS = ("site", "label", "position")


@dataclass(frozen=True, slots=True)
class FileName:
    """What a file's path says about its image.

    `plate` is None where nothing names it, `timepoint` where the export names none, `z` for a projection or an only
    plane; `well` and `channel` are empty where the scheme knows none. Numbers carry no leading zeros.
    """

    plate: str | None
    well: str
    site: str
    timepoint: str | None
    z: int | None
    channel: str

    def key(self, root_name: str) -> SiteKey:
        """Return the site's key, with `root_name` as the plate where nothing below the input names one."""
        return SiteKey(root_name if self.plate is None else self.plate, self.well, self.site, self.timepoint)


@dataclass(frozen=True, slots=True)
class Form:
    """One way of naming files: `file` matches the name (with `whole_path`: the path), `folders` what lies above it.

    `folders` is matched against the path of the file's folder, with a slash behind each level. `only_channel` is what
    the channel is called where the name leaves it out.
    """

    example: str
    file: re.Pattern[str]
    folders: re.Pattern[str]
    only_channel: str = ""
    whole_path: bool = False

    def read(self, folder: str, file: str) -> dict[str, str | None] | None:
        """Return the groups of both patterns; None where either does not match."""
        match = self.file.fullmatch(folder + file if self.whole_path else file)
        if match is None:
            return None
        above = _folder_groups(self.folders, folder)
        return None if above is None else {**above, **match.groupdict()}


@dataclass(frozen=True, slots=True)
class Scheme:
    """One naming scheme, for `instrument`.

    `write` is the way back (None: it can only be read), `ignored` tells previews by their file name, `channels` are
    names that the instrument might give to four channels, empty where names tell of none. A `general` scheme is so
    wide that it is thought of only where no other one matches. `counts_wells`: a well is a number, not row and column.
    `alike` tells file names that are surely the instrument's, whether or not a form reads them.
    """

    name: str
    instrument: str
    forms: tuple[Form, ...]
    write: Callable[[FileName], str] | None = None
    ignored: re.Pattern[str] | None = None
    channels: tuple[str, ...] = ()
    general: bool = False
    counts_wells: bool = False
    alike: re.Pattern[str] | None = None

    @property
    def example(self) -> str:
        """A path as this scheme has it."""
        return self.forms[0].example

    def parse(self, relative_path: str) -> FileName | None:
        """Read a path below the input (with `/`); None where it does not follow this scheme."""
        found = self._read(relative_path)
        return None if found is None else found[0]

    def plate_folder(self, relative_path: str) -> str:
        """Return the folder that names the plate, from the input on; empty where the input itself is the plate."""
        found = self._read(relative_path)
        return "" if found is None else found[1].get("plate") or (found[1].get("folder") or "").rstrip("/")

    def _read(self, relative_path: str) -> tuple[FileName, Mapping[str, str | None]] | None:
        """Read a path by the first form that knows it; gives the groups, too."""
        folder, slash, file = relative_path.rpartition("/")
        for form in self.forms:
            parts = form.read(folder + slash, file)
            if parts is not None and (name := _file_name(parts, form, relative_path)) is not None:
                return name, parts
        return None

    def is_ignored(self, relative_path: str) -> bool:
        """Tell whether the instrument wrote this file for people to look at, such as a thumbnail."""
        return self.ignored is not None and self.ignored.fullmatch(relative_path.rpartition("/")[2]) is not None

    def format(self, name: FileName) -> str:
        """Write the path that `parse` reads back as `name`.

        Where the scheme always writes a time point, plane or plate that `name` leaves None, it becomes the first one;
        `parse` the result to learn the full name. Raises `UsageError` for what the scheme cannot write.
        """
        remedy = f"Expected what fits into names such as {self.example}; choose other values or another scheme."
        if self.write is None:
            raise UsageError(f"the {self.name!r} scheme can only be read. {remedy}")
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


@lru_cache(maxsize=4096)  # a listing has many files a folder, and comes folder by folder
def _folder_groups(folders: re.Pattern[str], folder: str) -> Mapping[str, str | None] | None:
    match = folders.fullmatch(folder)
    return None if match is None else match.groupdict()


def _file_name(parts: Mapping[str, str | None], form: Form, path: str) -> FileName | None:
    """Make sense of the groups; None where they name no well of any plate."""
    folder = (parts.get("folder") or "").rstrip("/")
    image = parts.get("path")
    if image:
        return FileName(None, "", image.replace("/", "__"), None, None, "")
    well = _well(parts)
    if well is None:
        return None
    plane = parts.get("z")
    if plane and not (plane.isascii() and plane.isdigit()):
        raise NamingError(f"{path}: expected the group 'z' to hold digits, found {plane!r}. Narrow it to [0-9]+.")
    return FileName(
        plate=parts.get("plate") or folder.rpartition("/")[2] or None,
        well=well,
        site=next((_plain(text) for group in _SITE_GROUPS if (text := parts.get(group))), "1"),
        timepoint=_plain(text) if (text := parts.get("time")) else None,
        z=int(plane) if plane else None,
        channel=parts.get("channel") or form.only_channel,
    )


def _well(parts: Mapping[str, str | None]) -> str | None:
    """Return the well's name, empty where the names tell of none; None where what they say is no well."""
    row, column, number = parts.get("row"), parts.get("column"), parts.get("number")
    if row and column:
        return _well_name(row, column) or (counted_well(int(number)) if number else None)
    if number:
        return counted_well(int(number))
    text = parts.get("well")
    return "" if not text else _well_called(text)


@lru_cache(maxsize=4096)
def _well_name(row: str, column: str) -> str | None:
    try:
        return (Well(int(row) - 1, int(column)) if row.isdigit() else Well.parse(row + column)).name
    except NamingError:
        return None


@lru_cache(maxsize=4096)
def _well_called(text: str) -> str | None:
    counted = re.fullmatch(r"[Ww]?0*([0-9]{1,4})", text, re.ASCII)
    if counted and (text.isdigit() or len(text) > len("W01")):  # W01 is in row W of a large plate, W001 the first well
        return counted_well(int(counted[1]))
    try:
        return Well.parse(text).name
    except NamingError:
        return None


def _plain(text: str) -> str:
    return str(int(text)) if text.isascii() and text.isdigit() else text
