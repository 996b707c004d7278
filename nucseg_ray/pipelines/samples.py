"""Labelled images as a Ray dataset: files fetched many at a time, masks joined, in parallel tasks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from nucseg_ray.errors import InputError
from nucseg_ray.imaging.codecs import JoinedMasks, decode_image, decode_mask, join_masks, labels_from_mask
from nucseg_ray.pipelines.rows import array_fields, pack, to_table
from nucseg_ray.pipelines.session import finite_retries
from nucseg_ray.storage.fetch import fetch_many
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import Sample

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
_PLAN_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("image", pa.string()),
        pa.field("masks", pa.list_(pa.string())),
        pa.field("one_mask", pa.bool_()),
    ]
)
logger = logging.getLogger(__name__)


def read_samples(root: Location, samples: Sequence[Sample]) -> ray.data.Dataset:
    """Plan to read labelled images; nothing is read before the dataset is used.

    One row an image (``SAMPLE_SCHEMA``): the raw image as :func:`decode_image` gives it, the label image, how many
    pixels its masks disputed and how many masks were empty. An image that cannot be read has an ``error`` instead.
    """
    plan = pa.Table.from_pylist(
        [{name: getattr(sample, name) for name in _PLAN_SCHEMA.names} for sample in samples], schema=_PLAN_SCHEMA
    )
    blocks = -(-len(samples) // IMAGES_PER_TASK)
    with finite_retries() as tasks:
        return ray.data.from_arrow(plan, override_num_blocks=blocks).map_batches(
            _read_batch, fn_kwargs={"root": root}, batch_format="pyarrow", batch_size=None, **tasks
        )


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


def _read_batch(plan: pa.Table, *, root: Location) -> pa.Table:
    rows = plan.to_pylist()
    # All files of the block are fetched through one pool: a nucleus's mask is a few hundred bytes.
    paths = [path for row in rows for path in (row["image"], *row["masks"])]
    fetched = fetch_many(root, paths)
    return to_table(
        [_read_one(row, [next(fetched) for _ in range(1 + len(row["masks"]))]) for row in rows], SAMPLE_SCHEMA
    )


def _read_one(row: dict[str, Any], files: list[bytes | InputError]) -> dict[str, Any]:
    head = {"image_id": row["image_id"], "kind": row["kind"]}
    try:
        image, joined = _decode(row, files)
    except InputError as error:
        return {
            **head,
            **pack("image", None),
            **pack("labels", None),
            "overlap_px": 0,
            "n_empty": 0,
            "error": str(error),
        }
    return {
        **head,
        **pack("image", image),
        **pack("labels", joined.labels),
        "overlap_px": joined.overlap_px,
        "n_empty": joined.n_empty,
        "error": None,
    }


def _decode(row: dict[str, Any], files: list[bytes | InputError]) -> tuple[Any, JoinedMasks]:
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
