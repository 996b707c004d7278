"""Writing synthetic training sets and plates: one Ray Data row a site, drawn and written where it is drawn.

A training set goes below the output in one of the layouts that training reads, with ``index.csv``. A plate goes to
``<output>/<plate>`` in the names of an instrument, its truth beside it to ``<output>/truth/<plate>/<well>/<site>.png``
(16-bit labels, named by the same keys as a run's masks), with ``truth.csv``. The table is written last.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray.data

from nucseg_ray.config_synthesize import SynthesizeSettings
from nucseg_ray.errors import OutputError, OutputMismatchError
from nucseg_ray.pipelines.session import finite_retries
from nucseg_ray.pipelines.synthetic_sites import SiteJob, draw_job, plan_plate, plan_training, plate_key, site_look
from nucseg_ray.storage.atomic import sweep_temporaries, write_bytes, write_json
from nucseg_ray.storage.locations import Location

LOG = logging.getLogger(__name__)

SETTINGS_FILE = "synthesis.json"
# Some tenths of a second of drawing: enough to outweigh a task's start, little enough to spread over all CPUs.
SITES_A_BLOCK = 8
DRAWN = pa.schema([("key", pa.string()), ("n_nuclei", pa.int32()), ("error", pa.string())])


@dataclasses.dataclass(frozen=True, slots=True)
class SynthesisAccount:
    """What was written: sites, how many of them are empty, nuclei in all, and the folder to give to the next job."""

    n_sites: int
    n_empty: int
    n_nuclei: int
    folder: str
    table: str

    def __str__(self) -> str:
        """Give the last line of a run."""
        return f"{self.n_sites} images, {self.n_empty} of them empty, {self.n_nuclei} nuclei in {self.folder}"


def run_synthesize(settings: SynthesizeSettings, *, blocks: int | None = None) -> SynthesisAccount:
    """Draw and write what the settings ask for; Ray must be running.

    ``blocks`` is the number of Ray Data blocks; the bytes written do not depend on it. The same settings may be run
    again into the same output.

    Raises
    ------
    UsageError
        The settings ask for what cannot be drawn or named.
    OutputMismatchError
        The output holds something else.
    OutputError
        The output cannot be written.
    """
    output = Location(settings.output)
    site_look(settings, nuclei=settings.nuclei[1])
    plate = settings.kind == "plate"
    jobs = plan_plate(settings) if plate else plan_training(settings)
    _claim(output, settings)
    LOG.info("drawing %d synthetic sites into %s", len(jobs), output.uri)
    counts = _draw_all(jobs, settings, output, blocks=blocks or -(-len(jobs) // SITES_A_BLOCK))
    table = output / ("truth.csv" if plate else "index.csv")
    write_bytes(table, _csv(_truth_rows(jobs, counts, settings) if plate else _index_rows(jobs, counts)))
    return SynthesisAccount(
        n_sites=len(jobs),
        n_empty=sum(count == 0 for count in counts.values()),
        n_nuclei=sum(counts.values()),
        folder=(output / settings.plate).uri if plate else output.uri,
        table=table.uri,
    )


def _draw_all(
    jobs: Sequence[SiteJob], settings: SynthesizeSettings, output: Location, *, blocks: int
) -> dict[str, int]:
    """Draw and write all sites in parallel; returns the number of nuclei by key."""

    def draw_batch(batch: pa.Table) -> pa.Table:
        drawn = []
        for row in batch.to_pylist():
            count, files = draw_job(SiteJob(**{**row, "images": tuple(row["images"])}), settings)
            try:
                for path, content in files:
                    write_bytes(output / path, content)
            except OutputError as error:
                # As a value: raised here, Ray would wrap it until its type and message are lost.
                return pa.Table.from_pylist([{"key": row["key"], "error": str(error)}], schema=DRAWN)
            drawn.append({"key": row["key"], "n_nuclei": count})
        return pa.Table.from_pylist(drawn, schema=DRAWN)

    table = pa.Table.from_pylist([dataclasses.asdict(job) for job in jobs])
    dataset = ray.data.from_arrow(table, override_num_blocks=min(blocks, len(jobs)))
    dataset.context.enable_progress_bars = False
    with finite_retries() as tasks:
        written = dataset.map_batches(draw_batch, batch_format="pyarrow", batch_size=None, **tasks)
    counts: dict[str, int] = {}
    for row in written.iter_rows():
        if row["error"] is not None:
            raise OutputError(row["error"])
        counts[row["key"]] = row["n_nuclei"]
        if len(counts) % max(1, len(jobs) // 10) == 0:
            LOG.info("%d of %d sites drawn", len(counts), len(jobs))
    return counts


def _claim(output: Location, settings: SynthesizeSettings) -> None:
    """Write the settings into the output, or refuse one that holds anything else than files of these settings."""
    wanted = settings.model_dump(mode="json", exclude={"output"})
    note = output / SETTINGS_FILE
    if note.fs.exists(note.path):
        if _read_json(note) == wanted:
            sweep_temporaries(output)
            return
        found = f"a synthetic set made with other settings ({SETTINGS_FILE})"
    elif output.fs.exists(output.path) and output.fs.ls(output.path, detail=False):
        found = "other files"
    else:
        write_json(note, wanted)
        return
    raise OutputMismatchError(
        f"{output}: expected a new or empty output, found {found}, and the two would mix: "
        "name another --output or delete this one."
    )


def _read_json(location: Location) -> Any:
    try:
        return json.loads(location.fs.cat_file(location.path))
    except ValueError:
        return None


def _index_rows(jobs: Sequence[SiteJob], counts: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Give each image a group of its own: none is cut from the same picture as another."""
    for number, job in enumerate(jobs):
        name = job.key.rpartition("/")[2]
        yield {"ImageId": name, "modality": "synthetic", "n_masks": counts[job.key], "mosaic_idx": number}


def _truth_rows(
    jobs: Sequence[SiteJob], counts: Mapping[str, int], settings: SynthesizeSettings
) -> Iterator[dict[str, Any]]:
    for job in jobs:
        key = plate_key(job.images[0], settings)
        yield {
            "Metadata_Plate": key.plate,
            "Metadata_Well": key.well,
            "Metadata_Site": key.site,
            "Metadata_Timepoint": key.timepoint,
            "n_nuclei": counts[job.key],
            "truth": job.truth,
        }


def _csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
