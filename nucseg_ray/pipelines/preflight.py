"""Before a long run: the output, the room on disk, and one site through every stage; some seconds, nothing written."""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from typing import Any

import pyarrow as pa
import ray

from nucseg_ray.config_predict import PredictSettings
from nucseg_ray.errors import InputError, NucsegError, OutputError
from nucseg_ray.model.bundle import REFERENCE
from nucseg_ray.pipelines.batch import Batch
from nucseg_ray.pipelines.network import ActorPool
from nucseg_ray.pipelines.progress import duration
from nucseg_ray.pipelines.trial import Order, Trial, answer_to, try_site
from nucseg_ray.storage.atomic import remove, write_bytes
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.locations import Location

# So many sites are tried, spread over the manifest, until one can be read.
SITES_TRIED = 5
# Named like the temporary files of a local output: should the driver be killed now, the next run sweeps it away.
PROBE = ".tmp-preflight"
# A file takes whole blocks of a disk; the three tables of a part take so much without a row.
BLOCK_BYTES = 4096
PART_BYTES = 16 << 10
# One site stands for all, so an estimate that fills more than this share of the room is worth a warning.
TIGHT_SHARE = 0.5
SECONDS_WITHOUT_A_WORD = 60.0
logger = logging.getLogger(__name__)


def run_preflight(batch: Batch, pending: pa.Table) -> None:
    """Try what a run over the ``pending`` rows of a manifest needs.

    The caller holds the output's lease. Sites that cannot be read are rows of the run and no reason to refuse.

    Raises
    ------
    NucsegError
        Something else fails that would fail for every site; names the stage and the remedy.
    OutputError
        The output cannot be written, by this process or by a worker, or the results cannot fit on its disk.
    """
    began = time.monotonic()
    settings, out = batch.settings, batch.out
    order = Order(
        rows=pending.take(spread(pending.num_rows)),
        reading=batch.reading,
        probe=out / PROBE,
        model=batch.files,
        actors=batch.actors,
        labelling=batch.labelling,
    )
    question = uuid.uuid4().bytes
    write_bytes(order.probe, question)
    try:
        trial = _tried(order)
        _check_answer(order.probe, answer_to(question))
    finally:
        remove(order.probe)
    if trial.site is None:
        logger.warning(
            "preflight: %d of %d sites tried, none could be read, so the network was loaded but has segmented nothing; "
            "the run goes on, and such sites are failed rows of it: %s",
            len(trial.unreadable),
            pending.num_rows,
            trial.unreadable[0],
        )
        return
    needed = bytes_needed(trial, settings=settings, sites=pending.num_rows)
    free = free_bytes(out)
    logger.info(
        "preflight took %.1f s: %s can be written, %s went through every stage (%d nuclei); %d sites like it take "
        "about %s on %g CPUs%s",
        time.monotonic() - began,
        out,
        trial.site,
        trial.n_nuclei,
        pending.num_rows,
        duration(run_seconds(trial, actors=batch.actors, sites=pending.num_rows, cpus=_cpus())),
        _cpus(),
        "" if free is None else f" and {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free",
    )
    if free is not None:
        check_disk(out, needed=needed, free=free)


def spread(rows: int) -> list[int]:
    """Give some rows of so many, from all over; the middle first, for the first wells of a plate are often empty."""
    last = rows - 1
    chosen = (last // 2, last // 4, last - last // 4, 0, last)
    return list(dict.fromkeys(chosen))[:SITES_TRIED]


def bytes_needed(trial: Trial, *, settings: PredictSettings, sites: int) -> int:
    """Estimate what masks and tables of so many sites take on disk, if all are like the one that was tried."""
    png_files = -(-trial.mask_bytes // BLOCK_BYTES) * BLOCK_BYTES if settings.masks in ("png", "both") else 0
    in_tables = trial.table_bytes + (trial.mask_bytes if settings.masks in ("parquet", "both") else 0)
    return sites * (png_files + in_tables) + -(-sites // settings.sites_per_part) * PART_BYTES


def free_bytes(out: Location) -> int | None:
    """Give the room on the disk of a local output; None elsewhere, where nobody knows it."""
    return shutil.disk_usage(out.path).free if out.is_local else None


def check_disk(out: Location, *, needed: int, free: int) -> None:
    """Warn where the estimate comes near the room that there is.

    Raises
    ------
    OutputError
        It is more than that.
    """
    if needed > free:
        raise OutputError(
            f"preflight: {out}: expected room for about {needed / 1e6:,.0f} MB (one site's masks and tables, times the "
            f"pending sites), found {free / 1e6:,.0f} MB free; free space, choose another --output, write less with "
            "--masks none, or, where other sites hold less, begin with --no-preflight"
        )
    if needed > TIGHT_SHARE * free:
        logger.warning(
            "preflight: %s: room is tight: about %s MB are needed if all sites are like the one tried, %s MB are free; "
            "a run that fills the disk ends, and goes on with the same command once there is room",
            out,
            f"{needed / 1e6:,.0f}",
            f"{free / 1e6:,.0f}",
        )


def run_seconds(trial: Trial, *, actors: ActorPool, sites: int, cpus: float) -> float:
    """Estimate the time of a run: the slower of network and other stages, and no less than the CPUs need for both."""
    network = trial.predict_s / actors.actors
    other = trial.other_s / max(1.0, cpus - actors.actors * actors.cpus)
    busy = 0.0 if actors.use_gpu else trial.predict_s * trial.at_a_time
    return sites * max(network, other, (busy + trial.other_s) / cpus)


def _tried(order: Order) -> Trial:
    """Try a site in a task that takes what an actor takes; a task's process serves the run afterwards."""
    pool = order.actors
    options: dict[str, Any] = {
        **pool.resources,
        "max_retries": 0,
        # TensorFlow does not give memory back; its process must end before the run's actors come.
        **({"max_calls": 1} if pool.form == REFERENCE else {}),
    }
    task = ray.remote(**options)(try_site).remote(order)
    ready, _ = ray.wait([task], timeout=SECONDS_WITHOUT_A_WORD)
    if not ready:
        logger.info("preflight: still waiting for one site; the cluster is busy, or the model is slow to load")
    try:
        tried = ray.get(task)
    except ray.exceptions.RayError as error:
        raise NucsegError(
            f"preflight: the process that tried one site ended ({type(error).__name__}: {error}); give it more memory, "
            "lower --tile-px, or look into Ray's logs; --no-preflight begins without"
        ) from error
    if isinstance(tried, NucsegError):
        raise tried
    return tried


def _check_answer(probe: Location, expected: bytes) -> None:
    try:
        found = fetch_bytes(probe)
    except InputError as error:
        raise OutputError(f"preflight: {probe.parent}: a file was written there and cannot be read: {error}") from error
    if found != expected:
        raise OutputError(
            f"preflight: {probe.parent}: a worker wrote a file there, and this process reads other bytes; name an "
            "--output that every node sees: a shared folder, or a URI such as s3://bucket/folder"
        )


def _cpus() -> float:
    return float(ray.cluster_resources().get("CPU", 1))
