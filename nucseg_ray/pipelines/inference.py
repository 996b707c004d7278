"""A batch run: from a plate or folder of images to masks, the table of nuclei and the ledger."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from nucseg_ray.config_predict import NO_ILLUMINATION, PredictSettings
from nucseg_ray.errors import NucsegError, OutputError
from nucseg_ray.imaging.labelling import Labelling
from nucseg_ray.pipelines.account import Account
from nucseg_ray.pipelines.batch import Batch, decide
from nucseg_ray.pipelines.diameters import plate_diameters
from nucseg_ray.pipelines.illumination import find_lights, record_lights, without_begun_plates
from nucseg_ray.pipelines.mixed_images import MixedImages
from nucseg_ray.pipelines.network import with_maps
from nucseg_ray.pipelines.preflight import run_preflight
from nucseg_ray.pipelines.progress import shown
from nucseg_ray.pipelines.run_plan import as_choice
from nucseg_ray.pipelines.run_record import check_output, claim_output, clear_output, record_manifest
from nucseg_ray.pipelines.session import finite_retries
from nucseg_ray.pipelines.sites import Sink, finish_batch, read_batch
from nucseg_ray.plates.manifest import Key, add_missing
from nucseg_ray.plates.planning import Plan
from nucseg_ray.storage.lease import Lease
from nucseg_ray.storage.ledger import (
    begin_run,
    committed_stems,
    done_keys,
    drop_failed,
    failure_reasons,
    outcome_counts,
    sweep,
)
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.parts import new_run_id
from nucseg_ray.storage.schemas import KEY_NAMES

MANIFEST_KEYS = ("plate", "well", "site", "timepoint")
FAILURES_SHOWN = 3
logger = logging.getLogger(__name__)


def run_predict(settings: PredictSettings) -> Account:
    """Segment every site that has no outcome yet, and give the account. Ray must be running.

    Raises
    ------
    NucsegError
        The input, the model or the output cannot be used. What was committed stays.
    """
    batch = decide(settings)
    out = batch.out
    with Lease(out) as lease:
        accepted, done = _done_before(batch)
        recorded = None if settings.overwrite else batch.recorded_lights
        planned = without_begun_plates(batch.planned, settings.illumination, known=recorded)
        ahead, _ = _pending(planned.manifest, done)
        if settings.preflight and ahead.num_rows:
            run_preflight(batch, ahead)
        lights = find_lights(settings.illumination, ahead, planned.whole, reading=batch.reading, known=recorded)
        # Only now is the output changed: what was refused so far must neither delete the results of an earlier run nor
        # claim the output for a model that does not work.
        if settings.overwrite:
            clear_output(out)
        claim_output(out, batch.decisive, settings=settings.model_dump())
        manifest = record_manifest(out, planned.manifest, done=done)
        run_id = new_run_id()
        begin_run(out, run_id, accepted)
        record_lights(lights, planned.channel, into=batch.recorded_lights)
        wanted = _wanted(manifest if as_choice(settings).is_everything else planned.manifest, planned, done)
        pending, n_done = _pending(wanted, done)
        if pending.num_rows:
            # A plate is judged by all its sites, whichever are asked for: else a trial with a few would decide for all.
            _segment(batch, pending, judged=add_missing(planned.whole, manifest), run_id=run_id)
        else:
            logger.info("nothing to do: all %d sites were done before", wanted.num_rows)
        lease.check()
        sweep(out, run_id, accepted)
        counts = outcome_counts(out, among=set(_keys(wanted, MANIFEST_KEYS)))
        account = Account(sites=wanted.num_rows, done_before=n_done, **counts)
        _tell_failures(out, account)
    if not account.is_balanced:
        raise NucsegError(f"{out}: the account does not balance ({account}); run the same command again")
    return account


def _done_before(batch: Batch) -> tuple[frozenset[str], set[Key]]:
    """Give the parts of earlier runs that count, and the keys in them; refuses an output made with something else."""
    settings, out = batch.settings, batch.out
    if not settings.overwrite:
        check_output(out, batch.decisive)
        if settings.retry_failed:
            drop_failed(out)
    accepted = frozenset[str]() if settings.overwrite else committed_stems(out)
    return accepted, set(_keys(done_keys(out, accepted), KEY_NAMES))


def _wanted(rows: pa.Table, planned: Plan, done: Collection[Key]) -> pa.Table:
    """Give the rows that a run accounts for: those that it was asked for, but for sites that are being written.

    Where it was asked for everything, ``rows`` are the whole manifest: what an earlier run was to do is to be done,
    too, also where its files are gone: a site is never lost without a word. But what is being written has to wait.
    """
    held_back = {(key.plate, key.well, key.site, key.timepoint) for key in planned.held_back}
    return _pending(rows, held_back.difference(done))[0]


def _tell_failures(out: Location, account: Account) -> None:
    if account.failed:
        logger.warning(
            "%d sites failed, such as: %s. All are in %s, with their reasons; --retry-failed tries them again",
            account.failed,
            "; ".join(failure_reasons(out)[:FAILURES_SHOWN]),
            out / "sites",
        )


def _pending(manifest: pa.Table, done: Collection[Key]) -> tuple[pa.Table, int]:
    """Give the rows of the manifest without an outcome, in its order, and how many have one."""
    is_pending = [key not in done for key in _keys(manifest, MANIFEST_KEYS)]
    return manifest.filter(pa.array(is_pending, pa.bool_())), is_pending.count(False)


def _keys(table: pa.Table, names: Sequence[str]) -> Iterator[Key]:
    """Give the keys in a table's rows, whatever its columns for them are called."""
    return zip(*(table.column(name).to_pylist() for name in names), strict=True)


def _blocks(pending: pa.Table, sites_per_part: int) -> list[pa.Table]:
    """Cut the pending rows into blocks of one plate each: a block becomes a part."""
    plates = pending.column("plate").to_pylist()
    starts = [0]
    for row in range(1, len(plates)):
        if plates[row] != plates[row - 1] or row - starts[-1] == sites_per_part:
            starts.append(row)
    return [pending.slice(start, stop - start) for start, stop in zip(starts, [*starts[1:], len(plates)], strict=True)]


def _segment(batch: Batch, pending: pa.Table, *, judged: pa.Table, run_id: str) -> None:
    """Do the pending sites and commit them part by part; of the rows ``judged`` some tell what is true of a plate."""
    if batch.settings.illumination != NO_ILLUMINATION:
        lights = replace(batch.recorded_lights, generation=run_id)
        batch = replace(batch, reading=replace(batch.reading, lights=lights))
    finished = _finished(
        _predicted(batch, pending, judged), batch.labelling, Sink(batch.out, run_id, batch.settings.masks)
    )
    mixed = MixedImages()
    for counts in shown(_counts(finished), total=pending.num_rows):
        mixed.add(counts["plate"], dict(counts["looks"]))
        if counts["output_error"]:
            raise OutputError(counts["output_error"])


def _predicted(batch: Batch, pending: pa.Table, judged: pa.Table) -> ray.data.Dataset:
    """Plan to read the pending rows and predict their maps; with auto, finds out first how large their nuclei are."""
    actors, reading, files = batch.actors, batch.reading, batch.files
    diameters = None
    if actors.nucleus_diameter_px is None and actors.nucleus_diameter_um is None:
        plates = pc.unique(pending.column("plate")).to_pylist()
        diameters = plate_diameters(judged, plates=plates, reading=reading, out=batch.out, files=files, pool=actors)
    with finite_retries() as tasks:
        read = ray.data.from_arrow(_blocks(pending, batch.settings.sites_per_part)).map_batches(
            read_batch, fn_kwargs={"reading": reading}, batch_format="pyarrow", batch_size=None, **tasks
        )
    return with_maps(read, model=files, pool=actors, diameters=diameters)


def _finished(predicted: ray.data.Dataset, labelling: Labelling, sink: Sink) -> ray.data.Dataset:
    """Plan to label, measure and commit what is predicted."""
    with finite_retries() as tasks:
        finished = predicted.map_batches(
            finish_batch,
            fn_kwargs={"labelling": labelling, "sink": sink},
            batch_format="pyarrow",
            batch_size=None,
            **tasks,
        )
    finished.context.enable_progress_bars = False
    return finished


def _counts(finished: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    for batch in finished.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from batch.to_pylist()
