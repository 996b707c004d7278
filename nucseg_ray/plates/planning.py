"""From what a listing holds to the manifest: which images a run is to segment, decided before any of them is read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nucseg_ray.errors import NamingError, UsageError
from nucseg_ray.plates.channel_files import ChannelFiles
from nucseg_ray.plates.examples import closest, examples
from nucseg_ray.plates.keys import SiteKey
from nucseg_ray.plates.manifest import short_stacks
from nucseg_ray.plates.selection import Selection
from nucseg_ray.plates.understanding import NO_PLANE, Understood, with_timepoints

STORED = "projection"


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a listing is to be segmented: as the flags of these names say; `limit` counts sites in their order.

    `z` is how planes are projected, the number of one, or `STORED`: the projection that the instrument made of them.
    """

    channel: str | None = None
    z: str = "max"
    wells: str | None = None
    sites: str | None = None
    timepoints: str | None = None
    limit: int | None = None

    @property
    def is_everything(self) -> bool:
        """Whether no site is left out on purpose."""
        return all(part is None for part in (self.wells, self.sites, self.timepoints, self.limit))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to segment, as tables of the schema `MANIFEST` in the order of keys.

    `manifest` holds the sites that were asked for, `whole` all that can be segmented (a plate is judged by all of them,
    whatever was asked for). `held_back` are sites left for the next run, since their files are still being written;
    `begun` the plates that have such sites, also where these were not asked for. `short` are those of the manifest that
    have fewer planes than others of their plate.

    `channels` is empty where the names tell of none: `channel`, if any, is then one inside each file. So is the plane
    where `names_planes` is False, and the time points, if any were asked for, where `names_times` is.
    """

    scheme: str
    channel: str
    channels: tuple[str, ...]
    names_planes: bool
    names_times: bool
    manifest: pa.Table
    whole: pa.Table
    held_back: tuple[SiteKey, ...]
    begun: frozenset[str]
    short: tuple[SiteKey, ...]
    unmatched: tuple[str, ...]


def choose(understood: Understood, choice: Choice, *, unsettled: Collection[str] | None = None) -> Plan:
    """Decide which sites are segmented, and from which files.

    Channels and planes that no name tells of are looked for inside the files, once these are read. Sites with files in
    `unsettled` are held back, and so are those that lack the channel or some planes; None: all is taken as it is.

    Raises
    ------
    UsageError
        A channel, plane, well or site has to be chosen otherwise.
    NamingError
        Two files claim to be the same plane of a site, or sites lack the channel.
    """
    names_planes = bool((understood.plane_of != NO_PLANE).any())
    plane = NO_PLANE if choice.z == STORED else int(choice.z) if choice.z.isdecimal() and names_planes else None
    number, channel = _channel(understood, choice.channel)
    selection = Selection.parse(choice.wells, choice.sites, choice.timepoints)
    names_times = any(key.timepoint is not None for key in understood.sites)
    if selection.timepoints and not names_times:
        understood = with_timepoints(understood, selection.numbered_timepoints())
    files = ChannelFiles.of(understood, number, called=channel)
    chosen = np.array(selection.chosen(understood.sites, understood.root_name), bool)
    coming = np.zeros(chosen.size, bool) if unsettled is None else files.still_coming(unsettled)
    files.check_unique(among=chosen & ~coming)
    lacking = files.counts == 0
    _check_complete(understood, chosen & lacking & ~coming, files.channel)
    usable = np.flatnonzero(~lacking & ~coming)
    rows_of = partial(files.manifest, plane=plane)
    manifest = whole = rows_of(usable[chosen[usable]][: choice.limit])
    if not choice.is_everything:  # what is not asked for may lack the plane
        whole = rows_of(usable[files.has_plane(usable, plane)])
    return Plan(
        scheme=understood.scheme.name,
        channel=channel,
        channels=tuple(name for name in understood.channels if name),
        names_planes=names_planes,
        names_times=names_times,
        manifest=manifest,
        whole=whole,
        held_back=tuple(understood.sites[site] for site in np.flatnonzero(coming & chosen)),
        begun=frozenset(understood.sites[site].plate for site in np.flatnonzero(coming)),
        short=short_stacks(manifest),
        unmatched=understood.unmatched,
    )


def _channel(understood: Understood, wanted: str | None) -> tuple[int, str]:
    """Return which channel of the names is segmented, and what it is called.

    Where names tell of none it is called what is asked for: the files may hold channels, which is known once these are
    read.
    """
    root_name, channels = understood.root_name, understood.channels
    if channels == ("",):
        return 0, wanted or ""
    named = [name for name in channels if name]
    if wanted is None:
        if len(channels) > 1:
            example = {number: understood.paths[row] for row, number in enumerate(understood.channel_of.tolist())}
            told = [name or f"one without a name ({example[number]})" for number, name in enumerate(channels)]
            raise UsageError(
                f"{root_name}: found the channels {', '.join(told)}; expected to be told which one holds the "
                "nuclei. Choose it by --channel."
            )
        return 0, channels[0]
    numbers = {name.casefold(): number for number, name in enumerate(channels) if name}
    if wanted.casefold() not in numbers:
        raise UsageError(
            f"--channel {wanted!r} is not in {root_name}{closest(wanted, named)}: expected one of {', '.join(named)}."
        )
    number = numbers[wanted.casefold()]
    return number, channels[number]


def _check_complete(understood: Understood, lacking: NDArray[np.bool_], channel: str) -> None:
    """Refuse a plate where a site lacks the channel: it would be missing from the results without a word."""
    sites = [str(understood.sites[site]) for site in np.flatnonzero(lacking)]
    if not sites:
        return
    pairs = np.unique(np.stack([understood.channel_of, understood.site_of]), axis=1)
    whole = np.bincount(pairs[0], minlength=len(understood.channels)) == len(understood.sites)
    names = sorted(name for name, has_all in zip(understood.channels, whole, strict=True) if has_all and name)
    remedy = f"choose a channel that every site has ({', '.join(names)})" if names else "give one plate at a time"
    other = understood.paths[int(np.flatnonzero(understood.site_of == np.flatnonzero(lacking)[0])[0])]
    raise NamingError(
        f"{understood.root_name}: {len(sites)} of {len(understood.sites)} sites have no file of channel {channel!r}"
        f"{examples(sites)}; the first of them has {other}. Expected one at every site. Restore the files, {remedy}, "
        "or leave such sites out with --settle-s 1."
    )
