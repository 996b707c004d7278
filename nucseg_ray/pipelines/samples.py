"""Labelled images as a Ray dataset: files fetched many at a time, masks joined, in parallel tasks."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from nucseg_ray.errors import InputError
from nucseg_ray.imaging.codecs import decode_image, decode_mask
from nucseg_ray.imaging.masks import JoinedMasks, join_masks, labels_from_mask
from nucseg_ray.pipelines.rows import array_fields, pack, to_table
from nucseg_ray.pipelines.session import finite_retries
from nucseg_ray.storage.fetch import fetch_locations
from nucseg_ray.storage.labelled_images import Part, TrainingSet, locate
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.packed_sets import open_part

IMAGES_PER_TASK = 8
SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string()),
        pa.field("kind", pa.string()),
        *array_fields("image"),
        *array_fields("labels"),
        pa.field("overlap_px", pa.int64()),
        pa.field("n_empty", pa.int64()),
        pa.field("error", pa.string()),
    ]
)
# What a part of a packed set holds, a row an image.
PACKED_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string()),
        pa.field("group", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("fold", pa.int64()),
        *array_fields("image"),
        *array_fields("labels"),
        pa.field("overlap_px", pa.int64()),
        pa.field("n_empty", pa.int64()),
    ]
)
_PLAN_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("image", pa.string()),
        pa.field("masks", pa.list_(pa.string())),
        pa.field("one_mask", pa.bool_()),
        pa.field("named_in", pa.string()),
    ]
)
logger = logging.getLogger(__name__)


def read_samples(training_set: TrainingSet) -> ray.data.Dataset:
    """Plan to read labelled images, packed or not; nothing is read before the dataset is used.

    One row an image (``SAMPLE_SCHEMA``): the raw image as :func:`decode_image` gives it, the label image, how many
    pixels its masks disputed and how many masks were empty. An image that cannot be read has an ``error`` instead.
    """
    plan = _plan(training_set)
    blocks = (
        _one_block_a_part(plan)
        if training_set.parts
        else [plan.slice(start, IMAGES_PER_TASK) for start in range(0, plan.num_rows, IMAGES_PER_TASK)]
    )
    with finite_retries() as tasks:
        return ray.data.from_arrow(blocks).map_batches(
            _read_plan,
            fn_kwargs={"root": training_set.root, "parts": training_set.parts},
            batch_format="pyarrow",
            batch_size=None,
            **tasks,
        )


def read_here(training_set: TrainingSet) -> Iterator[pa.Table]:
    """Read labelled images in this process, some at a time: the rows of :func:`read_samples`, in order."""
    return _read_plan(_plan(training_set), root=training_set.root, parts=training_set.parts)


def refuse_unreadable(errors: Sequence[str]) -> None:
    """Refuse to go on without some of the images.

    Raises
    ------
    InputError
        There are errors; names the first and counts the others.
    """
    if errors:
        more = f" (and {len(errors) - 1} more images)" if len(errors) > 1 else ""
        raise InputError(f"{errors[0]}{more}; correct or remove what cannot be read")


def report_oddities(images: int, overlap_px: int, n_empty: int) -> None:
    """Log what was odd about the masks, if anything was."""
    if overlap_px or n_empty:
        logger.warning(
            "masks of %d images: %d pixels were claimed twice (they stay with the first mask), %d masks were empty "
            "(left out)",
            images,
            overlap_px,
            n_empty,
        )


def _plan(training_set: TrainingSet) -> pa.Table:
    names = _PLAN_SCHEMA.names
    rows = [{name: getattr(sample, name) for name in names} for sample in training_set.samples]
    return pa.Table.from_pylist(rows, schema=_PLAN_SCHEMA)


def _one_block_a_part(plan: pa.Table) -> list[pa.Table]:
    """Cut a plan so that no part of a packed set is fetched twice."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, part in enumerate(plan.column("image").to_pylist()):
        numbers[part].append(number)
    return [plan.take(numbers[part]) for part in sorted(numbers)]


def _read_plan(plan: pa.Table, *, root: Location, parts: Sequence[Part]) -> Iterator[pa.Table]:
    opened: dict[str, pq.ParquetFile | InputError] = {}
    for start in range(0, plan.num_rows, IMAGES_PER_TASK):
        rows = plan.slice(start, IMAGES_PER_TASK).to_pylist()
        if not parts:
            yield _read_files(rows, root)
            continue
        for name, of_part in groupby(rows, key=lambda row: str(row["image"])):
            if name not in opened:
                # One part is held at a time: they can be large, and rows come part by part.
                opened = {name: _open_part(root, next(part for part in parts if part.name == name))}
            yield _read_packed(list(of_part), opened[name])


def _open_part(root: Location, part: Part) -> pq.ParquetFile | InputError:
    try:
        return open_part(root, part)
    except InputError as error:
        return error


def _read_packed(rows: Sequence[Mapping[str, Any]], part: pq.ParquetFile | InputError) -> pa.Table:
    if isinstance(part, InputError):
        return to_table([_failed(row, part) for row in rows], SAMPLE_SCHEMA)
    numbers = {
        image_id: number for number, image_id in enumerate(part.read(["image_id"]).column("image_id").to_pylist())
    }
    stored = part.read_row_groups(
        [numbers[row["image_id"]] for row in rows],
        columns=[field.name for field in PACKED_SCHEMA if field.name in SAMPLE_SCHEMA.names],
    )
    # The kind may have been given anew, by an index.
    kinds = pa.array([row["kind"] for row in rows], pa.string())
    stored = stored.set_column(stored.schema.get_field_index("kind"), "kind", kinds)
    return stored.append_column("error", pa.nulls(len(rows), pa.string())).select(SAMPLE_SCHEMA.names)


def _read_files(rows: Sequence[Mapping[str, Any]], root: Location) -> pa.Table:
    # All files are fetched through one pool: a nucleus's mask is a few hundred bytes.
    fetched = fetch_locations(locate(root, path) for row in rows for path in (row["image"], *row["masks"]))
    return to_table(
        [_read_one(row, [next(fetched) for _ in range(1 + len(row["masks"]))]) for row in rows], SAMPLE_SCHEMA
    )


def _read_one(row: Mapping[str, Any], files: list[bytes | InputError]) -> dict[str, Any]:
    try:
        image, joined = _decode(row, files)
    except InputError as error:
        return _failed(row, error)
    return {
        "image_id": row["image_id"],
        "kind": row["kind"],
        **pack("image", image),
        **pack("labels", joined.labels),
        "overlap_px": joined.overlap_px,
        "n_empty": joined.n_empty,
        "error": None,
    }


def _failed(row: Mapping[str, Any], error: InputError) -> dict[str, Any]:
    return {
        "image_id": row["image_id"],
        "kind": row["kind"],
        **pack("image", None),
        **pack("labels", None),
        "overlap_px": 0,
        "n_empty": 0,
        "error": f"{row['named_in']}: {error}" if row["named_in"] else str(error),
    }


def _decode(row: Mapping[str, Any], files: list[bytes | InputError]) -> tuple[Any, JoinedMasks]:
    for file in files:
        if isinstance(file, InputError):
            raise file
    data = [file for file in files if isinstance(file, bytes)]
    image = decode_image(data[0], name=row["image"])
    shape = (image.shape[0], image.shape[1])
    masks = [decode_mask(mask, name=path) for mask, path in zip(data[1:], row["masks"], strict=True)]
    for mask, path in zip(masks, row["masks"], strict=True):
        if mask.shape != shape:
            raise InputError(f"{path}: expected a mask of {shape} pixels like {row['image']}, found {mask.shape}")
    if row["one_mask"]:
        labels = labels_from_mask(masks[0])
        return image, JoinedMasks(labels, overlap_px=0, n_empty=int(np.all(labels == 0)))
    return image, join_masks(masks, shape=shape)
