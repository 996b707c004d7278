"""What a listing holds: the scheme that its names follow, its sites, channels and planes, in columns.

A file is a path and three small numbers, and a site one key: that many plates may come at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.errors import NamingError
from nucseg_ray.imaging.codecs import IMAGE_SUFFIXES
from nucseg_ray.plates.examples import examples
from nucseg_ray.plates.keys import SiteKey
from nucseg_ray.plates.naming import FileName, Scheme
from nucseg_ray.plates.schemes import IMAGES, SCHEMES
from nucseg_ray.plates.user_scheme import scheme_named

NO_PLANE = -1


@dataclass(frozen=True, slots=True)
class Understood:
    """The images of a listing that follow its scheme, and what their names say.

    `paths` is sorted and `sites` in the order of keys. `site_of`, `channel_of` and `plane_of` are `int32`, one a path:
    places in `sites` and `channels` (one spelling each), and the plane, `NO_PLANE` for a projection or an only plane.
    `unmatched` are images that do not follow the scheme, `previews` and `others` count what is no image to segment.
    """

    root_name: str
    scheme: Scheme
    paths: tuple[str, ...]
    sites: tuple[SiteKey, ...]
    channels: tuple[str, ...]
    site_of: NDArray[np.int32]
    channel_of: NDArray[np.int32]
    plane_of: NDArray[np.int32]
    unmatched: tuple[str, ...]
    previews: int
    others: int


def understand(paths: Iterable[str], *, root_name: str, scheme: str | None = None) -> Understood:
    """Read the names of a listing (paths below the input); its order does not matter.

    The scheme is found by looking at the names unless it is given. A plate is named by the folder that holds it, or is
    `root_name` where that is the input itself.

    Raises
    ------
    UsageError
        The scheme is not known, or the user's own pattern cannot be one.
    NamingError
        There is no image, the names follow none or two schemes, or two folders would become one plate.
    """
    listed = sorted(paths)
    images = [path for path in listed if path.lower().endswith(IMAGE_SUFFIXES)]
    if not images:
        raise NamingError(
            f"{root_name}: found no image among {len(listed)} files{examples(listed)}: expected names that end in "
            f"{', '.join(IMAGE_SUFFIXES)}. Point the input at the folder of a plate or of images."
        )
    found, strangers = _detected(images, root_name) if scheme is None else _read(images, [scheme_named(scheme)])
    if not found:
        asked = scheme_named(scheme or IMAGES.name)
        raise NamingError(
            f"{root_name}: none of {len(images)} images{examples(images)} is named as in the {asked.name!r} scheme: "
            f"expected names such as {asked.example}. Leave --scheme out, or choose another."
        )
    ((_, names),) = found.items()
    return names.understood(root_name, strangers=strangers, others=len(listed) - len(images))


def with_timepoints(understood: Understood, numbers: Sequence[int]) -> Understood:
    """Return each site as so many sites, one for each of the time points, of these numbers, inside its files."""
    times = np.tile(np.arange(len(numbers), dtype=np.int32), len(understood.paths))
    return replace(
        understood,
        paths=tuple(path for path in understood.paths for _ in numbers),
        sites=tuple(replace(key, timepoint=str(number)) for key in understood.sites for number in numbers),
        site_of=np.repeat(understood.site_of, len(numbers)) * np.int32(len(numbers)) + times,
        channel_of=np.repeat(understood.channel_of, len(numbers)),
        plane_of=np.repeat(understood.plane_of, len(numbers)),
    )


class _Names:
    """The names of one scheme, as they come."""

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme
        self.paths: list[str] = []
        self._sites: dict[tuple[str | None, str, str, str | None], int] = {}
        self._channels: dict[str, int] = {}
        self._site_of, self._channel_of, self._plane_of = array("i"), array("i"), array("i")
        self._first_of_folder: dict[str, tuple[str | None, str]] = {}

    def add(self, path: str, name: FileName) -> None:
        self.paths.append(path)
        site = (name.plate, name.well, name.site, name.timepoint)
        self._site_of.append(self._sites.setdefault(site, len(self._sites)))
        self._channel_of.append(self._channels.setdefault(name.channel, len(self._channels)))
        self._plane_of.append(NO_PLANE if name.z is None else name.z)
        self._first_of_folder.setdefault(path.rpartition("/")[0], (name.plate, path))

    def understood(self, root_name: str, *, strangers: list[str], others: int) -> Understood:
        """Give the columns, with sites in their order and one spelling of each channel."""
        self._check_plate_folders(root_name)
        keys = [FileName(*site, z=None, channel="").key(root_name) for site in self._sites]
        order = sorted(range(len(keys)), key=lambda number: keys[number].order())
        place = np.empty(len(keys), np.int32)
        place[order] = np.arange(len(keys), dtype=np.int32)
        spellings: dict[str, str] = {}
        for spelling in sorted(self._channels):
            spellings.setdefault(spelling.casefold(), spelling)
        numbers = {folded: number for number, folded in enumerate(spellings)}
        channel = np.array([numbers[spelling.casefold()] for spelling in self._channels], np.int32)
        unmatched = tuple(path for path in strangers if not self.scheme.is_ignored(path))
        return Understood(
            root_name=root_name,
            scheme=self.scheme,
            paths=tuple(self.paths),
            sites=tuple(keys[number] for number in order),
            channels=tuple(spellings.values()),
            site_of=place[np.frombuffer(self._site_of, np.int32)],
            channel_of=channel[np.frombuffer(self._channel_of, np.int32)],
            plane_of=np.frombuffer(self._plane_of, np.int32),
            unmatched=unmatched,
            previews=len(strangers) - len(unmatched),
            others=others,
        )

    def _check_plate_folders(self, root_name: str) -> None:
        """Refuse two folders of one name, whose plates would silently become one."""
        folders: dict[str, str] = {}
        for named, path in self._first_of_folder.values():
            folder = self.scheme.plate_folder(path)
            plate = root_name if named is None else named
            if folders.setdefault(plate, folder) != folder:
                raise NamingError(
                    f"plate {plate!r} is in two folders, {folders[plate] or '.'!r} and {folder!r} of {root_name}: "
                    "expected one folder a plate. Rename one, or run them one by one into outputs of their own."
                )


def _read(images: Iterable[str], schemes: Iterable[Scheme]) -> tuple[dict[str, _Names], list[str]]:
    """Read each name by the first scheme that knows it; returns the names by scheme, and those that none knows."""
    trying = list(schemes)
    found: dict[str, _Names] = {}
    strangers: list[str] = []
    for path in images:
        for scheme in trying:
            name = scheme.parse(path)
            if name is not None:
                found.setdefault(scheme.name, _Names(scheme)).add(path, name)
                if scheme is not trying[0] and not scheme.general:
                    trying.remove(scheme)  # the next name most likely follows it, too, and no other instrument's
                    trying.insert(0, scheme)
                break
        else:
            strangers.append(path)
    return found, strangers


def _refuse_alike(images: list[str], root_name: str) -> None:
    """Refuse names that are an instrument's, but none that are known: each channel would become a site."""
    for scheme in SCHEMES.values():
        pattern = scheme.alike
        alike = [path for path in images if pattern and pattern.fullmatch(path.rpartition("/")[2])]
        if 2 * len(alike) > len(images):
            raise NamingError(
                f"{root_name}: {len(alike)} images look like those of the {scheme.name!r} scheme"
                f"{examples(alike, 1)}, but none is as it writes them: expected names such as {scheme.example}. Give a "
                "pattern by --scheme regex:..., or --scheme images to take each image as a site of its own."
            )


def _detected(images: list[str], root_name: str) -> tuple[dict[str, _Names], list[str]]:
    """Read the names by the scheme that they follow; by `IMAGES` where they follow none."""
    schemes = [scheme for scheme in SCHEMES.values() if scheme is not IMAGES]
    found, strangers = _read(images, sorted(schemes, key=lambda scheme: scheme.general))
    if not found:
        _refuse_alike(images, root_name)
        return _read(images, [IMAGES])
    if len(found) > 1:
        told = [
            f"{len(found[name].paths)} images in {name!r}{examples(found[name].paths, 1)}"
            for name in SCHEMES
            if name in found
        ]
        raise NamingError(
            f"{root_name}: expected one naming scheme, but found {' and '.join(told)}. Choose by "
            f"--scheme {' or --scheme '.join(name for name in SCHEMES if name in found)}, which leaves the others out."
        )
    ((name, names),) = found.items()
    unknown = [path for path in strangers if not names.scheme.is_ignored(path)]
    if len(unknown) > len(names.paths):  # a plate has a few other images; here the match may be chance
        raise NamingError(
            f"{root_name}: {len(names.paths)} images are named as in the {name!r} scheme{examples(names.paths, 1)}, "
            f"but {len(unknown)} are not{examples(unknown, 1)}. Choose --scheme {name} to leave those out, or --scheme "
            "images to take each image as a site of its own."
        )
    return found, strangers
