"""What each training worker does: steps, a score after every epoch, a checkpoint with the history in it."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray
import ray.train
from numpy.typing import NDArray

from nucseg_ray.imaging.augment import Crop
from nucseg_ray.imaging.labels import LabelVariant
from nucseg_ray.imaging.metrics import THRESHOLDS, Matches, bowl_score, match, pool
from nucseg_ray.imaging.targets import training_targets
from nucseg_ray.model.architecture import Architecture
from nucseg_ray.model.bundle import read_arrays, write_arrays
from nucseg_ray.pipelines.crops import CropPlan, Share, crop_batches, validation_crops
from nucseg_ray.pipelines.progress import duration
from nucseg_ray.storage.atomic import write_bytes
from nucseg_ray.storage.locations import Location

STATE, KEPT, PICTURES, HISTORY = "state.npz", "kept.npz", "pictures.npz", "history.json"
EVALUATION_BATCH = 16
# What the pictures show of a crop.
_SHOWN = {"image": "pixels", "labels": "labels"}
SECONDS_BETWEEN_LINES = 15.0
Batches = Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """Everything a worker needs to know.

    ``weights``, ``train`` and ``validation`` refer to the weights to begin with and to the :class:`Prepared` images.
    Of the ``epochs`` the first ``frozen_epochs`` leave the encoder as it is; it then learns at ``encoder_share`` of the
    learning rate. What is kept is the weights of the ``best`` epoch, of the ``last``, or the ``mean`` of those to begin
    with and those of the last (Wortsman et al. 2022, arXiv:2109.01903). ``batch_size`` is one worker's share; ``board``
    takes lines of progress, the folder ``tensorboard`` event files.
    """

    architecture: Architecture
    labels: LabelVariant
    weights: Any
    from_scratch: bool
    train: Any
    validation: Any
    crops: CropPlan
    epochs: int
    frozen_epochs: int
    steps_per_epoch: int
    batch_size: int
    learning_rate: float
    encoder_share: float
    patience: int
    keep: Literal["best", "last", "mean"]
    threads: int
    pictures: int
    tensorboard: Location
    board: Any


def train_worker(config: dict[str, Any]) -> None:
    """Train on this worker; Ray Train calls it on all of them."""
    # TensorFlow is loaded here, in the worker, and nowhere else in a training run.
    from nucseg_ray.model.replica import Replica, Schedule
    from nucseg_ray.model.threads import limit_threads

    plan: LoopPlan = config["plan"]
    context = ray.train.get_context()
    limit_threads(plan.threads)
    total_steps = plan.epochs * plan.steps_per_epoch
    replica = Replica(
        plan.architecture,
        ray.get(plan.weights),
        schedule=Schedule(
            plan.learning_rate,
            warmup_steps=min(200, total_steps // 10),
            total_steps=total_steps,
            frozen_steps=plan.frozen_epochs * plan.steps_per_epoch,
            encoder_share=plan.encoder_share,
        ),
        n_workers=context.get_world_size(),
        from_scratch=plan.from_scratch,
    )
    validation = _Validation(replica, plan, rank=context.get_world_rank(), n_workers=context.get_world_size())
    share = Share(plan.batch_size, rank=context.get_world_rank(), workers=context.get_world_size())
    _Loop(plan, replica, validation, share).run()


class _Validation:
    """One worker's share of the validation crops, in memory, and the score over all of them."""

    def __init__(self, replica: Any, plan: LoopPlan, *, rank: int, n_workers: int) -> None:
        self._replica = replica
        self._plan = plan
        prepared = ray.get(plan.validation)
        numbers = range(len(prepared.images))
        cut = partial(validation_crops, prepared, crop_px=plan.crops.crop_px, diameter_px=plan.crops.diameter_px)
        self._mine = cut(numbers=numbers[rank::n_workers])
        self._shown = cut(numbers=numbers[: plan.pictures])

    @property
    def shown(self) -> dict[str, NDArray[Any]]:
        """The crops that the pictures show."""
        return {name: np.stack([getattr(crop, of) for crop in self._shown]) for name, of in _SHOWN.items()}

    def predict_shown(self) -> NDArray[np.uint8]:
        """Predict the maps of the crops that the pictures show."""
        maps, _ = self._evaluate(self._shown)
        return maps

    def score(self) -> dict[str, float]:
        """Score the weights shown to the replica; sums over all workers, so every worker must call it."""
        matches: list[Matches] = []
        loss = 0.0
        for start in range(0, len(self._mine), EVALUATION_BATCH):
            crops = self._mine[start : start + EVALUATION_BATCH]
            maps, mean_loss = self._evaluate(crops)
            loss += mean_loss * len(maps)
            for crop, own in zip(crops, maps, strict=True):
                # Beyond the image the picture is mirrored, and its nuclei are in no truth.
                matches.append(match(crop.labels, np.where(crop.inside, self._plan.labels.label(own), 0)))
        pooled = pool(matches) if matches else None
        n_own = len(matches)
        counts = np.concatenate(
            [
                [n_own, loss, bowl_score(matches) * n_own if matches else 0.0],
                *((pooled.tp, pooled.fp, pooled.fn) if pooled else np.zeros((3, len(THRESHOLDS)))),
            ]
        ).astype(np.float64)
        total = self._replica.sum_over_workers(counts)
        n_images, loss_sum, score_sum = total[:3]
        tp, fp, fn = total[3:].reshape(3, -1)[:, 0]
        return {
            "validation_loss": float(loss_sum / n_images),
            "validation_ap50": float(tp / max(1.0, tp + fp + fn)),
            "validation_score": float(score_sum / n_images),
        }

    def _evaluate(self, crops: Sequence[Crop]) -> tuple[NDArray[np.uint8], float]:
        targets = [training_targets(crop, self._plan.labels) for crop in crops]
        maps, loss = self._replica.evaluate(np.stack([crop.pixels for crop in crops]), np.stack(targets))
        return maps, loss


class _Loop:
    """Epochs with their reports; begins where the last checkpoint ended."""

    def __init__(self, plan: LoopPlan, replica: Any, validation: _Validation, share: Share) -> None:
        self._plan = plan
        self._replica = replica
        self._validation = validation
        self._share = share
        self._leads = share.rank == 0
        self._history: list[dict[str, float]] = []
        self._kept: dict[str, NDArray[Any]] | None = None
        self._pictures: dict[str, NDArray[Any]] = {}

    def run(self) -> None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            self._pictures = {**self._validation.shown, "before": self._validation_before()}
        else:
            with checkpoint.as_directory() as folder:
                self._restore(Path(folder))
            self._say(f"going on after epoch {len(self._history)}")
        batches = self._batches()
        for epoch in range(len(self._history) + 1, self._plan.epochs + 1):
            if self._has_stalled():  # asked before an epoch: also one that a restart would begin
                self._say(f"no better score in {self._plan.patience} epochs: stopped early")
                return
            row = self._train_epoch(epoch, batches)
            state = self._replica.state()
            row |= self._score(state)
            self._history.append({**row, "ended_at": time.time()})
            self._report(state)

    def _validation_before(self) -> NDArray[np.uint8]:
        from nucseg_ray.model.replica import network_weights

        self._replica.show(network_weights(self._replica.state()))
        return self._validation.predict_shown()

    def _batches(self) -> Batches:
        per_epoch = self._plan.steps_per_epoch
        return crop_batches(
            self._plan.train,
            self._plan.crops,
            self._share,
            first_step=len(self._history) * per_epoch,
            steps=self._plan.epochs * per_epoch,
        )

    def _train_epoch(self, epoch: int, batches: Batches) -> dict[str, float]:
        started = spoken = time.monotonic()
        losses = []
        waited = 0.0
        for step in range(1, self._plan.steps_per_epoch + 1):
            asked = time.monotonic()
            images, targets = next(batches)
            waited += time.monotonic() - asked
            losses.append(self._replica.train_step(images, targets))
            now = time.monotonic()
            if now - spoken >= SECONDS_BETWEEN_LINES:
                spoken = now
                self._say_step(epoch, step, float(losses[-1]), seconds=now - started)
        return {
            "epoch": epoch,
            "train_loss": float(np.mean([float(loss) for loss in losses])),
            "learning_rate": self._replica.learning_rate,
            "seconds": time.monotonic() - started,
            "waiting_seconds": waited,
        }

    def _score(self, state: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        from nucseg_ray.model.replica import network_weights

        started = time.monotonic()
        weights: dict[str, NDArray[Any]] = dict(network_weights(state))
        if self._plan.keep == "mean":
            weights = {name: (array + weights[name]) / 2 for name, array in ray.get(self._plan.weights).items()}
        self._replica.show(weights)
        scores = self._validation.score()
        best = all(scores["validation_score"] > row["validation_score"] for row in self._history)
        if best or self._plan.keep != "best":
            self._kept = weights
            if self._leads:
                self._pictures["after"] = self._validation.predict_shown()
        return {**scores, "validation_seconds": time.monotonic() - started}

    def _report(self, state: Mapping[str, NDArray[Any]]) -> None:
        row = self._history[-1]
        if not self._leads:
            ray.train.report(row)
            return
        left = (self._plan.epochs - len(self._history)) * (row["seconds"] + row["validation_seconds"])
        self._say(
            f"epoch {len(self._history)}/{self._plan.epochs}: loss {row['train_loss']:.4f}, "
            f"validation loss {row['validation_loss']:.4f}, AP@0.5 {row['validation_ap50']:.3f}, "
            f"score {row['validation_score']:.3f}, {duration(row['seconds'])}; {duration(left)} to go"
        )
        # Before the checkpoint: an epoch that is begun again writes the same file again.
        self._write_events(row)
        with tempfile.TemporaryDirectory() as folder:
            self._save(Path(folder), state)
            ray.train.report(row, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def _write_events(self, row: Mapping[str, float]) -> None:
        from nucseg_ray.model.tensorboard import event_file, event_file_name

        write_bytes(self._plan.tensorboard / event_file_name(len(self._history)), event_file(row))
        self._plan.board.end_epoch.remote(row)

    def _save(self, folder: Path, state: Mapping[str, NDArray[Any]]) -> None:
        write_arrays(folder / STATE, state)
        write_arrays(folder / KEPT, self._kept or {})
        write_arrays(folder / PICTURES, self._pictures)
        (folder / HISTORY).write_text(json.dumps(self._history), encoding="utf-8")

    def _restore(self, folder: Path) -> None:
        self._replica.restore(read_arrays(folder / STATE))
        self._kept = read_arrays(folder / KEPT)
        self._pictures = read_arrays(folder / PICTURES)
        self._history = json.loads((folder / HISTORY).read_text(encoding="utf-8"))

    def _has_stalled(self) -> bool:
        if self._plan.keep != "best":
            return False
        # The encoder is to have its own chance: what stalled without it does not count.
        first = self._plan.frozen_epochs if self._plan.frozen_epochs < self._plan.epochs else 0
        scores = [row["validation_score"] for row in self._history[first:]]
        return bool(scores) and len(scores) - 1 - int(np.argmax(scores)) >= self._plan.patience

    def _say_step(self, epoch: int, step: int, loss: float, *, seconds: float) -> None:
        of = self._plan.steps_per_epoch
        left = seconds / step * (of - step + (self._plan.epochs - epoch) * of)
        self._say(f"epoch {epoch}/{self._plan.epochs}, step {step}/{of}, loss {loss:.4f}; {duration(left)} to go")

    def _say(self, line: str) -> None:
        if self._leads:
            self._plan.board.say.remote(line)
