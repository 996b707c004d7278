"""The light on each plate, found on some of its sites before a run begins (or given), and kept with its output.

By plate, since lamps, filters and objectives change between plates and drift, and within one all sites share the
camera's field. All of it is known before the output is changed: what is refused leaves no trace.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from nucseg_ray.config import ESTIMATE, NO_ILLUMINATION
from nucseg_ray.errors import InputError, NucsegError, OutputMismatchError, UsageError
from nucseg_ray.imaging.illumination import Illumination
from nucseg_ray.imaging.shading import LEAST_SITES, Shading, SiteLight, find_shading, site_light
from nucseg_ray.pipelines.diameters import looked_at
from nucseg_ray.pipelines.progress import duration
from nucseg_ray.pipelines.rows import unpack
from nucseg_ray.pipelines.session import MOST_RETRIES
from nucseg_ray.pipelines.site_image import Reading
from nucseg_ray.pipelines.sites import read_batch
from nucseg_ray.storage.illuminations import Illuminations, read_illumination
from nucseg_ray.storage.locations import Location

# Of no plate more sites than this are looked at; one task looks at so many.
MOST_SITES, SITES_TOGETHER = 96, 8
# Of a plate whose function is given, so many sites are tried, to see whether it has their size.
SITES_TRIED = 4
PLATES_TOLD = 3
SECONDS_BETWEEN_LINES = 10.0
# What one site told: its shape and light; its shape alone where it is dark; or why it cannot be read.
Look = SiteLight | tuple[int, ...] | str
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
    tables = looked_at(manifest, unknown, most=MOST_SITES)
    _check_enough(tables)
    found = {plate: _shading(plate, looks) for plate, looks in _looks(tables, reading)}
    _tell(found, seconds=time.monotonic() - began)
    return found


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
    is_folder = place.fs.isdir(place.path)
    one = None if is_folder else read_illumination(place)
    lights: dict[str, Illumination] = {}
    for plate in plates:
        light = one or read_illumination(Illuminations(place).file(plate, channel))
        if known is None or not known.holds(plate, channel):
            lights[plate] = light
            continue
        used = read_illumination(known.file(plate, channel))
        if (used.offset, used.function.shape) != (light.offset, light.function.shape) or not np.allclose(
            used.function, light.function, rtol=1e-5
        ):
            raise OutputMismatchError(
                f"{place}: is not the illumination function that sites of plate {plate} were corrected with before "
                f"({known.file(plate, channel)}); give that one, name another --output, or start afresh with "
                "--overwrite"
            )
    for plate, looks in _looks(looked_at(manifest, list(lights), most=SITES_TRIED), reading):
        for shape in {shape[:2] for shape in map(_shape, looks) if shape is not None}:
            if shape != lights[plate].function.shape:
                raise InputError(
                    f"{place}: expected an illumination function of {shape[0]} x {shape[1]} px like the images of "
                    f"plate {plate}, found {' x '.join(map(str, lights[plate].function.shape))}; give one for this "
                    "camera and binning"
                )
    return lights


def _check_enough(tables: Mapping[str, pa.Table]) -> None:
    few = {plate: table.num_rows for plate, table in tables.items() if table.num_rows < LEAST_SITES}
    if few:
        told = ", ".join(f"{plate} has {count}" for plate, count in list(few.items())[:PLATES_TOLD])
        raise UsageError(
            f"--illumination estimate: expected at least {LEAST_SITES} sites on each plate, found {len(few)} plates "
            f"with fewer ({told}); give the function of another plate from the same microscope and channel with "
            "--illumination PATH (OUT/illumination of its run), or none"
        )


def _shading(plate: str, looks: Sequence[Look]) -> Shading:
    """Judge one plate by its sites, in the order of the survey.

    Images of several sizes are refused: of a part of the camera's field one does not know which part it is.
    """
    shapes = [shape for shape in map(_shape, looks) if shape is not None]
    if not shapes:
        problem = next(look for look in looks if isinstance(look, str))
        raise InputError(
            f"--illumination estimate: plate {plate}: expected images, but none of {len(looks)} sites could be read, "
            f"such as: {problem}"
        )
    if any(len(shape) != 2 for shape in shapes):
        raise InputError(
            f"--illumination estimate: plate {plate}: expected grey images, found some in colour; choose one channel "
            "with --channel, or --illumination none"
        )
    if len(set(shapes)) > 1:
        told = ", ".join(f"{height} x {width}" for height, width in sorted(set(shapes)))
        raise InputError(
            f"--illumination estimate: plate {plate}: expected images of one size, found {told} px; segment them as "
            "plates of their own, or with --illumination none"
        )
    height, width = shapes[0]
    return find_shading([look for look in looks if isinstance(look, SiteLight)], shape=(height, width))


def _shape(look: Look) -> tuple[int, ...] | None:
    if isinstance(look, str):
        return None
    return look.shape if isinstance(look, SiteLight) else look


def look_at(rows: pa.Table, reading: Reading) -> list[Look]:
    """Read some rows of the manifest, and look at the light in each."""
    table = read_batch(rows, reading=reading)
    looks: list[Look] = []
    for row in range(table.num_rows):
        image = unpack("image", table, row)
        if image is None:
            looks.append(str(table.column("error")[row].as_py()))
        else:
            looks.append((site_light(image) if image.ndim == 2 else None) or image.shape)
    return looks


def _looks(tables: Mapping[str, pa.Table], reading: Reading) -> Iterator[tuple[str, list[Look]]]:
    """Look at the sites of plates in parallel tasks; yields plate by plate, sites in their order."""
    jobs = [
        (plate, table.slice(start, SITES_TOGETHER))
        for plate, table in tables.items()
        for start in range(0, table.num_rows, SITES_TOGETHER)
    ]
    spoken, done = time.monotonic(), 0
    waiting: dict[str, list[Look]] = {}
    for (plate, _), looks in zip(jobs, _in_order(look_at, [(rows, reading) for _, rows in jobs]), strict=True):
        waiting.setdefault(plate, []).extend(looks)
        if len(waiting[plate]) == tables[plate].num_rows:
            yield plate, waiting.pop(plate)
            done += 1
        if time.monotonic() - spoken >= SECONDS_BETWEEN_LINES:
            spoken = time.monotonic()
            logger.info("uneven light: %d of %d plates looked at", done, len(tables))


def _in_order(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """Call a function in tasks, some ahead of what is needed next; yields what they give, in order."""
    task = ray.remote(num_cpus=1, max_retries=MOST_RETRIES)(function)
    ahead = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
    under_way: list[Any] = []
    try:
        for number in range(len(arguments) + ahead):
            if number < len(arguments):
                under_way.append(task.remote(*arguments[number]))
            if number >= ahead and under_way:
                yield ray.get(under_way.pop(0))
    except ray.exceptions.RayError as error:
        raise NucsegError(
            f"the process that looks at the light of plates ended ({type(error).__name__}: {error}); look into Ray's "
            "logs, or begin with --illumination none"
        ) from error
    finally:
        for reference in under_way:
            ray.cancel(reference)


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
        logger.info("plate %s: %s", plate, told(light))
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


def told(light: Shading) -> str:
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
