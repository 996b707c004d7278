"""A training run: from a folder of labelled images to a model bundle with its scores and pictures."""

from __future__ import annotations

import logging
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nucseg_ray.config import TrainSettings
from nucseg_ray.errors import UsageError
from nucseg_ray.imaging.labels import CentreLabels, ForegroundLabels, LabelVariant
from nucseg_ray.imaging.normalise import FullRange, Normalisation, Percentile
from nucseg_ray.model.architecture import Architecture
from nucseg_ray.model.bundle import FLOAT32, REFERENCE, record_metrics, set_labels, write_bundle
from nucseg_ray.pipelines.beginning import Wanted, beginning
from nucseg_ray.pipelines.bundle_forms import (
    actors_of,
    calibration_crops,
    default_form,
    export_bundle,
    score_forms,
)
from nucseg_ray.pipelines.crops import Prepared, prepare
from nucseg_ray.pipelines.evaluation import log_scores, write_scores
from nucseg_ray.pipelines.fitting import Network, fit
from nucseg_ray.pipelines.mlflow_log import NoLog, open_log
from nucseg_ray.pipelines.progress import duration
from nucseg_ray.pipelines.resources import check_room
from nucseg_ray.pipelines.samples import read_samples, refuse_unreadable, report_oddities
from nucseg_ray.pipelines.splitting import log_split, split_training_data
from nucseg_ray.pipelines.training_output import (
    TrainingRecord,
    check_same_images,
    earlier_training,
    fingerprint,
    finished_scores,
    publish_bundle,
    record_training,
    write_history,
)
from nucseg_ray.pipelines.tuning import tune_labels
from nucseg_ray.storage.lease import Lease
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import Sample

logger = logging.getLogger(__name__)


def run_train(settings: TrainSettings) -> dict[str, Any]:
    """Train, write everything into the output, and give the validation scores of each form of the network.

    Ray must be running. Into ``output``, a folder or any URI: the bundle (``model.json`` last), ``history.csv``,
    ``learning_curves.png``, ``before_after.png``, ``validation/`` (scores, table of images, AP curve),
    ``tensorboard/``, ``settings.json``, ``training.json`` and ``checkpoints/``. With ``resume``, a training that was
    broken off there goes on from its last checkpoint.

    Raises
    ------
    NucsegError
        The data, the weights or the output cannot be used.
    """
    started = time.monotonic()
    output = Location(settings.output)
    _check_resources(settings)
    finished = finished_scores(output, settings)
    if finished is not None:
        return finished
    with Lease(output) as lease, open_log(settings.mlflow) as log:
        earlier = earlier_training(output, settings)
        summaries = _train(settings, output=output, earlier=earlier, lease=lease, log=log)
    logger.info("model, curves, pictures and scores are in %s (%s)", output, duration(time.monotonic() - started))
    return summaries


def _train(
    settings: TrainSettings, *, output: Location, earlier: TrainingRecord | None, lease: Lease, log: NoLog
) -> dict[str, Any]:
    variant: LabelVariant = CentreLabels() if settings.maps == "centres" else ForegroundLabels()
    normalisation: Normalisation = Percentile() if settings.normalisation == "percentile" else FullRange()
    architecture = Architecture(map_names=variant.map_names)
    split = split_training_data(settings)
    train, validation = split.train.samples, split.validation.samples
    _check_validation(settings, validation)
    log_split(split)
    sides = {"train": fingerprint(train), "validation": fingerprint(validation)}
    if earlier is not None:
        check_same_images(output, earlier, **sides)
    # A download that fails should fail before the images are read.
    wanted = Wanted(architecture, normalisation, settings.nucleus_diameter_px, variant)
    begun = beginning(wanted, named=settings.encoder_weights, seed=settings.seed, whole=settings.keep == "mean")
    prepared = [prepare(read_samples(side), normalisation=normalisation) for side in (split.train, split.validation)]
    _report_prepared(prepared)
    log.begin(settings, earlier=earlier.mlflow_run if earlier else None)
    run = earlier.run if earlier else f"run-{uuid.uuid4().hex[:8]}"
    record_training(output, settings, TrainingRecord(run=run, mlflow_run=log.run_id, **sides))

    network = Network(architecture, begun.labels, begun.weights)
    trained = fit(settings, run=run, network=network, prepared=prepared, on_epoch=log.epoch)
    write_history(output, trained.history, trained.pictures, begun.labels)
    with tempfile.TemporaryDirectory() as folder:
        # Made in a local folder, and published when nothing can fail any more.
        bundle = write_bundle(
            Path(folder),
            trained.weights,
            architecture=architecture,
            normalisation=normalisation,
            diameter_px=settings.nucleus_diameter_px,
            labels=begun.labels,
            training={"data": sides["train"], "images": len(train), "settings": settings.model_dump()},
        )
        bundle = export_bundle(
            bundle, calibration=calibration_crops(prepared[0], diameter_px=settings.nucleus_diameter_px)
        )
        labels = tune_labels(bundle, split.train, prepared[0].images, actors=actors_of(settings, form=FLOAT32))
        bundle = set_labels(bundle.folder, labels)
        logger.info("scoring the weights kept on %d whole validation images", len(validation))
        by_form = score_forms(bundle, split.validation, settings)
        write_scores(output / "validation", by_form[REFERENCE])
        summaries = {form: of_form.summary for form, of_form in by_form.items()}
        default = default_form(summaries)
        record_metrics(bundle.folder, summaries, default_form=default)
        log.finish(trained.history, summaries)
        lease.check()
        publish_bundle(output, bundle)
    _log_summaries(summaries, default)
    return summaries


def _log_summaries(summaries: Mapping[str, Mapping[str, Any]], default: str) -> None:
    for form, summary in summaries.items():
        logger.info("%s%s:", form, " (the default on CPUs)" if form == default else "")
        log_scores(summary)


def _check_resources(settings: TrainSettings) -> None:
    if settings.batch_size % settings.workers:
        raise UsageError(f"--batch-size {settings.batch_size}: not divisible by --workers {settings.workers}")
    if settings.crops_per_epoch < settings.batch_size:
        raise UsageError(
            f"--crops-per-epoch {settings.crops_per_epoch}: less than one batch of --batch-size {settings.batch_size}"
        )
    check_room(process="worker", count=settings.workers, cpus_each=settings.cpus_per_worker, use_gpu=settings.use_gpu)


def _check_validation(settings: TrainSettings, validation: Sequence[Sample]) -> None:
    if len(validation) < settings.workers:
        raise UsageError(
            f"--workers {settings.workers}: expected a validation image for each, found {len(validation)}; add images, "
            "or lower --workers"
        )


def _report_prepared(prepared: Sequence[Prepared]) -> None:
    refuse_unreadable([error for side in prepared for error in side.errors])
    report_oddities(
        sum(len(side.images) for side in prepared),
        sum(side.overlap_px for side in prepared),
        sum(side.n_empty for side in prepared),
    )
