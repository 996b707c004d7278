"""A batch run: from a plate or folder of images to masks, the table of nuclei and the ledger."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from tqdm import tqdm

from nucseg_ray.config import ESTIMATE, NO_ILLUMINATION, PredictSettings
from nucseg_ray.config_lengths import AUTO, as_diameter, as_diameter_um, as_size
from nucseg_ray.errors import NucsegError, OutputError
from nucseg_ray.imaging.labelling import Labelling
from nucseg_ray.model.bundle import Bundle
from nucseg_ray.model.predictor import choose_form
from nucseg_ray.pipelines.account import Account
from nucseg_ray.pipelines.diameters import plate_diameters
from nucseg_ray.pipelines.illumination import find_lights, record_lights
from nucseg_ray.pipelines.mixed_images import MixedImages
from nucseg_ray.pipelines.models import ModelFiles, fetch_bundle
from nucseg_ray.pipelines.network import ActorPool, with_maps
from nucseg_ray.pipelines.preflight import run_preflight
from nucseg_ray.pipelines.progress import duration
from nucseg_ray.pipelines.resources import check_room
from nucseg_ray.pipelines.run_plan import as_choice, plan_run, reading_of
from nucseg_ray.pipelines.run_record import ILLUMINATION, check_output, claim_output, clear_output, record_manifest
from nucseg_ray.pipelines.session import finite_retries
from nucseg_ray.pipelines.site_image import Reading
from nucseg_ray.pipelines.sites import Sink, finish_batch, read_batch
from nucseg_ray.plates.manifest import add_missing
from nucseg_ray.plates.planning import Plan
from nucseg_ray.storage.illuminations import Illuminations
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
SECONDS_BETWEEN_LINES = 10.0
FAILURES_SHOWN = 3
logger = logging.getLogger(__name__)


def run_predict(settings: PredictSettings) -> Account:
    """Segment every site that has no outcome yet, and give the account. Ray must be running.

    Raises
    ------
    NucsegError
        The input, the model or the output cannot be used. What was committed stays.
    """
    out = Location(settings.output)
    bundle, files = fetch_bundle(settings.model)
    actors = ActorPool(
        form=choose_form(bundle, runtime=settings.runtime, use_gpu=settings.use_gpu),
        actors=settings.actors,
        cpus=settings.cpus_per_actor,
        threads=settings.threads_per_actor,
        use_gpu=settings.use_gpu,
        tile_px=settings.tile_px,
        overlap_px=settings.overlap_px,
        nucleus_diameter_px=as_diameter(settings.nucleus_diameter_px),
        nucleus_diameter_um=as_diameter_um(settings.nucleus_diameter_px),
        tta=settings.tta,
    )
    check_room(process="actor", count=actors.actors, cpus_each=actors.cpus, use_gpu=actors.use_gpu)
    planned = plan_run(settings)
    reading = reading_of(settings, planned)
    labelling = Labelling(bundle.labels, min_area_px=settings.min_area_px, drop_border=settings.drop_border)
    decisive = _decisive(settings, planned, bundle, actors.form)
    with Lease(out) as lease:
        if not settings.overwrite:
            check_output(out, decisive)
            if settings.retry_failed:
                drop_failed(out)
        accepted = frozenset[str]() if settings.overwrite else committed_stems(out)
        done = done_keys(out, accepted)
        ahead, _ = _pending(planned.manifest, done)
        if settings.preflight and ahead.num_rows:
            run_preflight(
                settings, reading=reading, out=out, labelling=labelling, files=files, actors=actors, pending=ahead
            )
        recorded = Illuminations(out / ILLUMINATION)
        new_lights = find_lights(
            settings.illumination, ahead, planned.whole, reading=reading, known=None if settings.overwrite else recorded
        )
        # Only now is the output changed: what the preflight refuses must neither delete the results of an earlier run
        # nor claim the output for a model that does not work.
        if settings.overwrite:
            clear_output(out)
        claim_output(out, decisive, settings=settings.model_dump())
        manifest = record_manifest(out, planned.manifest)
        # A run that is asked for some sites does these; else what an earlier run was to do is to be done, too, also
        # where its files are gone: a site is never lost without a word.
        wanted = manifest if as_choice(settings).is_everything else planned.manifest
        run_id = new_run_id()
        begin_run(out, run_id, accepted)
        record_lights(new_lights, planned.channel, into=recorded)
        pending, n_done = _pending(wanted, done)
        if pending.num_rows == 0:
            logger.info("nothing to do: all %d sites were done before", wanted.num_rows)
        else:
            lights = None if settings.illumination == NO_ILLUMINATION else replace(recorded, generation=run_id)
            # A plate is judged by all its sites, whichever are asked for: else a trial with a few would decide for all.
            judged = add_missing(manifest, planned.whole)
            predicted = _predicted(
                pending,
                judged,
                out=out,
                reading=replace(reading, lights=lights),
                files=files,
                actors=actors,
                settings=settings,
            )
            _finish(predicted, labelling=labelling, sink=Sink(out, run_id, settings.masks), sites=pending.num_rows)
        lease.check()
        sweep(out, run_id, accepted)
        counts = outcome_counts(out, among=set(_keys(wanted, MANIFEST_KEYS)))
        account = Account(sites=wanted.num_rows, done_before=n_done, **counts)
        _tell_failures(out, account)
    if not account.is_balanced:
        raise NucsegError(f"{out}: the account does not balance ({account}); run the same command again")
    return account


def _tell_failures(out: Location, account: Account) -> None:
    if account.failed:
        logger.warning(
            "%d sites failed, such as: %s. All are in %s, with their reasons; --retry-failed tries them again",
            account.failed,
            "; ".join(failure_reasons(out)[:FAILURES_SHOWN]),
            out / "sites",
        )


def _decisive(settings: PredictSettings, planned: Plan, bundle: Bundle, form: str) -> dict[str, str | int | float]:
    """Give everything that a mask depends on."""
    light = settings.illumination
    return {
        "input": Location(settings.input).uri,
        "scheme": planned.scheme,
        "channel": planned.channel,
        "z": settings.z,
        "masks": settings.masks,
        "model": bundle.fingerprint,
        "network": form,
        "tile_px": settings.tile_px,
        "overlap_px": settings.overlap_px,
        "nucleus_diameter_px": as_diameter(settings.nucleus_diameter_px) or settings.nucleus_diameter_px,
        "pixel_size_um": as_size(settings.pixel_size_um) or AUTO,
        "min_area_px": "the model's" if settings.min_area_px is None else settings.min_area_px,
        "drop_border": settings.drop_border,
        "illumination": light if light in (NO_ILLUMINATION, ESTIMATE) else Location(light).uri,
        "tta": settings.tta,
    }


def _pending(manifest: pa.Table, done: pa.Table) -> tuple[pa.Table, int]:
    """Give the rows of the manifest without an outcome, in its order, and how many have one."""
    known = set(_keys(done, KEY_NAMES))
    is_pending = [key not in known for key in _keys(manifest, MANIFEST_KEYS)]
    return manifest.filter(pa.array(is_pending, pa.bool_())), is_pending.count(False)


def _keys(table: pa.Table, names: Sequence[str]) -> Iterator[tuple[str | None, ...]]:
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


def _predicted(
    pending: pa.Table,
    judged: pa.Table,
    *,
    out: Location,
    reading: Reading,
    files: ModelFiles,
    actors: ActorPool,
    settings: PredictSettings,
) -> ray.data.Dataset:
    """Plan to read the pending rows and predict their maps; with auto, finds out first how large their nuclei are.

    ``judged`` are the rows of which some are looked at for that.
    """
    diameters = None
    if actors.nucleus_diameter_px is None and actors.nucleus_diameter_um is None:
        plates = pc.unique(pending.column("plate")).to_pylist()
        diameters = plate_diameters(judged, plates=plates, reading=reading, out=out, files=files, pool=actors)
    with finite_retries() as tasks:
        read = ray.data.from_arrow(_blocks(pending, settings.sites_per_part)).map_batches(
            read_batch, fn_kwargs={"reading": reading}, batch_format="pyarrow", batch_size=None, **tasks
        )
    return with_maps(read, model=files, pool=actors, diameters=diameters)


def _finish(predicted: ray.data.Dataset, *, labelling: Labelling, sink: Sink, sites: int) -> None:
    """Run what is planned, and commit it part by part."""
    with finite_retries() as tasks:
        finished = predicted.map_batches(
            finish_batch,
            fn_kwargs={"labelling": labelling, "sink": sink},
            batch_format="pyarrow",
            batch_size=None,
            **tasks,
        )
    finished.context.enable_progress_bars = False
    mixed = MixedImages()
    for counts in _shown(_counts(finished), total=sites):
        mixed.add(counts["plate"], dict(counts["looks"]))
        if counts["output_error"]:
            raise OutputError(counts["output_error"])


def _counts(finished: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    for batch in finished.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from batch.to_pylist()


def _shown(parts: Iterable[dict[str, Any]], *, total: int) -> Iterator[dict[str, Any]]:
    """Pass the counts of committed parts on, and show how far the run is: a bar on a terminal, lines in a log."""
    began = spoken = time.monotonic()
    seen: Counter[str] = Counter()
    with tqdm(total=total, unit="site", disable=not sys.stderr.isatty()) as bar:
        for part in parts:
            yield part
            for name in ("segmented", "empty", "failed", "n_nuclei"):
                seen[name] += int(part[name] or 0)
            done = seen["segmented"] + seen["empty"] + seen["failed"]
            bar.update(done - bar.n)
            now = time.monotonic()
            if bar.disable and (now - spoken >= SECONDS_BETWEEN_LINES or done == total):
                spoken = now
                left = (now - began) / done * (total - done)
                logger.info(
                    "%d of %d sites, %d nuclei, %d failed; %s to go",
                    done,
                    total,
                    seen["n_nuclei"],
                    seen["failed"],
                    duration(left),
                )
