"""The files of one channel, by site and plane: what a site is read from, and what it lacks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nucseg_ray.errors import NamingError, UsageError
from nucseg_ray.plates.manifest import MANIFEST
from nucseg_ray.plates.understanding import NO_PLANE, Understood


@dataclass(frozen=True, slots=True)
class ChannelFiles:
    """The files of one channel, in the order of sites and planes.

    `rows` are places in `understood.paths`; `sites` and `planes` say whose each is; `starts` and `counts`, one for each
    site of the listing, where its files begin and how many they are.
    """

    understood: Understood
    channel: str
    rows: NDArray[np.int64]
    sites: NDArray[np.int32]
    planes: NDArray[np.int32]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, understood: Understood, number: int, *, called: str) -> ChannelFiles:
        """Sort the files of the channel with this number among those of the names."""
        rows = np.flatnonzero(understood.channel_of == number)
        rows = rows[np.lexsort((understood.plane_of[rows], understood.site_of[rows]))]
        sites = understood.site_of[rows]
        counts = np.bincount(sites, minlength=len(understood.sites))
        planes, starts = understood.plane_of[rows], np.cumsum(counts) - counts
        return cls(understood, called, rows, sites, planes, starts, counts)

    def check_unique(self, *, among: NDArray[np.bool_]) -> None:
        """Refuse two files for one plane of one of some sites."""
        same = (self.sites[1:] == self.sites[:-1]) & (self.planes[1:] == self.planes[:-1]) & among[self.sites[1:]]
        double = np.flatnonzero(same)
        if not double.size:
            return
        at = int(double[0])
        one, other = (self.understood.paths[row] for row in self.rows[at : at + 2])
        number = self.planes[at]
        plane = "its projection or only plane" if number == NO_PLANE else f"plane {number}"
        of_channel = f", channel {self.channel!r}" if self.channel else ""
        more = f" ({double.size} such pairs)" if double.size > 1 else ""
        raise NamingError(
            f"site {self.understood.sites[self.sites[at]]}{of_channel}: {one} and {other} both claim to be "
            f"{plane}{more}; expected one file. Move one away, or give the folder that holds only one of them."
        )

    def has_plane(self, sites: NDArray[np.int64], plane: int | None) -> NDArray[np.bool_]:
        """Tell which of some sites have a plane (`NO_PLANE`: a projection); all do where none is asked for."""
        if plane is None:
            return np.ones(sites.size, bool)
        return np.isin(sites, self.sites[self.planes == plane])

    def still_coming(self, unsettled: Collection[str]) -> NDArray[np.bool_]:
        """Tell which sites are still being written: those with unsettled files, and those with less than others.

        An instrument, or a copy, writes one channel and one plane after another, and may pause: a site without this
        channel, or with fewer of its planes than others of its plate, may not be there as a whole.
        """
        plates = np.unique([key.plate for key in self.understood.sites], return_inverse=True)[1]
        most = np.zeros(plates.max() + 1, np.int64)
        np.maximum.at(most, plates, self.counts)
        held: NDArray[np.bool_] = self.counts < most[plates]
        held[self.understood.site_of[[path in unsettled for path in self.understood.paths]]] = True
        return held

    def manifest(self, sites: NDArray[np.int64], *, plane: int | None) -> pa.Table:
        """Make the rows of some sites: from one plane, `NO_PLANE` for the projection that the instrument stored.

        None: from their planes; a stored projection stands for these where there are none. Raises `UsageError` for a
        site without the plane.
        """
        wanted = np.zeros(self.counts.size, bool)
        wanted[sites] = True
        taken = wanted[self.sites] & self._taken(sites, plane)
        per_site = np.bincount(self.sites[taken], minlength=wanted.size)[sites]
        offsets = np.concatenate([[0], np.cumsum(per_site)]).astype(np.int32)
        keys = [self.understood.sites[site] for site in sites]
        try:
            planes = pa.array([self.understood.paths[row] for row in self.rows[taken]], pa.string())
            columns = {
                "plate": [key.plate for key in keys],
                "well": [key.well for key in keys],
                "site": [key.site for key in keys],
                "timepoint": [key.timepoint for key in keys],
                "channel": [self.channel] * len(keys),
                "planes": pa.ListArray.from_arrays(pa.array(offsets), planes),
            }
            return pa.table(columns, schema=MANIFEST)
        except UnicodeEncodeError as error:
            raise NamingError(f"the path {error.object!r} is not UTF-8, so it cannot be stored. Rename it.") from error

    def _taken(self, sites: NDArray[np.int64], plane: int | None) -> NDArray[np.bool_]:
        """Tell which files their sites are read from."""
        if plane is not None:
            self._check_plane(sites, plane)
            return self.planes == plane
        is_projection = self.planes == NO_PLANE
        projections = np.bincount(self.sites[is_projection], minlength=self.counts.size)
        return ~is_projection | (projections == self.counts)[self.sites]

    def _check_plane(self, sites: NDArray[np.int64], plane: int) -> None:
        without = sites[~self.has_plane(sites, plane)]
        if not without.size:
            return
        site = int(without[0])
        own = self.planes[self.starts[site] : self.starts[site] + self.counts[site]]
        found = ", ".join(str(number) for number in own if number != NO_PLANE) or "one image without a number"
        asked = "projection" if plane == NO_PLANE else plane
        raise UsageError(
            f"--z {asked}: site {self.understood.sites[site]} has no such plane; found {found}. Choose another, or "
            "--z max."
        )
