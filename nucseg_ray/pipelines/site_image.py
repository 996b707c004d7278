"""The files of one site to its image: the channel and planes that were asked for, projected, and the size of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nucseg_ray.errors import ChoiceError, DecodeError, InputError
from nucseg_ray.imaging.codecs import Pixels, Planes, decode_planes
from nucseg_ray.imaging.projection import Projection, project
from nucseg_ray.storage.illuminations import Illuminations
from nucseg_ray.storage.locations import Location


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read of every site, from the files below ``root``.

    ``channel`` (a name, or a number from 1) and ``plane`` (from 1) are looked for inside the files; None: the file must
    hold one channel, and all its planes are projected. ``unnamed_pages`` says what pages are of which a file says
    nothing: planes, channels, or (None) refused. ``times_inside``: the time point of a site is the number, from 1, of
    one inside its file; else a file must hold one. ``pixel_size_um`` stands for what the files say of themselves; where
    ``needs_pixel_size``, a site is refused of which neither says it. With ``lights``, what is projected is corrected
    for the light of its plate.
    """

    root: Location
    projection: Projection = "max"
    plane: int | None = None
    channel: str | None = None
    unnamed_pages: Literal["Z", "C"] | None = None
    times_inside: bool = False
    pixel_size_um: float | None = None
    needs_pixel_size: bool = False
    lights: Illuminations | None = None


@dataclass(frozen=True, slots=True)
class SiteImage:
    """The image of one site, and the side of its pixels where that is known."""

    pixels: Pixels
    pixel_size_um: float | None


def read_site(row: Mapping[str, Any], files: Iterable[bytes | InputError], reading: Reading) -> SiteImage:
    """Make one image of the files of a site, a row of the manifest: those of its planes, the lowest first.

    Files are taken, and planes decoded and projected, one after another; the light is evened out last.

    Raises
    ------
    InputError
        A file could not be fetched.
    DecodeError
        A file is no image, or planes differ in size or type, from one another or from the illumination function.
    ChoiceError
        A file does not hold what was asked for, or leaves a choice open.
    """
    names: Sequence[str] = row["planes"]
    sizes: list[float | None] = []
    pixels = project(_planes(row, files, reading, sizes), reading.projection)
    size = reading.pixel_size_um or sizes[0]
    if size is None and reading.needs_pixel_size:
        raise ChoiceError(
            f"{names[0]}: says nothing of the size of its pixels, which a diameter of nuclei in micrometres needs; "
            "give it by --pixel-size-um, or the diameter in pixels"
        )
    if reading.lights is not None:
        pixels = _evenly_lit(pixels, row, reading.lights)
    return SiteImage(pixels, size)


def _evenly_lit(pixels: Pixels, row: Mapping[str, Any], lights: Illuminations) -> Pixels:
    light = lights.of(row["plate"], row["channel"])
    try:
        return light.correct(pixels)
    except DecodeError as error:
        raise DecodeError(f"{row['planes'][0]}: {error}") from error


def _planes(
    row: Mapping[str, Any], files: Iterable[bytes | InputError], reading: Reading, sizes: list[float | None]
) -> Iterator[Pixels]:
    """Give all planes of a site, checked to be of one kind; adds the size of pixels of each file to ``sizes``."""
    first: Pixels | None = None
    names: Sequence[str] = row["planes"]
    for file, name in zip(files, names, strict=True):
        if isinstance(file, InputError):
            raise file
        planes = opened(file, name, reading)
        sizes.append(planes.pixel_size_um)
        channel = chosen_channel(planes, reading.channel)
        time = _chosen_time(planes, row["timepoint"] if reading.times_inside else None)
        for z in _chosen_z(planes, reading.plane):
            plane = planes.plane(channel, z, time)
            first = plane if first is None else first
            if (plane.shape, plane.dtype) != (first.shape, first.dtype):
                raise DecodeError(
                    f"{name}: expected a plane of {first.shape} {first.dtype} like {names[0]}, found "
                    f"{plane.shape} {plane.dtype}; choose one plane by --z"
                )
            yield plane


def opened(file: bytes, name: str, reading: Reading) -> Planes:
    """Open a file, its pages taken as the reading says; raises like ``decode_planes``."""
    return decode_planes(file, name=name, unnamed_pages=reading.unnamed_pages)


def chosen_channel(planes: Planes, wanted: str | None) -> int:
    """Give the number, from 0, of the channel that was asked for, by its name (case ignored) or its number from 1.

    Raises
    ------
    ChoiceError
        There is no such channel, or there are several and none was asked for; names those that there are.
    """
    if wanted is None:
        if planes.n_channels > 1:
            raise ChoiceError(
                f"{planes.name}: expected one channel, found {_listed(planes.channels)}; choose one by --channel, or "
                "save each as a file of its own"
            )
        return 0
    names = [name.casefold() for name in planes.channels]
    if wanted.casefold() in filter(None, names):
        return names.index(wanted.casefold())
    if wanted.isdecimal() and 1 <= int(wanted) <= planes.n_channels:
        return int(wanted) - 1
    remedy = "leave --channel out" if planes.n_channels == 1 else "choose one of these by --channel"
    raise ChoiceError(f"{planes.name}: expected a channel {wanted!r}, found {_listed(planes.channels)}; {remedy}")


def contents(planes: Planes) -> str:
    """Say in words which channels and planes a file holds."""
    several = planes.n_channels > 1
    channels = _listed(planes.channels) if several else f"one channel {planes.channels[0]}".rstrip()
    times = f", at {planes.n_times} time points" if planes.n_times > 1 else ""
    n_z = "one plane" if planes.n_z == 1 else f"{planes.n_z} planes"
    return f"{channels}, {n_z}{' of each' if several else ''}{times}"


def look_of(shape: Sequence[int], dtype: str) -> str:
    """Say in words what size and type an image has."""
    height, width, *colour = shape
    return f"{height} x {width} px {dtype}{' in colour' if colour else ''}"


def _chosen_z(planes: Planes, wanted: int | None) -> range:
    if wanted is None:
        return range(planes.n_z)
    if not 1 <= wanted <= planes.n_z:
        found = "one plane" if planes.n_z == 1 else f"planes 1 to {planes.n_z}"
        raise ChoiceError(f"{planes.name}: --z {wanted}: expected such a plane, found {found}; choose another")
    return range(wanted - 1, wanted)


def _chosen_time(planes: Planes, wanted: str | None) -> int:
    if wanted is None:
        if planes.n_times > 1:
            raise ChoiceError(
                f"{planes.name}: expected one time point, found {planes.n_times}; --timepoints 1-{planes.n_times} "
                "takes each as a site of its own"
            )
        return 0
    if not 1 <= int(wanted) <= planes.n_times:
        raise ChoiceError(f"{planes.name}: --timepoints {wanted}: expected such a time point, found {planes.n_times}")
    return int(wanted) - 1


def _listed(channels: Sequence[str]) -> str:
    if len(channels) == 1:
        return f"only channel {channels[0]!r}" if channels[0] else "only one, without a name"
    told = ", ".join(f"{number} {name}".rstrip() for number, name in enumerate(channels, start=1))
    return f"{len(channels)} channels ({told})"
