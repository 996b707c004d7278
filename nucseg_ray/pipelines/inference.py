"""A batch run: from a plate or folder of images to masks, the table of nuclei and the ledger."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from tqdm import tqdm

from nucseg_ray.config import AUTO, ESTIMATE, NO_ILLUMINATION, PredictSettings, as_diameter
from nucseg_ray.errors import NucsegError, OutputError
from nucseg_ray.model.bundle import Bundle
from nucseg_ray.model.predictor import choose_form
from nucseg_ray.pipelines.account import Account
from nucseg_ray.pipelines.diameters import plate_diameters
from nucseg_ray.pipelines.illumination import find_lights, record_lights
from nucseg_ray.pipelines.models import ModelFiles, fetch_bundle
from nucseg_ray.pipelines.network import ActorPool, with_maps
from nucseg_ray.pipelines.preflight import run_preflight
from nucseg_ray.pipelines.progress import duration
from nucseg_ray.pipelines.resources import check_room
from nucseg_ray.pipelines.run_record import ILLUMINATION, check_output, claim_output, clear_output, record_manifest
from nucseg_ray.pipelines.session import finite_retries
from nucseg_ray.pipelines.sites import Sink, finish_batch, read_batch
from nucseg_ray.plates.planning import Plan, plan
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
from nucseg_ray.storage.listing import list_files
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.parts import new_run_id
from nucseg_ray.storage.schemas import KEY_NAMES

MANIFEST_KEYS = ("plate", "well", "site", "timepoint")
SECONDS_BETWEEN_LINES = 10.0
UNMATCHED_SHOWN = FAILURES_SHOWN = 3
logger = logging.getLogger(__name__)


def run_predict(settings: PredictSettings) -> Account:
    """Segment every site that has no outcome yet, and give the account. Ray must be running.

    Raises
    ------
    NucsegError
        The input, the model or the output cannot be used. What was committed stays.
    """
    root, out = Location(settings.input), Location(settings.output)
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
        tta=settings.tta,
    )
    check_room(process="actor", count=actors.actors, cpus_each=actors.cpus, use_gpu=actors.use_gpu)
    planned = plan(
        list_files(root), root_name=root.name, channel=settings.channel, scheme=settings.scheme, z=settings.z
    )
    _log_plan(planned, root)
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
            run_preflight(settings, root=root, out=out, bundle=bundle, files=files, actors=actors, pending=ahead)
        recorded = Illuminations(out / ILLUMINATION)
        new_lights = find_lights(
            settings.illumination, ahead, planned.manifest, root=root, known=None if settings.overwrite else recorded
        )
        # Only now is the output changed: what the preflight refuses must neither delete the results of an earlier run
        # nor claim the output for a model that does not work.
        if settings.overwrite:
            clear_output(out)
        claim_output(out, decisive, settings=settings.model_dump())
        manifest = record_manifest(out, planned.manifest)
        run_id = new_run_id()
        begin_run(out, run_id, accepted)
        record_lights(new_lights, str(decisive["channel"]), into=recorded)
        pending, n_done = _pending(manifest, done)
        if pending.num_rows == 0:
            logger.info("nothing to do: all %d sites were done before", manifest.num_rows)
        else:
            lights = None if settings.illumination == NO_ILLUMINATION else replace(recorded, generation=run_id)
            predicted = _predicted(pending, manifest, lights=lights, files=files, actors=actors, settings=settings)
            _finish(predicted, bundle=bundle, sink=Sink(out, run_id, settings.masks), sites=pending.num_rows)
        lease.check()
        sweep(out, run_id, accepted)
        account = Account(sites=manifest.num_rows, done_before=n_done, **outcome_counts(out))
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
    """Give everything that a mask depends on; what the light is corrected by only where it is."""
    chosen = settings.illumination
    light = {"illumination": chosen if chosen == ESTIMATE else Location(chosen).uri}
    channels = set(planned.manifest.column("channel").to_pylist())
    return {
        "input": Location(settings.input).uri,
        "scheme": planned.scheme,
        "channel": next(iter(channels), ""),
        "z": settings.z,
        "masks": settings.masks,
        "model": bundle.fingerprint,
        "network": form,
        "tile_px": settings.tile_px,
        "overlap_px": settings.overlap_px,
        "nucleus_diameter_px": as_diameter(settings.nucleus_diameter_px) or AUTO,
        "tta": settings.tta,
        **({} if chosen == NO_ILLUMINATION else light),
    }


def _log_plan(planned: Plan, root: Location) -> None:
    manifest = planned.manifest
    plates, wells = (len(pc.unique(manifest.column(name))) for name in ("plate", "well"))
    channel = f", channel {manifest.column('channel')[0].as_py()}" if planned.channels else ""
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
        shown = ", ".join(planned.unmatched[:UNMATCHED_SHOWN])
        logger.warning(
            "%d image files do not follow the scheme and are left out, such as %s", len(planned.unmatched), shown
        )


def _pending(manifest: pa.Table, done: pa.Table) -> tuple[pa.Table, int]:
    """Give the rows of the manifest without an outcome, in its order, and how many have one."""
    known = set(zip(*(done.column(name).to_pylist() for name in KEY_NAMES), strict=True))
    keys = zip(*(manifest.column(name).to_pylist() for name in MANIFEST_KEYS), strict=True)
    is_pending = [key not in known for key in keys]
    return manifest.filter(pa.array(is_pending, pa.bool_())), is_pending.count(False)


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
    manifest: pa.Table,
    *,
    lights: Illuminations | None,
    files: ModelFiles,
    actors: ActorPool,
    settings: PredictSettings,
) -> ray.data.Dataset:
    """Plan to read the pending rows and predict their maps; with auto, finds out first how large their nuclei are."""
    root, out = Location(settings.input), Location(settings.output)
    diameters = None
    if actors.nucleus_diameter_px is None:
        plates = pc.unique(pending.column("plate")).to_pylist()
        diameters = plate_diameters(
            manifest, plates=plates, root=root, out=out, files=files, pool=actors, lights=lights
        )
    with finite_retries() as tasks:
        read = ray.data.from_arrow(_blocks(pending, settings.sites_per_part)).map_batches(
            read_batch, fn_kwargs={"root": root, "lights": lights}, batch_format="pyarrow", batch_size=None, **tasks
        )
    return with_maps(read, model=files, pool=actors, diameters=diameters)


def _finish(predicted: ray.data.Dataset, *, bundle: Bundle, sink: Sink, sites: int) -> None:
    """Run what is planned, and commit it part by part."""
    with finite_retries() as tasks:
        finished = predicted.map_batches(
            finish_batch,
            fn_kwargs={"variant": bundle.labels, "sink": sink},
            batch_format="pyarrow",
            batch_size=None,
            **tasks,
        )
    finished.context.enable_progress_bars = False
    for counts in _shown(_counts(finished), total=sites):
        if counts["output_error"]:
            raise OutputError(counts["output_error"])


def _counts(finished: ray.data.Dataset) -> Iterator[dict[str, int | str | None]]:
    for batch in finished.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from batch.to_pylist()


def _shown(parts: Iterable[dict[str, int | str | None]], *, total: int) -> Iterator[dict[str, int | str | None]]:
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
