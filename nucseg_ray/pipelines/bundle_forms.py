"""After training: the network in the forms that CPUs run, each with its scores, and which of them is the default."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from nucseg_ray.config import TrainSettings
from nucseg_ray.imaging.intensity import empty_pixels
from nucseg_ray.model.bundle import FORMS, REFERENCE, Bundle, add_forms
from nucseg_ray.model.predictor import runs_here
from nucseg_ray.pipelines.crops import Prepared, validation_crops
from nucseg_ray.pipelines.evaluation import Scores, score_model
from nucseg_ray.pipelines.models import ship
from nucseg_ray.pipelines.network import ActorPool
from nucseg_ray.pipelines.samples import read_samples
from nucseg_ray.storage.training_sets import TrainingSet

CALIBRATION_IMAGES, CALIBRATION_EMPTY = 48, 16
CALIBRATION_PX = 256
# A faster form may lose so much mean AP, over all thresholds, on any kind of image.
TOLERATED_LOSS = 0.005
logger = logging.getLogger(__name__)


def calibration_crops(prepared: Prepared, *, diameter_px: float) -> NDArray[np.uint8]:
    """Give the centres of some training images, of every kind, and empty ones: ``(N, 256, 256, 3)`` uint8, normalised.

    Without empty ones, a network of integers saw a nucleus in smooth noise where the reference sees none.
    """
    chosen = spread_over_kinds([image.kind for image in prepared.images], about=CALIBRATION_IMAGES)
    crops = validation_crops(prepared, crop_px=CALIBRATION_PX, diameter_px=diameter_px, numbers=chosen)
    empty = [empty_pixels(CALIBRATION_PX, np.random.default_rng(seed)) for seed in range(CALIBRATION_EMPTY)]
    return np.stack([*(crop.pixels for crop in crops), *empty])


def spread_over_kinds(kinds: Sequence[str], *, about: int) -> list[int]:
    """Choose as many of each kind, spread over them in order, as make about so many; of a rare kind, all.

    Examples
    --------
    >>> spread_over_kinds(["a", "a", "b", "a", "a", "a"], about=4)
    [0, 5, 2]
    """
    by_kind: dict[str, list[int]] = defaultdict(list)
    for number, kind in enumerate(kinds):
        by_kind[kind].append(number)
    share = -(-about // len(by_kind))
    return [
        numbers[i]
        for numbers in by_kind.values()
        for i in np.unique(np.linspace(0, len(numbers) - 1, share).round().astype(int))
    ]


def export_bundle(bundle: Bundle, *, calibration: NDArray[np.uint8]) -> Bundle:
    """Add the forms that CPUs run to a bundle; a worker makes them, since that takes TensorFlow."""
    files = ray.get(_export.remote(bundle.architecture, bundle.weights(), calibration))
    exported = add_forms(bundle.folder, files)
    if set(exported.forms) != set(FORMS):
        logger.warning("NNCF is not installed, so the bundle has no int8 form; install nucseg_ray[int8] for it")
    return exported


def score_forms(bundle: Bundle, validation: TrainingSet, settings: TrainSettings) -> dict[str, Scores]:
    """Score the reference, and each form of a bundle that this machine can run, on whole images."""
    able = [form for form in bundle.forms if runs_here(form)]
    if able != list(bundle.forms):
        logger.warning("this processor cannot compute int8 exactly: that form stays unscored, float32 is the default")
    files = ship(bundle)
    read = read_samples(validation)
    read.context.enable_progress_bars = False
    read = read.materialize()  # once, not for each form
    return {form: score_model(bundle, read, actors_of(settings, form=form), files=files) for form in (REFERENCE, *able)}


def actors_of(settings: TrainSettings, *, form: str) -> ActorPool:
    """Give the processes that predict with a form of the network once it is trained: what its workers had."""
    return ActorPool(
        form=form,
        actors=settings.workers,
        cpus=settings.cpus_per_worker,
        threads=settings.threads_per_worker,
        use_gpu=settings.use_gpu and form == REFERENCE,
    )


def default_form(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Choose the fastest form that loses no more than is tolerated on any kind of image, against the reference."""
    for form in reversed(list(FORMS)):
        if form in summaries and all(
            group["mean_ap"] >= summaries[REFERENCE][kind]["mean_ap"] - TOLERATED_LOSS
            for kind, group in summaries[form].items()
        ):
            return form
    return REFERENCE


@ray.remote(num_cpus=1)
def _export(architecture: Any, weights: Any, calibration: NDArray[np.uint8]) -> dict[str, bytes]:
    from nucseg_ray.model.openvino_forms import export_forms

    return export_forms(architecture, weights, [image.astype(np.float32) / 255 for image in calibration])
