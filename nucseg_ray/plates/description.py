"""What was understood of a listing, in lines that a person can check before a night's run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, product

import numpy as np

from nucseg_ray.errors import NamingError
from nucseg_ray.plates.examples import SHOWN, examples
from nucseg_ray.plates.keys import SiteKey, Well
from nucseg_ray.plates.planning import Choice, Plan
from nucseg_ray.plates.understanding import NO_PLANE, Understood

PLATES_SHOWN = 20
NAMES_SHOWN = 8


def describe(understood: Understood) -> list[str]:
    """Tell the scheme, each plate with what is missing on it, the channels, and the files that match nothing."""
    lines = [
        f"scheme: {understood.scheme.name} ({understood.scheme.instrument}); {len(understood.paths)} images, such as "
        f"{understood.paths[0]}"
    ]
    plates = list(_plates(understood))
    lines.append(f"plates: {len(plates)}; sites: {len(understood.sites)}")
    for plate in plates[:PLATES_SHOWN]:
        lines += plate.lines()
    if len(plates) > PLATES_SHOWN:
        more = [plate.name for plate in plates[PLATES_SHOWN:]]
        lines.append(f"  and {len(more)} more: {_few(more)}")
    lines.append(_channels(understood))
    lines += _left_out(understood)
    return lines


def describe_plan(plan: Plan, choice: Choice) -> list[str]:
    """Tell what a run would do."""
    lines = []
    if plan.held_back:
        held = [str(key) for key in plan.held_back]
        lines.append(f"left for the next run: {len(held)} sites{examples(held)}; see --settle-s")
    rows = plan.manifest
    flags = {
        "wells": choice.wells,
        "sites": choice.sites,
        "timepoints": choice.timepoints,
        "limit": choice.limit,
    }
    asked = [f"--{name} {value}" for name, value in flags.items() if value is not None]
    of_them = f" ({', '.join(asked)}; the listing has {plan.whole.num_rows})" if asked else ""
    channel = f" in channel {plan.channel}" if plan.channel else ""
    lines.append(f"to segment: {rows.num_rows} sites{channel}{of_them}")
    for name, row in (("first", 0), ("last", rows.num_rows - 1)):
        if rows.num_rows > (name == "last"):
            plate, well, site, time = (rows.column(part)[row].as_py() for part in rows.column_names[:4])
            planes = rows.column("planes")[row].as_py()
            projected = f", the {choice.z} of {len(planes)} planes" if len(planes) > 1 else ""
            lines.append(f"  {name}: {SiteKey(plate, well, site, time)} from {planes[0]}{projected}")
    return lines


@dataclass(frozen=True, slots=True)
class _Plate:
    """What the names say of one plate: its sites in order, and how many files and which planes each of them has."""

    name: str
    sites: Sequence[SiteKey]
    files: np.ndarray
    planes: Sequence[int]

    def lines(self) -> Iterator[str]:
        wells = list(dict.fromkeys(key.well for key in self.sites))
        sites, times = _sorted(key.site for key in self.sites), _sorted(key.timepoint or "" for key in self.sites)
        parts = [f"wells: {_few(wells)}"] if wells != [""] else []
        parts.append(f"sites: {_few(sites)}")
        parts += [f"time points: {_few(times)}"] if times != [""] else []
        numbers = [str(plane) for plane in self.planes if plane != NO_PLANE]
        projections = " and projections" if NO_PLANE in self.planes and numbers else ""
        parts += [f"z: {_few(numbers)}{projections}"] if numbers else []
        yield f"  {self.name}: {'; '.join(parts)}"
        yield from self._missing_wells(wells)
        yield from self._missing_sites(wells, sites, times)
        short = [str(key) for key, count in zip(self.sites, self.files, strict=True) if count < self.files.max()]
        if short:
            yield f"    fewer files than others: {len(short)} sites{examples(short)}"

    def _missing_wells(self, names: Sequence[str]) -> Iterator[str]:
        try:
            wells = {Well.parse(name) for name in names}
        except NamingError:
            return  # wells that are only counted, or none: nothing says which there should be
        rows, columns = ([getattr(well, part) for well in wells] for part in ("row", "column"))
        grid = product(range(min(rows), max(rows) + 1), range(min(columns), max(columns) + 1))
        missing = [well.name for spot in grid if (well := Well(*spot)) not in wells]
        if missing:
            corners = f"{Well(min(rows), min(columns)).name} and {Well(max(rows), max(columns)).name}"
            yield f"    no images of these wells between {corners}: {_few(missing)}"

    def _missing_sites(self, wells: Sequence[str], sites: Sequence[str], times: Sequence[str]) -> Iterator[str]:
        count = len(wells) * len(sites) * len(times) - len(self.sites)
        if not count or not wells[0]:
            return
        there = {(key.well, key.site, key.timepoint or "") for key in self.sites}
        missing = (spot for spot in product(wells, sites, times) if spot not in there)
        told = [SiteKey(self.name, well, site, time or None).path("") for well, site, time in islice(missing, SHOWN)]
        yield f"    missing against the other wells: {count} sites{examples(told)}"


def _plates(understood: Understood) -> Iterator[_Plate]:
    files = np.bincount(understood.site_of, minlength=len(understood.sites))
    pairs = np.unique(np.stack([understood.site_of, understood.plane_of]), axis=1)
    start = 0
    for name, keys in groupby(understood.sites, key=lambda key: key.plate):
        sites = tuple(keys)
        stop = start + len(sites)
        planes = np.unique(pairs[1, (pairs[0] >= start) & (pairs[0] < stop)])
        yield _Plate(name, sites, files[start:stop], planes.tolist())
        start = stop


def _channels(understood: Understood) -> str:
    if understood.channels == ("",):
        return "channels: the names tell of none"
    pairs = np.unique(np.stack([understood.channel_of, understood.site_of]), axis=1)
    counts = np.bincount(pairs[0], minlength=len(understood.channels)).tolist()
    told = []
    for name, count in zip(understood.channels, counts, strict=True):
        lacking = f" (at {count} of {len(understood.sites)} sites)" if count < len(understood.sites) else ""
        told.append((name or "one without a name") + lacking)
    return f"channels: {', '.join(told)}"


def _left_out(understood: Understood) -> list[str]:
    lines = []
    if understood.unmatched:
        count = len(understood.unmatched)
        lines.append(f"left out: {count} images that do not follow the scheme{examples(understood.unmatched)}")
    if understood.previews or understood.others:
        lines.append(f"no images to segment: {understood.previews} previews, {understood.others} other files")
    return lines


def _sorted(names: Iterator[str]) -> list[str]:
    """Return names of sites or time points once, sorted as in keys."""
    return sorted(set(names), key=lambda name: SiteKey("x", "", name).order() if name else ())


def _few(names: Sequence[str]) -> str:
    """Name all of a few; of many the first and the last."""
    if len(names) <= NAMES_SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:3])} ... {names[-1]} ({len(names)})"
