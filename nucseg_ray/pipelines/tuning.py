"""Label settings, tried on training images: which thresholds suit a network is not known before it is trained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import ray

from nucseg_ray.imaging.labels import LabelVariant
from nucseg_ray.imaging.metrics import Matches, bowl_score, match
from nucseg_ray.model.bundle import Bundle
from nucseg_ray.pipelines.crops import PreparedImage
from nucseg_ray.pipelines.models import ship
from nucseg_ray.pipelines.network import ActorPool, with_maps
from nucseg_ray.pipelines.rows import unpack
from nucseg_ray.pipelines.samples import read_samples, refuse_unreadable
from nucseg_ray.pipelines.session import MOST_RETRIES
from nucseg_ray.storage.labelled_images import TrainingSet

# Whole images, as they will be segmented, and of every kind its share: crops of as many of each kind, at the network's
# own scale, gave settings that lost 0.004 of the Bowl's score on images not seen.
IMAGES, MOST_PIXELS = 256, 100 << 20
# Fewer choose by chance.
FEWEST_IMAGES = 64
ROUNDS = 2
# Less than this is chance: then the setting stays what it was.
LEAST_GAIN = 0.001
logger = logging.getLogger(__name__)

Scorer = Callable[[Sequence[LabelVariant]], Sequence[float]]


def tune_labels(
    bundle: Bundle, train: TrainingSet, images: Sequence[PreparedImage], *, actors: ActorPool
) -> LabelVariant:
    """Give the bundle's label settings at values that the Bowl's score is best with on some training images.

    By few images nothing is chosen: the settings stay as they are.

    Raises
    ------
    InputError
        An image cannot be predicted.
    """
    if len(images) < FEWEST_IMAGES:
        logger.info(
            "label settings as they were: %d training images are too few to choose by (%d)", len(images), FEWEST_IMAGES
        )
        return bundle.labels
    names = set(drawn(images))
    samples = read_samples(train.only(sample for sample in train.samples if sample.image_id in names))
    predicted = with_maps(samples, model=ship(bundle), pool=actors)
    predicted.context.enable_progress_bars = False
    blocks = predicted.materialize().to_arrow_refs()
    errors = ray.get([_errors.remote(block) for block in blocks])
    refuse_unreadable([error for of_block in errors for error in of_block])

    def score(variants: Sequence[LabelVariant]) -> Sequence[float]:
        matches = ray.get([_matches.remote(block, variants) for block in blocks])
        return [bowl_score([image[number] for block in matches for image in block]) for number in range(len(variants))]

    best = choose(bundle.labels, score)
    logger.info("label settings, by %d training images: %s", len(names), _told(best, bundle.labels))
    return best


def drawn(images: Sequence[PreparedImage]) -> list[str]:
    """Draw images evenly through their ids, as many as are enough, or as may be held; at least one."""
    order = np.unique(np.linspace(0, len(images) - 1, min(IMAGES, len(images))).round().astype(int))
    spread = order[np.random.default_rng(0).permutation(order.size)]
    held = np.cumsum([images[number].n_px for number in spread]) <= MOST_PIXELS
    held[0] = True
    return [images[number].image_id for number in spread[held]]


def choose(start: LabelVariant, score: Scorer) -> LabelVariant:
    """Bring one setting after the other to the best of the values that are tried, if that gains enough.

    Twice, as they depend on each other: which nuclei are certain enough depends on the threshold.
    """
    best = start
    for _ in range(ROUNDS):
        before = best
        for name, values in start.tried.items():
            others = [replace(best, **{name: value}) for value in values if value != getattr(best, name)]
            scores = score([best, *others])
            highest = int(np.argmax(scores))
            if scores[highest] >= scores[0] + LEAST_GAIN:
                best = others[highest - 1]
        if best == before:
            break
    return best


@ray.remote(num_cpus=0)
def _errors(block: pa.Table) -> list[str]:
    return [error for error in block.column("error").to_pylist() if error is not None]


@ray.remote(num_cpus=1, max_retries=MOST_RETRIES)
def _matches(block: pa.Table, variants: Sequence[LabelVariant]) -> list[list[Matches]]:
    """Match each image's truth with its labels by each variant."""
    found = []
    for row in range(block.num_rows):
        truth, maps = unpack("labels", block, row), unpack("maps", block, row)
        if truth is not None and maps is not None:
            scale = block.column("scale")[row].as_py()
            found.append([match(truth, variant.label(maps, scale=scale)) for variant in variants])
    return found


def _told(best: LabelVariant, before: LabelVariant) -> str:
    values = ((name, getattr(best, name), getattr(before, name)) for name in best.tried)
    return ", ".join(f"{name} {now}" + (f" (was {then})" if now != then else "") for name, now, then in values)
