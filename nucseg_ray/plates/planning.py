"""From a listing to the manifest: which images a run is to segment, decided once, before any of them is read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from nucseg_ray.errors import NamingError, UsageError
from nucseg_ray.plates.keys import SiteKey
from nucseg_ray.plates.schemes import IMAGE_SUFFIXES, IMAGES, SCHEMES, FileName, Scheme

MANIFEST = pa.schema(
    [
        pa.field("plate", pa.string(), nullable=False),
        pa.field("well", pa.string(), nullable=False),
        pa.field("site", pa.string(), nullable=False),
        pa.field("timepoint", pa.string()),
        pa.field("channel", pa.string(), nullable=False),
        pa.field("planes", pa.list_(pa.string()), nullable=False),
    ]
)
"""One row an image to segment: its key, the channel, and the files to project by their maximum, lowest plane first."""

_SHOWN = 3  # examples in a message


@dataclass(frozen=True, slots=True)
class Plan:
    """What a listing holds: `manifest` (schema `MANIFEST`) sorted by key, every channel seen, images left out.

    `channels` is empty where names tell of none: the channel of the manifest, if any, is then one inside each file. So
    is the plane where `names_planes` is False.
    """

    scheme: str
    manifest: pa.Table
    channels: tuple[str, ...]
    unmatched: tuple[str, ...]
    names_planes: bool = False


def plan(
    listing: Iterable[tuple[str, int]],
    *,
    root_name: str,
    channel: str | None = None,
    scheme: str | None = None,
    z: str = "max",
) -> Plan:
    """Decide which images of a listing of (path below the input, bytes) are segmented, and from which files.

    The scheme is found by looking at the names unless it is given. A plate is named by the folder that holds it, or is
    `root_name` where that is the input itself. `z` is "max", the maximum over the planes (the instrument's own
    projection where there is one), "mean" or "best-focus" of the planes (the projection where there are none), or the
    number of one plane, which is looked for inside the files where no name has one. The order of the listing does not
    matter.

    Raises `UsageError` for a scheme, channel or plane that has to be chosen otherwise, and `NamingError` where the
    names contradict each other, follow two schemes, or leave a site without the channel.
    """
    _check_z(z)
    paths = sorted(path for path, _ in listing)
    images = [path for path in paths if path.lower().endswith(IMAGE_SUFFIXES)]
    if not images:
        raise NamingError(
            f"{root_name}: found no image among {len(paths)} files{_examples(paths)}: expected names that end in "
            f"{', '.join(IMAGE_SUFFIXES)}. Point the input at the folder of a plate or of images."
        )
    found = _detect(images, root_name) if scheme is None else _scheme_named(scheme)
    images = [path for path in images if not found.is_ignored(path)]
    names = {path: name for path in images if (name := found.parse(path)) is not None}
    if not names:
        raise NamingError(
            f"{root_name}: none of {len(images)} images{_examples(images)} is named as in the {found.name!r} scheme: "
            f"expected names such as {found.example}. Leave --scheme out, or choose another."
        )
    _check_plate_folders(names, found, root_name)
    channels, chosen = _choose_channel(names.values(), channel, root_name)
    names_planes = any(name.z is not None for name in names.values())
    sites = _files_of_sites(names, chosen, root_name)
    _check_complete(sites, chosen, names.values(), root_name)
    return Plan(
        scheme=found.name,
        manifest=_manifest(
            {key: _planes(key, sites[key], z if names_planes else "max") for key in sorted(sites)},
            chosen if channels else channel or "",
        ),
        channels=channels,
        unmatched=tuple(path for path in images if path not in names),
        names_planes=names_planes,
    )


def extend(manifest: pa.Table, new: pa.Table) -> pa.Table:
    """Return the rows of `manifest` in their order, then the rows of `new` whose keys it does not have.

    Rows that `new` lacks stay, so that a rerun can never lose a site. Raises `NamingError` where a site is now to be
    read from other files, since what was done before would no longer be what the manifest says.
    """
    known = {key: (channel, planes) for key, channel, planes in _rows(manifest)}
    added = []
    for index, (key, channel, planes) in enumerate(_rows(new)):
        if key not in known:
            added.append(index)
        elif known[key] != (channel, planes):
            old_channel, old_planes = known[key]
            raise NamingError(
                f"site {SiteKey(*key)}: the manifest of the earlier run has channel {old_channel!r} from "
                f"{', '.join(old_planes)}, but now it is channel {channel!r} from {', '.join(planes)}. Restore the "
                "files and settings of the earlier run, or choose a new output."
            )
    return pa.concat_tables([manifest, new.take(pa.array(added, pa.int64()))])


def _check_z(z: str) -> None:
    if z not in ("max", "mean", "best-focus") and not (z.isascii() and z.isdigit()):
        raise UsageError(f"--z {z!r}: expected 'max', 'mean', 'best-focus' or the number of a plane, such as 3.")


def _scheme_named(name: str) -> Scheme:
    if name not in SCHEMES:
        raise UsageError(
            f"--scheme {name!r} is not known{_closest(name, SCHEMES)}: expected one of {', '.join(SCHEMES)}."
        )
    return SCHEMES[name]


def _detect(images: list[str], root_name: str) -> Scheme:
    """Return the scheme that the names follow; `IMAGES` where they follow none."""
    matches = {
        scheme.name: matched
        for scheme in SCHEMES.values()
        if scheme is not IMAGES and (matched := [path for path in images if scheme.parse(path) is not None])
    }
    if not matches:
        return IMAGES
    if len(matches) > 1:
        raise NamingError(
            f"{root_name}: expected one naming scheme, but found "
            + " and ".join(f"{len(paths)} images in {name!r}{_examples(paths, 1)}" for name, paths in matches.items())
            + f". Choose by --scheme {' or --scheme '.join(matches)}, which leaves the others out."
        )
    (scheme,) = (SCHEMES[name] for name in matches)
    matched = matches[scheme.name]
    strangers = sorted(set(images).difference(matched))
    strangers = [path for path in strangers if not scheme.is_ignored(path)]
    if len(strangers) > len(matched):  # a plate has a few other images; here the match may be chance
        raise NamingError(
            f"{root_name}: {len(matched)} images are named as in the {scheme.name!r} scheme{_examples(matched, 1)}, "
            f"but {len(strangers)} are not{_examples(strangers, 1)}. Choose --scheme {scheme.name} to leave those out, "
            "or --scheme images to take each image as a site of its own."
        )
    return scheme


def _check_plate_folders(names: Mapping[str, FileName], scheme: Scheme, root_name: str) -> None:
    """Refuse two folders of one name, whose plates would silently become one."""
    of_directory: dict[str, str] = {}
    for path in names:
        of_directory.setdefault(path.rpartition("/")[0], path)
    folders: dict[str, str] = {}
    for path in of_directory.values():
        folder = scheme.plate_folder(path)
        plate = names[path].plate
        if plate is None:
            plate = root_name
        if folders.setdefault(plate, folder) != folder:
            raise NamingError(
                f"plate {plate!r} is in two folders, {folders[plate] or '.'!r} and {folder!r} of {root_name}: expected "
                "one folder a plate. Rename one, or run them one by one into outputs of their own."
            )


def _choose_channel(names: Iterable[FileName], channel: str | None, root_name: str) -> tuple[tuple[str, ...], str]:
    """Return every channel (one spelling each) and the one to segment; ((), "") where names tell of no channels."""
    spellings: dict[str, str] = {}
    for name in sorted({name.channel for name in names}):
        spellings.setdefault(name.casefold(), name)
    channels = tuple(spellings.values())
    if channels == ("",):  # the files may hold channels; they are looked for when these are read
        return (), ""
    if channel is None:
        if len(channels) > 1:
            raise UsageError(
                f"{root_name}: found the channels {', '.join(channels)}; expected to be told which one holds the "
                "nuclei. Choose it by --channel."
            )
        return channels, channels[0]
    if channel.casefold() not in spellings:
        raise UsageError(
            f"--channel {channel!r} is not in {root_name}{_closest(channel, channels)}: expected one of "
            f"{', '.join(channels)}."
        )
    return channels, spellings[channel.casefold()]


def _files_of_sites(
    names: Mapping[str, FileName], channel: str, root_name: str
) -> dict[SiteKey, dict[int | None, str]]:
    """Return for each site, in whatever channel it was seen, the files of `channel` by plane."""
    sites: dict[tuple[str | None, str, str, str | None], dict[int | None, str]] = {}
    keys: dict[tuple[str | None, str, str, str | None], SiteKey] = {}
    wanted = channel.casefold()
    for path, name in names.items():
        site = (name.plate, name.well, name.site, name.timepoint)
        files = sites.get(site)
        if files is None:
            keys[site] = name.key(root_name)  # checked once a site, not once a file
            files = sites[site] = {}
        if name.channel.casefold() != wanted:
            continue
        other = files.setdefault(name.z, path)
        if other != path:
            plane = "its projection or only plane" if name.z is None else f"plane {name.z}"
            of_channel = f", channel {channel!r}" if channel else ""
            raise NamingError(
                f"site {keys[site]}{of_channel}: {other} and {path} both claim to be {plane}; expected one file. Move "
                "one away, or give the folder that holds only one of them."
            )
    return {keys[site]: files for site, files in sites.items()}


def _check_complete(
    sites: Mapping[SiteKey, Mapping[int | None, str]], channel: str, names: Iterable[FileName], root_name: str
) -> None:
    """Refuse a plate where a site lacks the channel: it would be missing from the results without a word."""
    lacking = sorted(key for key, files in sites.items() if not files)
    if not lacking:
        return
    of_channel: dict[str, set[SiteKey]] = {}
    for name in names:
        of_channel.setdefault(name.channel, set()).add(name.key(root_name))
    whole = sorted(other for other, keys in of_channel.items() if len(keys) == len(sites))
    remedy = f"choose a channel that every site has ({', '.join(whole)})" if whole else "give one plate at a time"
    raise NamingError(
        f"{root_name}: {len(lacking)} of {len(sites)} sites have no file of channel {channel!r}"
        f"{_examples([str(key) for key in lacking])}; expected one at every site. Restore the files, or {remedy}."
    )


def _planes(key: SiteKey, files: Mapping[int | None, str], z: str) -> list[str]:
    numbers = sorted(number for number in files if number is not None)
    if z in ("mean", "best-focus"):
        return [files[number] for number in numbers or (None,)]
    if z == "max":
        return [files[None]] if None in files else [files[number] for number in numbers]
    plane = int(z)
    if plane not in files:
        found = ", ".join(map(str, numbers)) or "one image without a number"
        raise UsageError(f"--z {plane}: site {key} has no such plane; found {found}. Choose another, or --z max.")
    return [files[plane]]


def _manifest(planes: Mapping[SiteKey, list[str]], channel: str) -> pa.Table:
    columns = {
        "plate": [key.plate for key in planes],
        "well": [key.well for key in planes],
        "site": [key.site for key in planes],
        "timepoint": [key.timepoint for key in planes],
        "channel": [channel] * len(planes),
        "planes": list(planes.values()),
    }
    try:
        return pa.table(columns, schema=MANIFEST)
    except UnicodeEncodeError as error:
        raise NamingError(f"the path {error.object!r} is not UTF-8, so it cannot be stored. Rename it.") from error


def _rows(manifest: pa.Table) -> Iterable[tuple[tuple[str, str, str, str | None], str, list[str]]]:
    plate, well, site, timepoint, channel, planes = (manifest[name].to_pylist() for name in MANIFEST.names)
    return zip(zip(plate, well, site, timepoint, strict=True), channel, planes, strict=True)


def _examples(paths: list[str], count: int = _SHOWN) -> str:
    if not paths:
        return ""
    return f" (such as {', '.join(paths[:count])})"


def _closest(name: str, choices: Iterable[str]) -> str:
    by_case = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(name.casefold(), by_case, n=1)
    return f" (did you mean {by_case[close[0]]!r}?)" if close else ""
