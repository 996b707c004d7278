"""The training crops: prepared images in the object store, drawn, cut and augmented by seeded tasks.

Which image a crop shows, and how it is changed, depends on the run's seed, the epoch and the number of the crop within
it, and on nothing else: not on the layout of blocks, not on which task ran first, not on the number of workers, not on
a restart. Each worker asks for its batches by number, a few ahead: plain Ray tasks. (Ray Data's split stream gave the
same crops, but to whichever worker came first, and its coordinator took half a core of two.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray

from nucseg_ray.imaging.augment import Augmentation, centre_crop, crop
from nucseg_ray.imaging.codecs import as_rgb
from nucseg_ray.imaging.labels import LabelVariant
from nucseg_ray.imaging.normalise import Normalisation
from nucseg_ray.pipelines.rows import array_fields, pack, to_table, unpack
from nucseg_ray.pipelines.session import MOST_RETRIES

BATCHES_AHEAD = 4
_PREPARED_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string()),
        pa.field("kind", pa.string()),
        *array_fields("image"),
        *array_fields("targets"),
        *array_fields("labels"),
        pa.field("overlap_px", pa.int64()),
        pa.field("n_empty", pa.int64()),
        pa.field("error", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Normalised images and their targets, in the object store.

    ``blocks`` refer to tables of ``_PREPARED_SCHEMA``; ``rows`` finds each image in them, sorted by id, with its kind.
    """

    blocks: tuple[Any, ...]
    rows: tuple[tuple[str, str, int, int], ...]
    overlap_px: int
    n_empty: int
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CropPlan:
    """How the crops of every epoch are drawn."""

    crops_per_epoch: int
    crop_px: int
    seed: int
    augmentation: Augmentation


@dataclass(frozen=True, slots=True)
class Share:
    """The part of each batch that one worker takes: ``size`` crops, ``rank`` of ``workers``."""

    size: int
    rank: int
    workers: int

    def crops(self, step: int) -> range:
        """Give the numbers of the worker's crops in a step."""
        first = (step * self.workers + self.rank) * self.size
        return range(first, first + self.size)


def prepare(samples: ray.data.Dataset, *, normalisation: Normalisation, labels: LabelVariant) -> Prepared:
    """Normalise the images and build their targets, once; keep both in the object store."""
    prepared = samples.map_batches(
        _prepare_batch,
        fn_kwargs={"normalisation": normalisation, "variant": labels},
        batch_format="pyarrow",
        batch_size=None,
    ).materialize()
    blocks = prepared.to_arrow_refs()
    summaries = ray.get([_summarise.remote(block) for block in blocks])
    rows = sorted(
        (image_id, kind, block, row)
        for block, summary in enumerate(summaries)
        for image_id, kind, row in summary["rows"]
    )
    return Prepared(
        blocks=tuple(blocks),
        rows=tuple(rows),
        overlap_px=sum(summary["overlap_px"] for summary in summaries),
        n_empty=sum(summary["n_empty"] for summary in summaries),
        errors=tuple(error for summary in summaries for error in summary["errors"]),
    )


def crop_batches(
    prepared: Any, plan: CropPlan, share: Share, *, first_step: int, steps: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Give one worker's share of every batch from ``first_step`` to before ``steps``: images and targets.

    ``prepared`` is a reference to a :class:`Prepared`. Tasks draw some batches ahead. The shares of all workers make up
    the same batch whatever their number.
    """
    ahead: deque[Any] = deque()
    for step in range(first_step, steps):
        ahead.append(_render.remote(prepared, plan, share.crops(step)))
        if len(ahead) > BATCHES_AHEAD:
            yield ray.get(ahead.popleft())
    while ahead:
        yield ray.get(ahead.popleft())


def validation_crops(prepared: Prepared, *, crop_px: int, numbers: Iterable[int]) -> tuple[NDArray[Any], ...]:
    """Give the centre crops of some images: images, targets and labels, each stacked."""
    cut = [centre_crop(*_arrays(prepared, number), crop_px=crop_px) for number in numbers]
    image, targets, labels = (np.stack(planes) for planes in zip(*cut, strict=True))
    return image, targets, labels


def draw_epoch(kinds: Sequence[str], *, n_crops: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Draw which image each crop of an epoch shows; ``(n_crops,)`` positions in ``kinds``.

    A kind of image weighs as the square root of its number: a rare kind is seen more often than its share, but not
    so often that its few images are learned by heart. Drawn at even steps through the weights (systematic sampling),
    so that every image comes as often as its weight says, give or take one, and then shuffled.
    """
    rng = np.random.default_rng([seed, epoch])
    _, kind_of, count = np.unique(np.asarray(kinds), return_inverse=True, return_counts=True)
    cumulative = np.cumsum(1 / np.sqrt(count[kind_of]))
    steps = (np.arange(n_crops) + rng.random()) * cumulative[-1] / n_crops
    drawn = np.minimum(np.searchsorted(cumulative, steps, side="right"), len(kinds) - 1)
    rng.shuffle(drawn)
    return drawn


def _prepare_batch(table: pa.Table, *, normalisation: Normalisation, variant: LabelVariant) -> pa.Table:
    rows = []
    for row, image_id in enumerate(table.column("image_id").to_pylist()):
        image, labels = unpack("image", table, row), unpack("labels", table, row)
        normalised = targets = None
        if image is not None and labels is not None:
            # 8 bits of the normalised range are finer than any noise, and a quarter of float32.
            normalised = as_rgb(np.rint(normalisation.normalise(image) * 255).astype(np.uint8))
            targets = variant.targets(labels)
        rows.append(
            {
                "image_id": image_id,
                **{name: table.column(name)[row].as_py() for name in ("kind", "overlap_px", "n_empty", "error")},
                **pack("image", normalised),
                **pack("targets", targets),
                **pack("labels", labels),
            }
        )
    return to_table(rows, _PREPARED_SCHEMA)


@ray.remote(num_cpus=0)
def _summarise(block: pa.Table) -> dict[str, Any]:
    ids, kinds, errors = (block.column(name).to_pylist() for name in ("image_id", "kind", "error"))
    return {
        "rows": [(image_id, kinds[row], row) for row, image_id in enumerate(ids) if errors[row] is None],
        "overlap_px": sum(block.column("overlap_px").to_pylist()),
        "n_empty": sum(block.column("n_empty").to_pylist()),
        "errors": [error for error in errors if error is not None],
    }


@ray.remote(num_cpus=1, max_retries=MOST_RETRIES)
def _render(prepared: Prepared, plan: CropPlan, crops: range) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return render(prepared, plan, crops)


def render(prepared: Prepared, plan: CropPlan, crops: Iterable[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw crops by their numbers in the whole run: ``(N, crop_px, crop_px, 3)`` and ``(..., M)`` uint8."""
    kinds = [kind for _, kind, _, _ in prepared.rows]
    drawn: dict[int, NDArray[np.int64]] = {}
    images, targets = [], []
    for number in crops:
        epoch, slot = divmod(number, plan.crops_per_epoch)
        if epoch not in drawn:
            drawn[epoch] = draw_epoch(kinds, n_crops=plan.crops_per_epoch, seed=plan.seed, epoch=epoch)
        image, target, _ = _arrays(prepared, int(drawn[epoch][slot]))
        rng = np.random.default_rng([plan.seed, epoch, slot])
        pixels, truth = crop(image, target, crop_px=plan.crop_px, augmentation=plan.augmentation, rng=rng)
        images.append(pixels)
        targets.append(truth)
    return np.stack(images), np.stack(targets)


def _arrays(prepared: Prepared, number: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Get image, targets and labels out of the object store; nothing but these is copied."""
    _, _, block, row = prepared.rows[number]
    table = ray.get(prepared.blocks[block])
    image, targets, labels = (unpack(name, table, row) for name in ("image", "targets", "labels"))
    if image is None or targets is None or labels is None:
        raise ValueError(f"{prepared.rows[number][0]}: prepared without its arrays")
    return image, targets, labels
