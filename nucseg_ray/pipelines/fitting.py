"""Ray Train: workers that train one network together, with checkpoints in the output, wherever that is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs
import ray
import ray.train

from nucseg_ray.config import TrainSettings
from nucseg_ray.errors import NucsegError
from nucseg_ray.imaging.augment import Augmentation
from nucseg_ray.imaging.labels import LabelVariant
from nucseg_ray.model.architecture import Architecture
from nucseg_ray.model.bundle import read_arrays
from nucseg_ray.pipelines.crops import CropPlan, Prepared
from nucseg_ray.pipelines.native_stderr import native_stderr_silenced
from nucseg_ray.pipelines.progress import OnEpoch, relayed_board
from nucseg_ray.pipelines.train_loop import HISTORY, KEPT, PICTURES, LoopPlan, train_worker
from nucseg_ray.pipelines.training_output import CHECKPOINTS, TENSORBOARD
from nucseg_ray.storage.locations import Location


@dataclass(frozen=True, slots=True)
class Network:
    """What is trained: ``weights`` refers to those that all workers begin with."""

    architecture: Architecture
    variant: LabelVariant
    weights: Any


@dataclass(frozen=True, slots=True)
class Trained:
    """What the last checkpoint holds."""

    weights: dict[str, Any]
    pictures: dict[str, Any]
    history: list[dict[str, float]]


def fit(
    settings: TrainSettings, *, run: str, network: Network, prepared: Sequence[Prepared], on_epoch: OnEpoch
) -> Trained:
    """Train; a ``run`` of a name that has checkpoints in the output goes on from the last.

    ``prepared`` are the images to train and to validate on. ``on_epoch`` is called in this process with each new row of
    the history.
    """
    # Loaded here: importing it makes the driver load TensorFlow's Keras.
    with native_stderr_silenced():
        from ray.train.tensorflow import TensorflowTrainer

    with relayed_board(on_epoch) as board:
        trainer = TensorflowTrainer(
            train_worker,
            train_loop_config={"plan": _plan(settings, network=network, prepared=prepared, board=board)},
            scaling_config=_scaling(settings),
            run_config=_run_config(settings, run),
        )
        result = trainer.fit()
    if result.checkpoint is None:
        raise NucsegError("training ended without a checkpoint; see the log of its workers")
    with result.checkpoint.as_directory() as folder:
        return Trained(
            weights=read_arrays(Path(folder) / KEPT),
            pictures=read_arrays(Path(folder) / PICTURES),
            history=json.loads((Path(folder) / HISTORY).read_text(encoding="utf-8")),
        )


def _plan(settings: TrainSettings, *, network: Network, prepared: Sequence[Prepared], board: Any) -> LoopPlan:
    train, validation = prepared
    steps = settings.crops_per_epoch // settings.batch_size
    from_scratch = settings.encoder_weights == "none"
    return LoopPlan(
        architecture=network.architecture,
        labels=network.variant,
        weights=network.weights,
        from_scratch=from_scratch,
        train=ray.put(train),
        validation=ray.put(validation),
        crops=CropPlan(
            crops_per_epoch=steps * settings.batch_size,
            crop_px=settings.crop_px,
            diameter_px=settings.nucleus_diameter_px,
            labels=network.variant,
            seed=settings.seed,
            augmentation=Augmentation(),
        ),
        epochs=settings.epochs + settings.finetune_epochs,
        # Random features would be of no use frozen.
        frozen_epochs=0 if from_scratch else settings.epochs,
        steps_per_epoch=steps,
        batch_size=settings.batch_size // settings.workers,
        learning_rate=settings.learning_rate,
        encoder_share=1.0 if from_scratch else settings.encoder_rate,
        patience=settings.patience,
        keep=settings.keep,
        threads=settings.threads_per_worker,
        pictures=min(settings.pictures, len(validation.images)),
        tensorboard=Location(settings.output) / TENSORBOARD,
        board=board,
    )


def _scaling(settings: TrainSettings) -> ray.train.ScalingConfig:
    gpus = {"GPU": 1} if settings.use_gpu else {}
    return ray.train.ScalingConfig(
        num_workers=settings.workers,
        use_gpu=settings.use_gpu,
        resources_per_worker={"CPU": settings.cpus_per_worker, **gpus},
    )


def _run_config(settings: TrainSettings, run: str) -> ray.train.RunConfig:
    checkpoints = Location(settings.output) / CHECKPOINTS
    # Not Arrow's own S3 client: it looks for credentials and endpoints in other places than everything else here.
    remote = None if checkpoints.is_local else pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(checkpoints.fs))
    return ray.train.RunConfig(
        # With the name of an earlier run, Ray Train goes on with it.
        name=run,
        storage_path=checkpoints.path,
        storage_filesystem=remote,
        failure_config=ray.train.FailureConfig(max_failures=settings.max_restarts),
        checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
    )
