"""What a batch run is to do: its input is looked at, the names are understood, sites chosen. Nothing is read yet."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import cast

import pyarrow.compute as pc

from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.errors import ChoiceError, InputError
from nucseg_ray.imaging.projection import PROJECTIONS, Projection
from nucseg_ray.pipelines.given_light import check_given
from nucseg_ray.pipelines.site_image import Reading, contents, look_of, opened, read_site
from nucseg_ray.plates.description import describe, describe_plan
from nucseg_ray.plates.examples import examples
from nucseg_ray.plates.planning import Choice, Plan, choose
from nucseg_ray.plates.understanding import Understood, understand
from nucseg_ray.storage.fetch import fetch_many
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.settling import Look, look_at

logger = logging.getLogger(__name__)


def plan_run(settings: PredictSettings) -> Plan:
    """Decide what a run is to segment, and say so in the log.

    Raises
    ------
    InputError
        The input cannot be listed, or its names contradict each other.
    UsageError
        The scheme, channel, plane, wells, sites or illumination have to be chosen otherwise.
    """
    root = Location(settings.input)
    look, understood = _looked(settings, root)
    planned = choose(understood, as_choice(settings), unsettled=look.unsettled)
    check_given(settings.illumination, planned)
    _tell(planned, root)
    _tell_incomplete(planned, look)
    return planned


def dry_run(settings: PredictSettings) -> Iterator[str]:
    """Give the lines that tell what a run would do, changing nothing; raises what the run would raise, after them.

    Of the pixels it reads those of the first site, since names cannot tell what is inside.
    """
    root = Location(settings.input)
    look, understood = _looked(settings, root)
    yield f"input: {root} ({len(look.paths)} files)"
    yield from describe(understood)
    planned = choose(understood, as_choice(settings), unsettled=look.unsettled)
    yield from describe_plan(planned, as_choice(settings))
    check_given(settings.illumination, planned)
    yield from _first_site(planned, reading_of(settings, planned))


def as_choice(settings: PredictSettings) -> Choice:
    """Give the settings that choose among the sites."""
    return Choice(
        channel=settings.channel,
        z=settings.z or "max",
        wells=settings.wells,
        sites=settings.sites,
        timepoints=settings.timepoints,
        limit=settings.limit,
    )


def reading_of(settings: PredictSettings, planned: Plan) -> Reading:
    """Say what is read of each site: channel and plane inside the files where their names tell of none."""
    z, channel = as_choice(settings).z, None if planned.channels else settings.channel
    return Reading(
        root=Location(settings.input),
        projection=cast("Projection", z) if z in PROJECTIONS else "max",
        plane=int(z) if z.isdecimal() and not planned.names_planes else None,
        channel=channel,
        unnamed_pages="Z" if settings.z is not None else "C" if channel is not None else None,
        times_inside=settings.timepoints is not None and not planned.names_times,
        pixel_size_um=settings.pixel_size_um,
        needs_pixel_size=settings.nucleus_diameter_um is not None,
    )


def _first_site(planned: Plan, reading: Reading) -> Iterator[str]:
    """Tell what the files of the first site hold; one that does not hold what is asked for raises ``ChoiceError``."""
    for row in planned.manifest.slice(0, 1).to_pylist():
        files = list(fetch_many(reading.root, row["planes"]))
        try:
            if isinstance(files[0], bytes):
                yield f"  its first file: {contents(opened(files[0], row['planes'][0], reading))}"
            image = read_site(row, files, reading)
        except ChoiceError:
            raise
        except InputError as error:  # of a run it would be a failed row
            yield f"  it cannot be read: {error}"
        else:
            size = "of a size that is not known" if image.pixel_size_um is None else f"of {image.pixel_size_um:g} um"
            yield f"  its image: {look_of(image.pixels.shape, str(image.pixels.dtype))}, pixels {size}"


def _looked(settings: PredictSettings, root: Location) -> tuple[Look, Understood]:
    look = look_at(root, settle_s=settings.settle_s)
    return look, understand(look.paths, root_name=root.name, scheme=settings.scheme)


def _tell(planned: Plan, root: Location) -> None:
    manifest = planned.manifest
    plates, wells = (len(pc.unique(manifest.column(name))) for name in ("plate", "well"))
    channel = f", channel {planned.channel}" if planned.channel else ""
    logger.info(
        "%s: names of scheme %s%s; %d sites, %d plates, %d wells",
        root,
        planned.scheme,
        channel,
        manifest.num_rows,
        plates,
        wells,
    )
    if planned.unmatched:
        count = len(planned.unmatched)
        logger.warning("%d image files do not follow the scheme and are left out%s", count, examples(planned.unmatched))


def _tell_incomplete(planned: Plan, look: Look) -> None:
    if planned.held_back:
        logger.warning(
            "%d sites are left for the next run%s: they have files that changed within %g s, or less than others of "
            "their plate; --settle-s 0 takes all as they are",
            len(planned.held_back),
            examples([str(key) for key in planned.held_back]),
            look.settle_s,
        )
    if planned.short:
        logger.warning(
            "%d sites have fewer planes than others of their plate%s, and are projected from these; if a scan or a "
            "copy has not ended, wait for it, or give --settle-s 60, which leaves such sites for the next run",
            len(planned.short),
            examples([str(key) for key in planned.short]),
        )
