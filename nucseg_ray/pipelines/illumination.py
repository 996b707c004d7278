"""The light on each plate, found on some of its sites before a run begins (or given), and kept with its output.

By plate, since lamps, filters and objectives change between plates and drift, and within one all sites share the
camera's field. All of it is known before the output is changed: what is refused leaves no trace.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nucseg_ray.config_predict import ESTIMATE, NO_ILLUMINATION
from nucseg_ray.errors import InputError, OutputMismatchError, UsageError
from nucseg_ray.imaging.illumination import Illumination
from nucseg_ray.imaging.shading import LEAST_SITES, Shading, find_shading
from nucseg_ray.pipelines.diameters import survey_rows
from nucseg_ray.pipelines.light_survey import Seen, seen_of
from nucseg_ray.pipelines.progress import duration
from nucseg_ray.pipelines.site_image import Reading, look_of
from nucseg_ray.plates.keys import SiteKey
from nucseg_ray.plates.planning import Plan
from nucseg_ray.storage.illuminations import Illuminations, read_illumination
from nucseg_ray.storage.locations import Location

# Of no plate more sites than this are looked at.
MOST_SITES = 96
# Of a plate whose function is given, so many sites are tried, to see whether it has their size.
SITES_TRIED = 4
PLATES_TOLD = 3
Lights = Mapping[str, Shading | Illumination]
logger = logging.getLogger(__name__)


def find_lights(
    choice: str, pending: pa.Table, manifest: pa.Table, *, reading: Reading, known: Illuminations | None
) -> Lights:
    """Give the light of each plate with pending rows, of which there is no record; nothing is written.

    ``choice`` is what ``--illumination`` says. The sites are chosen by the whole manifest. ``known`` is the record of
    earlier runs, None for one that is not to count.

    Raises
    ------
    UsageError
        A plate has too few sites to estimate from.
    InputError
        The sites of a plate are of several sizes or in colour, or none can be read, or a given function does not fit.
    OutputMismatchError
        Another function than the one given was used for a plate before.
    NucsegError
        The processes that look at sites die.
    """
    if choice == NO_ILLUMINATION or not pending.num_rows:
        return {}
    plates = pc.unique(pending.column("plate")).to_pylist()
    channel = manifest.column("channel")[0].as_py()
    if choice != ESTIMATE:
        return _given(Location(choice), plates, manifest, reading=reading, known=known)
    unknown = [plate for plate in plates if known is None or not known.holds(plate, channel)]
    if not unknown:
        return {}
    began = time.monotonic()
    tables = survey_rows(manifest, unknown, most=MOST_SITES)
    _check_enough(tables)
    found = {plate: _shading(plate, seen) for plate, seen in seen_of(tables, reading)}
    _tell(found, seconds=time.monotonic() - began)
    return found


def without_begun_plates(planned: Plan, choice: str, *, known: Illuminations | None) -> Plan:
    """Leave plates for the next run whose light is to be estimated while they are still being written.

    Else the wells that are first would tell the light of the plate for good, or be too few to tell it. A plate whose
    light was found before goes on.
    """
    if choice != ESTIMATE:
        return planned
    begun = {plate for plate in planned.begun if known is None or not known.holds(plate, planned.channel)}
    if not begun:
        return planned
    left = pc.is_in(planned.manifest.column("plate"), value_set=pa.array(sorted(begun)))
    rows = planned.manifest.filter(left).select(["plate", "well", "site", "timepoint"]).to_pylist()
    logger.warning(
        "%d plates are left for the next run, such as %s: their light is to be estimated, and some of their sites are "
        "still being written",
        len(begun),
        min(begun),
    )
    return replace(
        planned,
        manifest=planned.manifest.filter(pc.invert(left)),
        held_back=(*planned.held_back, *(SiteKey(**row) for row in rows)),
    )


def record_lights(lights: Lights, channel: str, *, into: Illuminations) -> None:
    """Write what :func:`find_lights` gave; a rerun goes on with the same."""
    for plate, light in lights.items():
        if isinstance(light, Illumination):
            into.write(plate, channel, light, note={"from": "given"})
        else:
            into.write(plate, channel, light.illumination(), note=_note(light))


def _given(
    place: Location, plates: Sequence[str], manifest: pa.Table, *, reading: Reading, known: Illuminations | None
) -> Lights:
    """Read the functions that a file or a folder holds, and try them on some sites of each plate."""
    channel = manifest.column("channel")[0].as_py()
    one = None if place.fs.isdir(place.path) else read_illumination(place)
    lights: dict[str, Illumination] = {}
    for plate in plates:
        light = one or read_illumination(Illuminations(place).file(plate, channel))
        if known is not None and known.holds(plate, channel):
            _check_same(light, plate, given=place, used=known.file(plate, channel))
        else:
            lights[plate] = light
    for plate, seen in seen_of(survey_rows(manifest, list(lights), most=SITES_TRIED), reading):
        _check_size(lights[plate], plate, seen, given=place)
    return lights


def _check_same(light: Illumination, plate: str, *, given: Location, used: Location) -> None:
    """Refuse another function than the one that some sites of the plate were corrected with."""
    before = read_illumination(used)
    is_alike = (before.offset, before.function.shape) == (light.offset, light.function.shape)
    if not (is_alike and np.allclose(before.function, light.function, rtol=1e-5)):
        raise OutputMismatchError(
            f"--illumination {given}: is not the function that sites of plate {plate} were corrected with before "
            f"({used}); give that one, name another --output, or start afresh with --overwrite"
        )


def _check_size(light: Illumination, plate: str, seen: Sequence[Seen], *, given: Location) -> None:
    expected = light.function.shape
    for shape in {site.shape[:2] for site in seen if site.shape is not None}:
        if shape != expected:
            raise InputError(
                f"--illumination {given}: expected a function of {shape[0]} x {shape[1]} px like the images of plate "
                f"{plate}, found {expected[0]} x {expected[1]}; give one for this camera and binning"
            )


def _check_enough(tables: Mapping[str, pa.Table]) -> None:
    few = {plate: table.num_rows for plate, table in tables.items() if table.num_rows < LEAST_SITES}
    if few:
        told = ", ".join(f"{plate} has {count}" for plate, count in list(few.items())[:PLATES_TOLD])
        raise UsageError(
            f"--illumination estimate: expected at least {LEAST_SITES} sites on each plate, found {len(few)} plates "
            f"with fewer ({told}); give the function of another plate from the same microscope and channel with "
            "--illumination OUT/illumination/plate=<that plate>/<channel>.tif of its run, or none"
        )


def _shading(plate: str, seen: Sequence[Seen]) -> Shading:
    """Judge one plate by its sites, in the order of the survey.

    Images of several sizes are refused: of a part of the camera's field one does not know which part it is; so are
    those of several types, whose grey levels are not the same.
    """
    files = {(site.shape, site.dtype): site.file for site in reversed(seen) if site.shape is not None}
    if not files:
        raise InputError(
            f"--illumination estimate: plate {plate}: expected images, but none of {len(seen)} sites could be read, "
            f"such as: {seen[0].problem}"
        )
    looks = [f"{look_of(shape, dtype)} ({file})" for (shape, dtype), file in files.items()]
    if len(looks) > 1:
        raise InputError(
            f"--illumination estimate: plate {plate}: expected images of one size and type, found "
            f"{', '.join(looks[:PLATES_TOLD])}; segment them as plates of their own, or with --illumination none"
        )
    ((shape, _),) = files
    if len(shape) != 2:
        raise InputError(
            f"--illumination estimate: plate {plate}: expected grey images, found {looks[0]}; choose one channel with "
            "--channel, or --illumination none"
        )
    height, width = shape
    return find_shading([site.light for site in seen if site.light is not None], shape=(height, width))


def _note(light: Shading) -> dict[str, Any]:
    return {
        "from": f"{light.sites} sites",
        "verdict": light.verdict,
        "standard_error": round(light.error, 4),
        "nuclei": light.nuclei,
        "share": None if light.share is None else round(light.share, 3),
    }


def _tell(found: Mapping[str, Shading], *, seconds: float) -> None:
    for plate, light in list(found.items())[:PLATES_TOLD]:
        logger.info("plate %s: %s", plate, describe_shading(light))
    if len(found) > PLATES_TOLD:
        verdicts = [light.verdict for light in found.values()]
        counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in sorted(set(verdicts)))
        logger.info("and so on: the light of %d plates found in %s: %s", len(found), duration(seconds), counts)
    doubted = [plate for plate, light in found.items() if light.verdict in ("unknown", "unconfirmed")]
    if doubted:
        logger.warning(
            "%d plates are left as they are, such as %s: what their background shows cannot be told to be their light; "
            "--illumination PATH takes a function from elsewhere",
            len(doubted),
            ", ".join(doubted[:PLATES_TOLD]),
        )


def describe_shading(light: Shading) -> str:
    """Say in words what was found on a plate."""
    if light.verdict == "unknown":
        return f"its light is not known, only {light.sites} sites show any; its images stay as they are"
    if light.verdict == "even":
        return f"no uneven light that would hold for more than single sites ({light.sites} sites); its images stay"
    if light.verdict == "unconfirmed":
        return (
            f"the background of {light.sites} sites is uneven, but {light.nuclei} nuclei are not (share "
            f"{light.share:.2f}): stray light; its images stay as they are"
        )
    function = light.illumination().function
    offset = f", above an offset of {light.offset:.0f} grey levels" if light.offset else ""
    return (
        f"its light lies between {function.min():.2f} and {function.max():.2f} of the mean{offset} ({light.sites} "
        f"sites, standard error {100 * light.error:.1f} %), and is corrected"
    )
