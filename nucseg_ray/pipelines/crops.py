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

from nucseg_ray.imaging.augment import Augmentation, Crop, Subject, centre_crop, random_crop
from nucseg_ray.imaging.codecs import as_rgb
from nucseg_ray.imaging.diameters import nuclei_of, typical_diameter
from nucseg_ray.imaging.labels import LabelVariant
from nucseg_ray.imaging.normalise import Normalisation
from nucseg_ray.imaging.targets import training_targets
from nucseg_ray.pipelines.rows import array_fields, pack, to_table, unpack
from nucseg_ray.pipelines.session import MOST_RETRIES

BATCHES_AHEAD = 4
# An image counts more than another if it has more to show, up to so many crops, but not in proportion.
MOST_CROPS, SIZE_POWER = 16.0, 0.25
# Where no image shows a nucleus, all are taken as they are.
_NO_DIAMETER_PX = 30.0
_PREPARED_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string()),
        pa.field("kind", pa.string()),
        *array_fields("image"),
        *array_fields("labels"),
        *array_fields("nuclei"),
        pa.field("diameter_px", pa.float64()),
        pa.field("n_px", pa.int64()),
        pa.field("overlap_px", pa.int64()),
        pa.field("n_empty", pa.int64()),
        pa.field("error", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, order=True)
class PreparedImage:
    """Where a prepared image is found, and what is known of it without looking.

    ``diameter_px`` is the typical one of its nuclei; of an image without any, that of the other images.
    """

    image_id: str
    kind: str
    block: int
    row: int
    diameter_px: float
    n_px: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """Normalised images and their nuclei, in the object store.

    ``blocks`` refer to tables of ``_PREPARED_SCHEMA``; ``images`` are sorted by id.
    """

    blocks: tuple[Any, ...]
    images: tuple[PreparedImage, ...]
    overlap_px: int
    n_empty: int
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CropPlan:
    """How the crops of every epoch are drawn, and what the network is to answer for them.

    ``diameter_px`` is the diameter that nuclei are brought to.
    """

    crops_per_epoch: int
    crop_px: int
    diameter_px: float
    labels: LabelVariant
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


def prepare(samples: ray.data.Dataset, *, normalisation: Normalisation) -> Prepared:
    """Normalise the images and measure their nuclei, once; keep both in the object store."""
    prepared = samples.map_batches(
        _prepare_batch, fn_kwargs={"normalisation": normalisation}, batch_format="pyarrow", batch_size=None
    ).materialize()
    blocks = prepared.to_arrow_refs()
    summaries = ray.get([_summarise.remote(block) for block in blocks])
    found = [image["diameter_px"] for summary in summaries for image in summary["images"]]
    usual = float(np.median([diameter for diameter in found if diameter] or [_NO_DIAMETER_PX]))
    images = sorted(
        PreparedImage(block=block, **{**image, "diameter_px": image["diameter_px"] or usual})
        for block, summary in enumerate(summaries)
        for image in summary["images"]
    )
    return Prepared(
        blocks=tuple(blocks),
        images=tuple(images),
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


def validation_crops(prepared: Prepared, *, crop_px: int, diameter_px: float, numbers: Iterable[int]) -> list[Crop]:
    """Give the middle of some images, their nuclei brought to a diameter."""
    return [centre_crop(_subject(prepared, number), crop_px=crop_px, diameter_px=diameter_px) for number in numbers]


def image_weights(images: Sequence[PreparedImage], *, crop_px: int, diameter_px: float) -> NDArray[np.float64]:
    """Say how often each image is to be drawn, relative to the others: ``(N,)``.

    A kind of image weighs as the square root of its number: a rare kind is seen more often than its share, but not
    so often that its few images are learned by heart. Within a kind, images weigh by what there is to see.
    """
    _, kind_of, count = np.unique([image.kind for image in images], return_inverse=True, return_counts=True)
    n_px = np.array([image.n_px * (diameter_px / image.diameter_px) ** 2 for image in images])
    return np.clip(n_px / crop_px**2, 1, MOST_CROPS) ** SIZE_POWER / np.sqrt(count[kind_of])


def draw_epoch(weights: NDArray[np.float64], *, n_crops: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Draw which image each crop of an epoch shows; ``(n_crops,)`` positions in ``weights``.

    Drawn at even steps through the weights (systematic sampling), so that every image comes as often as its weight
    says, give or take one, and then shuffled.
    """
    rng = np.random.default_rng([seed, epoch])
    cumulative = np.cumsum(weights)
    steps = (np.arange(n_crops) + rng.random()) * cumulative[-1] / n_crops
    drawn = np.minimum(np.searchsorted(cumulative, steps, side="right"), len(weights) - 1)
    rng.shuffle(drawn)
    return drawn


def _prepare_batch(table: pa.Table, *, normalisation: Normalisation) -> pa.Table:
    rows = []
    for row, image_id in enumerate(table.column("image_id").to_pylist()):
        image, labels = unpack("image", table, row), unpack("labels", table, row)
        normalised = nuclei = diameter = None
        if image is not None and labels is not None:
            # 8 bits of the normalised range are finer than any noise, and a quarter of float32.
            normalised = as_rgb(np.rint(normalisation.normalise(image) * 255).astype(np.uint8))
            nuclei = nuclei_of(labels)
            diameter = typical_diameter(nuclei[:, 2])
            # What OpenCV can warp; both hold every number exactly.
            labels = labels.astype(np.uint16 if len(nuclei) <= 1 << 16 else np.float32)
        rows.append(
            {
                "image_id": image_id,
                **{name: table.column(name)[row].as_py() for name in ("kind", "overlap_px", "n_empty", "error")},
                **pack("image", normalised),
                **pack("labels", labels),
                **pack("nuclei", nuclei),
                "diameter_px": diameter,
                "n_px": None if labels is None else labels.size,
            }
        )
    return to_table(rows, _PREPARED_SCHEMA)


@ray.remote(num_cpus=0)
def _summarise(block: pa.Table) -> dict[str, Any]:
    known = block.select(["image_id", "kind", "diameter_px", "n_px"]).to_pylist()
    errors = block.column("error").to_pylist()
    return {
        "images": [{**image, "row": row} for row, image in enumerate(known) if errors[row] is None],
        "overlap_px": sum(block.column("overlap_px").to_pylist()),
        "n_empty": sum(block.column("n_empty").to_pylist()),
        "errors": [error for error in errors if error is not None],
    }


@ray.remote(num_cpus=1, max_retries=MOST_RETRIES)
def _render(prepared: Prepared, plan: CropPlan, crops: range) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return render(prepared, plan, crops)


def render(prepared: Prepared, plan: CropPlan, crops: Iterable[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw crops by their numbers in the whole run.

    Gives pixels ``(N, crop_px, crop_px, 3)`` and targets ``(N, crop_px, crop_px, maps + 2)``, both uint8.
    """
    weights = image_weights(prepared.images, crop_px=plan.crop_px, diameter_px=plan.diameter_px)
    drawn: dict[int, NDArray[np.int64]] = {}
    pixels, targets = [], []
    for number in crops:
        epoch, slot = divmod(number, plan.crops_per_epoch)
        if epoch not in drawn:
            drawn[epoch] = draw_epoch(weights, n_crops=plan.crops_per_epoch, seed=plan.seed, epoch=epoch)
        crop = random_crop(
            _subject(prepared, int(drawn[epoch][slot])),
            crop_px=plan.crop_px,
            diameter_px=plan.diameter_px,
            augmentation=plan.augmentation,
            rng=np.random.default_rng([plan.seed, epoch, slot]),
        )
        pixels.append(crop.pixels)
        targets.append(training_targets(crop, plan.labels))
    return np.stack(pixels), np.stack(targets)


def _subject(prepared: Prepared, number: int) -> Subject:
    """Get an image out of the object store; nothing but it is copied."""
    found = prepared.images[number]
    table = ray.get(prepared.blocks[found.block])
    image, labels, nuclei = (unpack(name, table, found.row) for name in ("image", "labels", "nuclei"))
    if image is None or labels is None or nuclei is None:
        raise ValueError(f"{found.image_id}: prepared without its arrays")
    return Subject(image, labels, nuclei, found.diameter_px)
