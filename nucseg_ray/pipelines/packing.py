"""Packing a training set: thousands of small files, read once by parallel tasks, into a few Parquet files."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import ray

from nucseg_ray.config import PackSettings
from nucseg_ray.errors import OutputError
from nucseg_ray.pipelines.progress import duration
from nucseg_ray.pipelines.samples import PACKED_SCHEMA, read_here, refuse_unreadable, report_oddities
from nucseg_ray.pipelines.session import MOST_RETRIES
from nucseg_ray.storage.atomic import write_bytes
from nucseg_ray.storage.labelled_images import Part, Sample, TrainingSet
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.packed_sets import (
    abandon_packing,
    begin_packing,
    encode_part,
    fingerprint,
    finish_packing,
    part_name,
)
from nucseg_ray.storage.training_sets import find_training_set

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _PartDone:
    """What came of one part: its file, or why there is none."""

    part: Part | None
    overlap_px: int
    n_empty: int
    errors: tuple[str, ...]


def run_pack(settings: PackSettings) -> str:
    """Pack a training set, and give a sentence that says so. Ray must be running.

    The same command may be run again into what a kill left of its output. Nothing can be trained from before the last
    file, ``packed.json``, is written.

    Raises
    ------
    NucsegError
        The set or the output cannot be used, or an image cannot be read: the output is then left empty.
    """
    started = time.monotonic()
    output = Location(settings.output)
    index = None if settings.index is None else Location(settings.index)
    found = find_training_set(Location(settings.data), index=index)
    cuts = _cut(found, settings.images_per_part)
    begin_packing(output, fingerprint(found, images_per_part=settings.images_per_part))
    logger.info("%s: %s; packing %d images into %d parts", found.root, found.layout, len(found.samples), len(cuts))
    done = _pack_all(found, cuts, output)
    errors = [error for each in done for error in each.errors]
    if errors:
        abandon_packing(output, [part_name(number) for number in range(len(cuts))])
        refuse_unreadable(errors)
    report_oddities(len(found.samples), sum(each.overlap_px for each in done), sum(each.n_empty for each in done))
    parts = [each.part for each in done if each.part is not None]
    finish_packing(output, list(zip(parts, cuts, strict=True)), source=f"{found.root} ({found.layout})")
    size_mb = sum(part.size_bytes for part in parts) / 1e6
    return (
        f"{len(found.samples)} images packed into {len(parts)} parts, {size_mb:.1f} MB, in {output} "
        f"({duration(time.monotonic() - started)})"
    )


def _cut(training_set: TrainingSet, images_per_part: int) -> list[tuple[Sample, ...]]:
    samples = training_set.samples
    return [samples[start : start + images_per_part] for start in range(0, len(samples), images_per_part)]


def _pack_all(training_set: TrainingSet, cuts: Sequence[Sequence[Sample]], output: Location) -> list[_PartDone]:
    pending = [_pack_part.remote(training_set.only(cut), output, part_name(number)) for number, cut in enumerate(cuts)]
    done: list[_PartDone] = []
    refused: list[OutputError] = []
    # All are waited for, also after an error: no task may write once the run has ended, and cancelling a task that is
    # about to end kills the driver in Ray 2.60 ("Tried to complete task that was not pending").
    for number, reference in enumerate(pending, 1):
        packed = ray.get(reference)
        if isinstance(packed, OutputError):
            refused.append(packed)
        else:
            done.append(packed)
        if number % max(1, len(cuts) // 10) == 0:
            logger.info("%d of %d parts are done", number, len(cuts))
    if refused:
        raise refused[0]
    return done


@ray.remote(num_cpus=1, max_retries=MOST_RETRIES)
def _pack_part(cut: TrainingSet, output: Location, name: str) -> _PartDone | OutputError:
    tables: list[pa.Table] = []

    def readable() -> Iterator[pa.Table]:
        by_id = {sample.image_id: sample for sample in cut.samples}
        for table in read_here(cut):
            tables.append(table.select(["overlap_px", "n_empty", "error"]))
            if table.column("error").null_count == table.num_rows:
                yield _described(table, [by_id[image_id] for image_id in table.column("image_id").to_pylist()])

    data = encode_part(readable(), PACKED_SCHEMA)
    counted = pa.concat_tables(tables)
    errors = tuple(counted.column("error").drop_null().to_pylist())
    overlap_px, n_empty = (sum(counted.column(column).to_pylist()) for column in ("overlap_px", "n_empty"))
    if errors:
        return _PartDone(None, overlap_px, n_empty, errors)
    try:
        write_bytes(output / name, data, durable=True)
    except OutputError as error:  # as a value: Ray would wrap the exception and lose its type
        return error
    return _PartDone(Part(name, len(data), hashlib.sha256(data).hexdigest()), overlap_px, n_empty, ())


def _described(table: pa.Table, samples: Sequence[Sample]) -> pa.Table:
    """Add group and fold to the rows of some samples."""
    groups = pa.array([sample.group for sample in samples], pa.string())
    folds = pa.array([sample.fold for sample in samples], pa.int64())
    return table.append_column("group", groups).append_column("fold", folds).select(PACKED_SCHEMA.names)
