"""A training run: from a folder of labelled images to a model bundle with its scores and pictures."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train

from nucseg_ray.config import TrainSettings
from nucseg_ray.errors import MissingInputError, NucsegError, OutputError, UsageError, WeightsError
from nucseg_ray.imaging.augment import Augmentation
from nucseg_ray.imaging.labels import DistanceLabels, ForegroundLabels, LabelVariant
from nucseg_ray.imaging.normalise import FullRange, Normalisation, Percentile
from nucseg_ray.model.architecture import Architecture
from nucseg_ray.model.bundle import MODEL_JSON, REFERENCE, read_arrays, read_bundle, record_metrics, write_bundle
from nucseg_ray.pipelines.crops import CropPlan, Prepared, prepare
from nucseg_ray.pipelines.evaluation import log_scores, write_scores
from nucseg_ray.pipelines.exporting import calibration_crops, default_form, export_bundle, score_forms
from nucseg_ray.pipelines.progress import duration, relayed_board
from nucseg_ray.pipelines.resources import check_room
from nucseg_ray.pipelines.samples import read_samples, refuse_unreadable, report_oddities
from nucseg_ray.pipelines.session import native_stderr_silenced
from nucseg_ray.pipelines.splitting import split_samples
from nucseg_ray.pipelines.train_loop import BEST, HISTORY, PICTURES, LoopPlan, train_worker
from nucseg_ray.report.curves import learning_curves
from nucseg_ray.report.pictures import before_after_picture
from nucseg_ray.storage.atomic import write_bytes, write_json
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import Sample, find_training_set

CHECKPOINTS = "checkpoints"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Trained:
    """What the last checkpoint holds."""

    weights: dict[str, Any]
    pictures: dict[str, Any]
    history: list[dict[str, float]]


def run_train(settings: TrainSettings) -> dict[str, Any]:
    """Train, write everything into the output, and give the validation scores of each form of the network.

    Ray must be running. Into ``output``: the bundle, ``history.csv``, ``learning_curves.png``, ``before_after.png``,
    ``validation/`` (scores, table of images, AP curve), ``settings.json`` and ``checkpoints/``.

    Raises
    ------
    NucsegError
        The data, the weights or the output cannot be used.
    """
    started = time.monotonic()
    output = _fresh_output(settings.output)
    _check_resources(settings)
    variant: LabelVariant = DistanceLabels() if settings.maps == "distance" else ForegroundLabels()
    normalisation: Normalisation = Percentile() if settings.normalisation == "percentile" else FullRange()
    architecture = Architecture(map_names=variant.map_names)
    found = find_training_set(Location(settings.data), index=_optional(settings.index))
    train, validation = split_samples(
        found.samples, fold=settings.validation_fold, fraction=settings.validation_fraction, seed=settings.seed
    )
    if len(validation) < settings.workers:
        raise UsageError(
            f"--workers {settings.workers}: expected a validation image for each, found {len(validation)}; add images, "
            "or lower --workers"
        )
    logger.info(
        "%s: %s; %d images to train on, %d to validate on", found.root, found.layout, len(train), len(validation)
    )
    # A download that fails should fail before the images are read.
    weights = _initial_weights(architecture, settings)
    prepared = [
        prepare(read_samples(found.root, side), normalisation=normalisation, labels=variant)
        for side in (train, validation)
    ]
    _report_prepared(prepared)
    write_json(Location(str(output / "settings.json")), settings.model_dump())

    trained = _fit(settings, prepared=prepared, weights=weights, architecture=architecture, variant=variant)
    bundle = write_bundle(
        output,
        trained.weights,
        architecture=architecture,
        normalisation=normalisation,
        labels=variant,
        training={"data": _fingerprint(train), "images": len(train), "settings": settings.model_dump()},
    )
    _write_history(output, trained, variant)
    export_bundle(bundle, calibration=calibration_crops(prepared[0]))
    logger.info("scoring the best weights on %d whole validation images", len(validation))
    by_form = score_forms(read_bundle(output), found.root, validation, settings)
    scores = by_form[REFERENCE]
    write_scores(Location(str(output / "validation")), scores)
    summaries = {form: of_form.summary for form, of_form in by_form.items()}
    default = default_form(summaries)
    record_metrics(output, summaries, default_form=default)
    for form, summary in summaries.items():
        logger.info("%s%s:", form, " (the default on CPUs)" if form == default else "")
        log_scores(summary)
    logger.info("model, curves, pictures and scores are in %s (%s)", output, duration(time.monotonic() - started))
    return summaries


def _fresh_output(name: str) -> Path:
    location = Location(name)
    if not location.is_local:
        raise UsageError(f"--output {name}: expected a local folder, found a URI")
    folder = Path(location.path)
    if (folder / MODEL_JSON).exists():
        raise OutputError(f"{folder}: there is a model already; name another --output, or move that one away")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}); name another --output") from error
    return folder


def _check_resources(settings: TrainSettings) -> None:
    if settings.batch_size % settings.workers:
        raise UsageError(f"--batch-size {settings.batch_size}: not divisible by --workers {settings.workers}")
    if settings.crops_per_epoch < settings.batch_size:
        raise UsageError(
            f"--crops-per-epoch {settings.crops_per_epoch}: less than one batch of --batch-size {settings.batch_size}"
        )
    check_room(process="worker", count=settings.workers, cpus_each=settings.cpus_per_worker, use_gpu=settings.use_gpu)


def _initial_weights(architecture: Architecture, settings: TrainSettings) -> Any:
    """Give a reference to the weights that all workers begin with: built once, so that they are the same."""
    source: str | bytes = settings.encoder_weights
    if source not in ("imagenet", "none"):
        path = Path(settings.encoder_weights).expanduser()
        if not path.is_file():
            raise MissingInputError(f"--encoder-weights {path}: no such file; expected imagenet, none, or a path")
        source = path.read_bytes()
    weights, error = ray.get(_build_weights.remote(architecture, source, settings.seed))
    if error is not None:
        raise WeightsError(error)
    return ray.put(weights)


@ray.remote(num_cpus=1)
def _build_weights(architecture: Architecture, source: str | bytes, seed: int) -> tuple[Any, str | None]:
    from nucseg_ray.model.unet import initial_weights

    try:
        return initial_weights(architecture, encoder=source, seed=seed), None
    except WeightsError as error:  # as a value: Ray would wrap the exception and lose its type
        return None, str(error)


def _report_prepared(prepared: Sequence[Prepared]) -> None:
    refuse_unreadable([error for side in prepared for error in side.errors])
    report_oddities(
        sum(len(side.rows) for side in prepared),
        sum(side.overlap_px for side in prepared),
        sum(side.n_empty for side in prepared),
    )


def _fit(
    settings: TrainSettings,
    *,
    prepared: Sequence[Prepared],
    weights: Any,
    architecture: Architecture,
    variant: LabelVariant,
) -> _Trained:
    # Loaded here: importing it makes the driver load TensorFlow's Keras.
    with native_stderr_silenced():
        from ray.train.tensorflow import TensorflowTrainer

    train, validation = prepared
    steps = settings.crops_per_epoch // settings.batch_size
    with relayed_board() as board:
        plan = LoopPlan(
            architecture=architecture,
            labels=variant,
            weights=weights,
            # Random features would be of no use frozen.
            trains_encoder=settings.encoder_weights == "none",
            train=ray.put(train),
            validation=ray.put(validation),
            crops=CropPlan(
                crops_per_epoch=steps * settings.batch_size,
                crop_px=settings.crop_px,
                seed=settings.seed,
                augmentation=Augmentation(),
            ),
            epochs=settings.epochs,
            steps_per_epoch=steps,
            batch_size=settings.batch_size // settings.workers,
            learning_rate=settings.learning_rate,
            patience=settings.patience,
            threads=settings.threads_per_worker,
            pictures=min(settings.pictures, len(validation.rows)),
            board=board,
        )
        trainer = TensorflowTrainer(
            train_worker,
            train_loop_config={"plan": plan},
            scaling_config=_scaling(settings),
            run_config=_run_config(settings),
        )
        result = trainer.fit()
    if result.checkpoint is None:
        raise NucsegError("training ended without a checkpoint; see the log of its workers")
    with result.checkpoint.as_directory() as folder:
        return _Trained(
            weights=read_arrays(Path(folder) / BEST),
            pictures=read_arrays(Path(folder) / PICTURES),
            history=json.loads((Path(folder) / HISTORY).read_text(encoding="utf-8")),
        )


def _scaling(settings: TrainSettings) -> ray.train.ScalingConfig:
    gpus = {"GPU": 1} if settings.use_gpu else {}
    return ray.train.ScalingConfig(
        num_workers=settings.workers,
        use_gpu=settings.use_gpu,
        resources_per_worker={"CPU": settings.cpus_per_worker, **gpus},
    )


def _run_config(settings: TrainSettings) -> ray.train.RunConfig:
    return ray.train.RunConfig(
        # A name that was used before would make Ray Train resume that run silently.
        name=f"run-{uuid.uuid4().hex[:8]}",
        storage_path=str(Path(Location(settings.output).path) / CHECKPOINTS),
        failure_config=ray.train.FailureConfig(max_failures=settings.max_restarts),
        checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
    )


def _write_history(output: Path, trained: _Trained, variant: LabelVariant) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(trained.history[0]))
    writer.writeheader()
    writer.writerows(trained.history)
    write_bytes(Location(str(output / "history.csv")), text.getvalue().encode())
    write_bytes(Location(str(output / "learning_curves.png")), learning_curves(trained.history))
    shown = trained.pictures
    samples = [
        (image, truth, variant.label(before), variant.label(after))
        for image, truth, before, after in zip(
            shown["image"], shown["labels"], shown["before"], shown["after"], strict=True
        )
    ]
    write_bytes(Location(str(output / "before_after.png")), before_after_picture(samples))


def _fingerprint(samples: Sequence[Sample]) -> str:
    """Tell training sets apart by the names of their images."""
    return hashlib.sha256("\n".join(sample.image_id for sample in samples).encode()).hexdigest()[:16]


def _optional(uri: str | None) -> Location | None:
    return None if uri is None else Location(uri)
