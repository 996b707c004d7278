"""The diameter of the nuclei on each plate, found on some of its sites before a run begins and kept with its output.

One diameter for a plate, where its sites agree: all its images are then seen at one scale, also those with few nuclei
or with debris. Where they do not agree, each image's is found by itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from nucseg_ray.errors import NucsegError
from nucseg_ray.imaging.codecs import Pixels
from nucseg_ray.pipelines.models import ModelFiles
from nucseg_ray.pipelines.network import ActorPool, load_segmenter
from nucseg_ray.pipelines.progress import duration
from nucseg_ray.pipelines.rows import unpack
from nucseg_ray.pipelines.run_record import DIAMETERS_JSON, read_diameters, record_diameters
from nucseg_ray.pipelines.session import MOST_RETRIES
from nucseg_ray.pipelines.site_image import Reading
from nucseg_ray.pipelines.sites import read_batch
from nucseg_ray.storage.locations import Location

# Sites are looked at by so many, until enough of them have shown nuclei, and of no plate more than twice as many.
SITES_TOGETHER, ENOUGH = 6, 4
# Estimates agree if the largest is at most so many times the smallest.
AGREEING = 1.6
# How far one site of a survey lies behind the one before, as a part of the plate: the golden ratio repeats nothing, so
# they come from all over its rows and its columns.
STRIDE = (5**0.5 - 1) / 2
PLATES_TOLD = 3
SECONDS_BETWEEN_LINES = 10.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Survey:
    """What some sites of a plate showed: the estimates, in pixels, and whether their images are of one shape.

    ``failures`` say why others could not be read or predicted, ``seen`` how many could.
    """

    plate: str
    estimates: tuple[float, ...]
    one_shape: bool
    seen: int
    failures: tuple[str, ...] = ()

    @property
    def diameter_px(self) -> float | None:
        """The diameter for the whole plate; None where its images are to be judged one by one."""
        if not (self.is_sound and self.one_shape and len(self.estimates) > 1):
            return None
        if max(self.estimates) > AGREEING * min(self.estimates):
            return None
        return round(float(np.median(self.estimates)), 2)

    @property
    def is_sound(self) -> bool:
        """Whether as many sites were seen as not: else a store that is away for a while would decide for ever."""
        return self.seen >= len(self.failures)


def plate_diameters(
    manifest: pa.Table, *, plates: Sequence[str], reading: Reading, out: Location, files: ModelFiles, pool: ActorPool
) -> dict[str, float | None]:
    """Give the diameter of each of some plates, None for image by image; finds those that the output has no record of.

    The sites are chosen by the whole manifest, so it does not matter which of them are done already. What is found is
    recorded before this returns, but for plates of which most sites could not be seen: the next run looks again.

    Raises
    ------
    NucsegError
        The processes that look for it die.
    OutputError
        The record cannot be read or written.
    """
    known = read_diameters(out)
    unknown = [plate for plate in plates if plate not in known]
    if unknown:
        began = time.monotonic()
        sites = survey_rows(manifest, unknown, most=2 * SITES_TOGETHER)
        found = {survey.plate: survey for survey in _surveyed(sites, reading=reading, files=files, pool=pool)}
        sound = {plate: found[plate].diameter_px for plate in unknown if found[plate].is_sound}
        record_diameters(out, known | sound)
        known |= {plate: found[plate].diameter_px for plate in unknown}
        _tell([found[plate] for plate in unknown], seconds=time.monotonic() - began, record=out / DIAMETERS_JSON)
    return {plate: known[plate] for plate in plates}


def survey_rows(manifest: pa.Table, plates: Sequence[str], *, most: int) -> dict[str, pa.Table]:
    """Give the rows of each plate that are looked at, in order, in one pass over a manifest of any length."""
    encoded = manifest.column("plate").combine_chunks().dictionary_encode()
    number_of = {plate: number for number, plate in enumerate(encoded.dictionary.to_pylist())}
    numbers = encoded.indices.to_numpy()
    rows = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[rows], np.arange(len(number_of) + 1))
    tables = {}
    for plate in plates:
        own = rows[starts[number_of[plate]] : starts[number_of[plate] + 1]]
        tables[plate] = manifest.take(own[scattered(own.size, most=most)])
    return tables


def scattered(rows: int, *, most: int = 2 * SITES_TOGETHER) -> list[int]:
    """Give some rows of so many, from all over, in the order in which they are to be looked at.

    Examples
    --------
    >>> scattered(96)[:6], scattered(3)
    ([59, 22, 81, 45, 8, 67], [1, 0, 2])
    """
    chosen: dict[int, None] = {}
    number = 0
    while len(chosen) < min(rows, most):
        number += 1
        chosen[int(number * STRIDE % 1 * rows)] = None
    return list(chosen)


class Surveyor:
    """Holds the network, and looks at some sites of one plate after another."""

    def __init__(self, *, reading: Reading, files: ModelFiles, pool: ActorPool) -> None:
        """Load the model, once."""
        self._reading = reading
        self._segmenter = load_segmenter(files, pool)

    def survey(self, plate: str, sites: pa.Table) -> Survey:
        """Estimate the diameter on some rows of the manifest; those that cannot be read or predicted do not count."""
        estimates: list[float] = []
        shapes: set[tuple[int, ...]] = set()
        failures: list[str] = []
        seen = 0
        for start in range(0, sites.num_rows, SITES_TOGETHER):
            table = read_batch(sites.slice(start, SITES_TOGETHER), reading=self._reading)
            failures += filter(None, table.column("error").to_pylist())
            images = [image for row in range(table.num_rows) if (image := unpack("image", table, row)) is not None]
            found = self._estimates(images)
            failures += [f"{type(error).__name__}: {error}" for error in found if isinstance(error, Exception)]
            seen += sum(not isinstance(estimate, Exception) for estimate in found)
            estimates += [estimate for estimate in found if isinstance(estimate, float)]
            shapes |= {image.shape for image in images}
            if len(estimates) >= ENOUGH:
                break
        return Survey(plate, tuple(estimates), len(shapes) == 1, seen, tuple(failures))

    def _estimates(self, images: Sequence[Pixels]) -> Sequence[float | Exception | None]:
        """Estimate all together; where that fails, one by one: in the run such a one becomes a row that says why."""
        try:
            return self._segmenter.estimate_diameters(images)
        except Exception:
            return [self._estimate(image) for image in images]

    def _estimate(self, image: Pixels) -> float | Exception | None:
        try:
            return self._segmenter.estimate_diameter(image)
        except Exception as error:
            return error


def _surveyed(
    tables: Mapping[str, pa.Table], *, reading: Reading, files: ModelFiles, pool: ActorPool
) -> Iterator[Survey]:
    """Survey plates, on as many processes as the run may have, each with the next plate as soon as it is free."""
    options: dict[str, Any] = {**pool.resources, "max_restarts": MOST_RETRIES, "max_task_retries": MOST_RETRIES}
    remote = ray.remote(**options)(Surveyor)
    actors = [remote.remote(reading=reading, files=files, pool=pool) for _ in range(min(pool.actors, len(tables)))]
    waiting = iter(tables.items())
    busy: dict[Any, Any] = {}
    free = list(actors)
    done, spoken = 0, time.monotonic()
    try:
        while True:
            while free and (following := next(waiting, None)) is not None:
                plate, table = following
                actor = free.pop()
                busy[actor.survey.remote(plate, table)] = actor
            if not busy:
                return
            (ready,), _ = ray.wait(list(busy), num_returns=1)
            free.append(busy.pop(ready))
            yield ray.get(ready)
            done += 1
            if time.monotonic() - spoken >= SECONDS_BETWEEN_LINES:
                spoken = time.monotonic()
                logger.info("diameters of nuclei: %d of %d plates looked at", done, len(tables))
    except ray.exceptions.RayError as error:
        raise NucsegError(
            f"the process that looks for the diameter of nuclei ended ({type(error).__name__}: {error}); look into "
            "Ray's logs, or give the diameter with --nucleus-diameter-px"
        ) from error
    finally:
        for actor in actors:
            ray.kill(actor)  # the run's actors want their place at once


def _tell(surveys: list[Survey], *, seconds: float, record: Location) -> None:
    for survey in [survey for survey in surveys if not survey.is_sound][:PLATES_TOLD]:
        logger.warning(
            "plate %s: %d of %d sites that were looked at could not be read or predicted (%s), so the network judges "
            "the diameter of its nuclei image by image, and the next run looks again",
            survey.plate,
            len(survey.failures),
            len(survey.failures) + survey.seen,
            survey.failures[0],
        )
    for survey in [survey for survey in surveys if survey.is_sound][:PLATES_TOLD]:
        logger.info("plate %s: %s", survey.plate, _told(survey))
    if len(surveys) > PLATES_TOLD:
        found = [survey.diameter_px for survey in surveys if survey.diameter_px is not None]
        logger.info(
            "and so on: %d plates looked at in %s, %d of them with one diameter of nuclei%s, %d to be judged image by "
            "image; all are in %s",
            len(surveys),
            duration(seconds),
            len(found),
            f" ({min(found):.1f} to {max(found):.1f} px)" if found else "",
            len(surveys) - len(found),
            record,
        )


def _told(survey: Survey) -> str:
    if not survey.estimates:
        return "no site that was looked at shows enough nuclei, so the network judges their diameter image by image"
    if len(survey.estimates) == 1:
        return (
            f"only one site that was looked at shows enough nuclei, about {survey.estimates[0]:.1f} px across, so the "
            "network judges image by image"
        )
    least, most, sites = min(survey.estimates), max(survey.estimates), len(survey.estimates)
    told = f"{least:.1f} to {most:.1f} px on {sites} sites"
    if survey.diameter_px is None:
        return f"the nuclei's diameters ({told}) or the images' sizes differ, so the network judges image by image"
    return f"the nuclei are about {survey.diameter_px:.1f} px across ({told})"
