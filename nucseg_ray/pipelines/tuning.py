"""Label settings, tried on training images: which thresholds suit a network is not known before it is trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray

from nucseg_ray.imaging.augment import Crop
from nucseg_ray.imaging.labels import LabelVariant
from nucseg_ray.imaging.metrics import bowl_score, match
from nucseg_ray.model.bundle import FLOAT32, REFERENCE, Bundle
from nucseg_ray.pipelines.bundle_forms import spread_over_kinds
from nucseg_ray.pipelines.crops import Prepared, validation_crops
from nucseg_ray.pipelines.models import ModelFiles, ship

IMAGES = 128
# Less than this is chance: then the setting stays what it was.
LEAST_GAIN = 0.001
logger = logging.getLogger(__name__)


def tune_labels(bundle: Bundle, prepared: Prepared, *, crop_px: int) -> LabelVariant:
    """Give the bundle's label settings, each at the value that the Bowl's score is best with on some training images.

    One setting after the other is varied, the others as they are: they hardly depend on each other.
    """
    chosen = spread_over_kinds([image.kind for image in prepared.images], about=IMAGES)
    crops = validation_crops(prepared, crop_px=crop_px, diameter_px=bundle.diameter_px, numbers=chosen)
    candidates = [bundle.labels, *neighbours(bundle.labels)]
    scores = ray.get(_scores.remote(ship(bundle), bundle.forms, crops, candidates))
    best = choose(bundle.labels, dict(zip(candidates, scores, strict=True)))
    logger.info("label settings, by %d training images: %s", len(crops), _told(best, bundle.labels))
    return best


def neighbours(variant: LabelVariant) -> list[LabelVariant]:
    """Give the variants that differ from one in the value of a single setting."""
    return [
        replace(variant, **{name: value})
        for name, values in variant.tried.items()
        for value in values
        if value != getattr(variant, name)
    ]


def choose(start: LabelVariant, scores: dict[LabelVariant, float]) -> LabelVariant:
    """Put together the best value of each setting that gains enough on the start."""
    best: dict[str, Any] = {}
    for name in start.tried:
        of_setting = {
            getattr(variant, name): score
            for variant, score in scores.items()
            if replace(variant, **{name: getattr(start, name)}) == start
        }
        value = max(of_setting, key=lambda value: of_setting[value])
        if of_setting[value] >= of_setting[getattr(start, name)] + LEAST_GAIN:
            best[name] = value
    return replace(start, **best)


@ray.remote(num_cpus=1)
def _scores(
    files: ModelFiles, forms: Sequence[str], crops: Sequence[Crop], variants: Sequence[LabelVariant]
) -> list[float]:
    from nucseg_ray.model.bundle import read_bundle
    from nucseg_ray.model.predictor import load_predictor

    form = FLOAT32 if FLOAT32 in forms else REFERENCE
    network = load_predictor(read_bundle(files.folder()), form=form, threads=1)
    matches: list[list[Any]] = [[] for _ in variants]
    for crop in crops:
        maps = network.predict(crop.pixels[np.newaxis].astype(np.float32) / np.float32(255))[0]
        planes = np.rint(maps * 255).astype(np.uint8)
        for found, variant in zip(matches, variants, strict=True):
            found.append(match(crop.labels, np.where(crop.inside, variant.label(planes), 0)))
    files.discard()
    return [bowl_score(found) for found in matches]


def _told(best: LabelVariant, before: LabelVariant) -> str:
    values = ((name, getattr(best, name), getattr(before, name)) for name in best.tried)
    return ", ".join(f"{name} {now}" + (f" (was {then})" if now != then else "") for name, now, then in values)
