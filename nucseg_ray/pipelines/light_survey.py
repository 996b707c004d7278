"""Looks at some sites of plates, in parallel tasks, for what each shows of the light."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from nucseg_ray.errors import NucsegError
from nucseg_ray.imaging.shading import SiteLight, site_light
from nucseg_ray.pipelines.rows import unpack
from nucseg_ray.pipelines.session import MOST_RETRIES
from nucseg_ray.pipelines.site_image import Reading
from nucseg_ray.pipelines.sites import read_batch

# One task looks at so many sites.
SITES_TOGETHER = 8
SECONDS_BETWEEN_LINES = 10.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one site, of a first ``file``, showed: shape and type of its image and its light, None where dark or colour.

    Without a shape it could not be read, and ``problem`` says why.
    """

    file: str
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    light: SiteLight | None = None
    problem: str = ""


def seen_of(tables: Mapping[str, pa.Table], reading: Reading) -> Iterator[tuple[str, list[Seen]]]:
    """Look at rows of the manifest by plate; yields plate by plate, sites in their order.

    Raises
    ------
    NucsegError
        The processes that look at them die.
    """
    jobs = [
        (plate, table.slice(start, SITES_TOGETHER))
        for plate, table in tables.items()
        for start in range(0, table.num_rows, SITES_TOGETHER)
    ]
    spoken, done = time.monotonic(), 0
    waiting: dict[str, list[Seen]] = {}
    for (plate, _), seen in zip(jobs, _in_order([rows for _, rows in jobs], reading), strict=True):
        waiting.setdefault(plate, []).extend(seen)
        if len(waiting[plate]) == tables[plate].num_rows:
            yield plate, waiting.pop(plate)
            done += 1
        if time.monotonic() - spoken >= SECONDS_BETWEEN_LINES:
            spoken = time.monotonic()
            logger.info("uneven light: %d of %d plates looked at", done, len(tables))


def seen_on(rows: pa.Table, reading: Reading) -> list[Seen]:
    """Read some rows of the manifest, and look at the light in each."""
    table = read_batch(rows, reading=reading)
    seen = []
    for row in range(table.num_rows):
        image = unpack("image", table, row)
        file = table.column("file")[row].as_py()
        if image is None:
            seen.append(Seen(file, problem=str(table.column("error")[row].as_py())))
        else:
            seen.append(Seen(file, image.shape, str(image.dtype), site_light(image) if image.ndim == 2 else None))
    return seen


def _in_order(tables: Sequence[pa.Table], reading: Reading) -> Iterator[list[Seen]]:
    """Look at tables in tasks, some ahead of what is needed next; yields what they give, in order."""
    task = ray.remote(num_cpus=1, max_retries=MOST_RETRIES)(seen_on)
    ahead = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
    under_way: list[Any] = []
    try:
        for number in range(len(tables) + ahead):
            if number < len(tables):
                under_way.append(task.remote(tables[number], reading))
            if number >= ahead and under_way:
                yield ray.get(under_way.pop(0))
    except ray.exceptions.RayError as error:
        raise NucsegError(
            f"the process that looks at the light of plates ended ({type(error).__name__}: {error}); look into Ray's "
            "logs, or begin with --illumination none"
        ) from error
