"""From what a listing holds to the manifest: which images a run is to segment, decided before any of them is read."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nucseg_ray.errors import NamingError, UsageError
from nucseg_ray.plates.channel_files import ChannelFiles
from nucseg_ray.plates.examples import closest, examples
from nucseg_ray.plates.keys import SiteKey
from nucseg_ray.plates.schemes import SCHEMES
from nucseg_ray.plates.selection import Selection
from nucseg_ray.plates.understanding import Understood, understand

PROJECTIONS = ("max", "mean", "best-focus")  # what may become of several planes; the reading does it


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a listing is to be segmented: as the flags of these names say; `limit` counts sites in their order."""

    channel: str | None = None
    z: str = "max"
    wells: str | None = None
    sites: str | None = None
    limit: int | None = None

    @property
    def is_everything(self) -> bool:
        """Whether no site is left out on purpose."""
        return self.wells is None and self.sites is None and self.limit is None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to segment, as tables of the schema `MANIFEST` in the order of keys.

    `manifest` holds the sites that were asked for, `whole` all that can be segmented (a plate is judged by all of them,
    whatever was asked for). `held_back` are sites left for the next run, since their files are still being written.
    """

    scheme: str
    channel: str
    channels: tuple[str, ...]
    manifest: pa.Table
    whole: pa.Table
    held_back: tuple[SiteKey, ...]
    unmatched: tuple[str, ...]


def plan(
    listing: Iterable[tuple[str, int]],
    *,
    root_name: str,
    channel: str | None = None,
    scheme: str | None = None,
    z: str = "max",
) -> Plan:
    """Decide which images of a listing of (path below the input, bytes) are segmented, and from which files.

    Raises like `understand` and `choose`.
    """
    understood = understand((path for path, _ in listing), root_name=root_name, scheme=scheme)
    return choose(understood, Choice(channel=channel, z=z))


def choose(understood: Understood, choice: Choice, *, unsettled: Collection[str] = ()) -> Plan:
    """Decide which sites are segmented, and from which files; sites with files in `unsettled` are held back.

    `z` is a projection of the planes (for max, the instrument's own where there is one) or the number of one plane.
    While a plate has unsettled files, its sites that lack the channel or some planes are held back, too.

    Raises
    ------
    UsageError
        A channel, plane, well or site has to be chosen otherwise.
    NamingError
        Two files claim to be the same plane of a site, or sites lack the channel.
    """
    plane = _plane_number(choice.z)
    files = ChannelFiles.of(understood, _channel_number(understood, choice.channel))
    selection = Selection.parse(choice.wells, choice.sites)
    chosen = np.array(selection.chosen(understood.sites, understood.root_name), bool)
    coming = files.still_coming(unsettled)
    files.check_unique(among=chosen & ~coming)
    lacking = files.counts == 0
    _check_complete(understood, chosen & lacking & ~coming, files.channel)
    usable = np.flatnonzero(~lacking & ~coming)
    own_projection = choice.z == "max"
    manifest = files.manifest(usable[chosen[usable]][: choice.limit], plane=plane, own_projection=own_projection)
    whole = manifest
    if not choice.is_everything:  # what is not asked for may lack the plane
        able = usable[files.has_plane(usable, plane)]
        whole = files.manifest(able, plane=plane, own_projection=own_projection)
    return Plan(
        scheme=understood.scheme.name,
        channel=files.channel,
        channels=tuple(name for name in understood.channels if name),
        manifest=manifest,
        whole=whole,
        held_back=tuple(understood.sites[site] for site in np.flatnonzero(coming & chosen)),
        unmatched=understood.unmatched,
    )


def _plane_number(z: str) -> int | None:
    if z in PROJECTIONS:
        return None
    if not (z.isascii() and z.isdigit()):
        raise UsageError(f"--z {z!r}: expected {', '.join(PROJECTIONS)} or the number of a plane, such as 3.")
    return int(z)


def _channel_number(understood: Understood, channel: str | None) -> int:
    """Return which of the channels is segmented."""
    root_name, channels = understood.root_name, understood.channels
    if channels == ("",):
        if channel is None:
            return 0
        raise UsageError(
            f"--channel {channel!r}: the names under {root_name} tell of no channels; expected names of a scheme, "
            f"such as {SCHEMES['bbbc'].example}. Leave --channel out to segment each image."
        )
    named = [name for name in channels if name]
    if channel is None:
        if len(channels) > 1:
            example = {number: understood.paths[row] for row, number in enumerate(understood.channel_of.tolist())}
            told = [name or f"one without a name ({example[number]})" for number, name in enumerate(channels)]
            raise UsageError(
                f"{root_name}: found the channels {', '.join(told)}; expected to be told which one holds the "
                "nuclei. Choose it by --channel."
            )
        return 0
    folded = {name.casefold(): number for number, name in enumerate(channels) if name}
    if channel.casefold() not in folded:
        raise UsageError(
            f"--channel {channel!r} is not in {root_name}{closest(channel, named)}: expected one of {', '.join(named)}."
        )
    return folded[channel.casefold()]


def _check_complete(understood: Understood, lacking: NDArray[np.bool_], channel: str) -> None:
    """Refuse a plate where a site lacks the channel: it would be missing from the results without a word."""
    sites = [str(understood.sites[site]) for site in np.flatnonzero(lacking)]
    if not sites:
        return
    pairs = np.unique(np.stack([understood.channel_of, understood.site_of]), axis=1)
    whole = np.bincount(pairs[0], minlength=len(understood.channels)) == len(understood.sites)
    names = sorted(name for name, has_all in zip(understood.channels, whole, strict=True) if has_all and name)
    remedy = f"choose a channel that every site has ({', '.join(names)})" if names else "give one plate at a time"
    raise NamingError(
        f"{understood.root_name}: {len(sites)} of {len(understood.sites)} sites have no file of channel {channel!r}"
        f"{examples(sites)}; expected one at every site. Restore the files, or {remedy}."
    )
