"""The output of a training: what is in it already, what is recorded for ``--resume``, and what is left in the end."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nucseg_ray.config import TrainSettings
from nucseg_ray.errors import MissingInputError, OutputError, OutputMismatchError
from nucseg_ray.imaging.labels import LabelVariant
from nucseg_ray.model.bundle import MODEL_JSON, Bundle
from nucseg_ray.report.curves import learning_curves
from nucseg_ray.report.pictures import before_after_picture
from nucseg_ray.storage.atomic import write_bytes, write_json
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import Sample

CHECKPOINTS, TENSORBOARD = "checkpoints", "tensorboard"
SETTINGS_JSON, TRAINING_JSON = "settings.json", "training.json"
FORMAT = 2
# Ray Train's own list of the checkpoints of a run; it stands once the first is complete.
SNAPSHOT = "checkpoint_manager_snapshot.json"
# What --resume may be given anew. Where it runs, and on how much: workers, GPUs, CPUs, threads, restarts; more than one
# worker or thread adds up in another order, and several workers normalise by their part of a batch, but each of these
# would also change between two undisturbed runs. How long it goes on: epochs, patience; more epochs stretch the rest of
# the learning rate's course. (With --finetune-epochs they also say when the encoder joins, and stay as they were.)
# Where the images lie: which images they are is compared instead. What is logged elsewhere.
_MAY_CHANGE = frozenset(
    {
        *("output", "resume", "mlflow"),
        *("workers", "use_gpu", "cpus_per_worker", "threads_per_worker", "max_restarts"),
        *("epochs", "patience"),
        *("data", "index", "validation_data"),
    }
)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What ``--resume`` needs: the run's name in Ray Train, which images it trains on, its run in MLflow."""

    run: str
    train: str
    validation: str
    mlflow_run: str | None = None


def finished_scores(output: Location, settings: TrainSettings) -> dict[str, Any] | None:
    """Give the scores of the model that is there, where ``--resume`` finds it finished; None where there is no model.

    Raises
    ------
    OutputError
        There is a model, and it was not asked to go on, or to go on for longer.
    OutputMismatchError
        The model was trained with other settings.
    """
    stored = _read(output / MODEL_JSON)
    if stored is None:
        return None
    if not settings.resume:
        raise OutputError(f"{output}: there is a model already; name another --output, or move that one away")
    before = stored.get("training", {}).get("settings", {})
    _refuse_other_settings(output, before, settings)
    if settings.epochs > before.get("epochs", 0):
        raise OutputError(
            f"{output}: its training is finished, with --epochs {before.get('epochs')}; a finished model is not "
            f"trained on. For --epochs {settings.epochs} name another --output, and go on there with "
            f"--encoder-weights {output}"
        )
    logger.info("nothing to do: the training in %s is finished", output)
    return dict(stored.get("metrics", {}))


def earlier_training(output: Location, settings: TrainSettings) -> TrainingRecord | None:
    """Give the training that was broken off in the output and is to go on; None where one is to begin.

    Raises
    ------
    MissingInputError
        ``--resume``, and no epoch was finished there.
    OutputError
        Not ``--resume``, and some epochs were: they would be lost.
    OutputMismatchError
        It was begun with other settings; names what differs.
    """
    stored = _read(output / TRAINING_JSON)
    begun = stored is not None and _read(output / CHECKPOINTS / stored.get("run", "none") / SNAPSHOT) is not None
    if stored is None or not begun:
        if settings.resume:
            raise MissingInputError(
                f"{output}: nothing to resume, no training finished an epoch there; check --output, or leave out "
                "--resume"
            )
        return None
    if not settings.resume:
        raise OutputError(
            f"{output}: a training was broken off there; go on with it with --resume, name another --output, or move "
            "that one away"
        )
    if stored.pop("format", None) != FORMAT:
        raise OutputError(
            f"{output / TRAINING_JSON}: expected format {FORMAT}; go on with the version that began the training"
        )
    _refuse_other_settings(output, _read(output / SETTINGS_JSON) or {}, settings)
    return TrainingRecord(**stored)


def check_same_images(output: Location, record: TrainingRecord, *, train: str, validation: str) -> None:
    """Check that a training goes on with the images that it began with.

    Raises
    ------
    OutputMismatchError
        It does not.
    """
    for side, before, now in (("train", record.train, train), ("validate", record.validation, validation)):
        if before != now:
            raise OutputMismatchError(
                f"{output}: the images to {side} on are not those that the training began with; give --data, --index "
                "and --validation-data as they were, or train into another --output"
            )


def record_training(output: Location, settings: TrainSettings, record: TrainingRecord) -> None:
    """Write ``settings.json`` and, last, ``training.json``."""
    write_json(output / SETTINGS_JSON, settings.model_dump())
    write_json(output / TRAINING_JSON, {"format": FORMAT, **asdict(record)})


def publish_bundle(output: Location, bundle: Bundle) -> None:
    """Copy a bundle from a local folder into the output, ``model.json`` last."""
    for name in bundle.file_names:
        write_bytes(output / name, (bundle.folder / name).read_bytes(), durable=True)


def write_history(
    output: Location, history: Sequence[Mapping[str, float]], pictures: Mapping[str, Any], variant: LabelVariant
) -> None:
    """Write ``history.csv``, ``learning_curves.png`` and ``before_after.png``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[0]))
    writer.writeheader()
    writer.writerows(history)
    write_bytes(output / "history.csv", text.getvalue().encode())
    write_bytes(output / "learning_curves.png", learning_curves(history))
    samples = [
        (image, truth, variant.label(before), variant.label(after))
        for image, truth, before, after in zip(
            pictures["image"], pictures["labels"], pictures["before"], pictures["after"], strict=True
        )
    ]
    write_bytes(output / "before_after.png", before_after_picture(samples))


def fingerprint(samples: Sequence[Sample]) -> str:
    """Tell training sets apart by the names and kinds of their images."""
    lines = [f"{sample.image_id}\t{sample.kind}" for sample in samples]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _refuse_other_settings(output: Location, before: Mapping[str, Any], settings: TrainSettings) -> None:
    now = settings.model_dump()
    # A setting that was not recorded is younger than the record.
    then = {name: before.get(name, field.default) for name, field in TrainSettings.model_fields.items()}
    may_change = _MAY_CHANGE - ({"epochs"} if then["finetune_epochs"] else set())
    different = [name for name in now if name not in may_change and now[name] != then[name]]
    if different:
        told = "; ".join(f"--{name.replace('_', '-')} {then[name]} there, {now[name]} asked for" for name in different)
        raise OutputMismatchError(
            f"{output}: its training was begun with other settings ({told}); go on with the same, or train into "
            "another --output"
        )


def _read(location: Location) -> dict[str, Any] | None:
    try:
        content = fetch_bytes(location)
    except MissingInputError:
        return None
    try:
        stored = json.loads(content)
    except ValueError as error:
        raise OutputError(f"{location}: not readable as JSON ({error}); train into another --output") from error
    if not isinstance(stored, dict):
        raise OutputError(f"{location}: expected an object; train into another --output")
    return stored
