r"""StarDist on the same folds, in an environment of its own (see the README beside this file).

    python stardist_peer.py train --data DATA/stage1_train --index DATA/stage1_train_index.csv --fold 0 \
        --output stardist --minutes 120
    python stardist_peer.py predict --model stardist --images SETS/plain/images --output labels/plain

What its authors publish for 2D nuclei (Schmidt et al. 2018, arXiv:1806.03535; the defaults of ``Config2D`` and the
example notebooks): 32 rays on a grid of 2, a U-Net of depth 3 with 32 filters, 400 epochs of 100 batches of 4 patches
of 256 px, Adam at 3e-4 that is halved on a plateau of 40 epochs, images normalised by percentiles 1 and 99.8 of each
channel, holes in labels filled; flips, quarter turns, intensities, noise; thresholds optimised. Three channels in,
because the Bowl has colour.

A run that is called again goes on where its last epoch ended: weights, optimiser, learning rate, plateau and best loss.
``--minutes`` is the time of all calls together, in training and its validation, by the clock on the wall; what a kill
lost is not counted. CPU time is recorded beside it. An epoch ends early when the time is over.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # StarDist and csbdeep take whichever Keras TensorFlow has
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tf_keras
from bowl import ID, Row, augmenter, hold_out, list_images, read_image, read_index, read_sample, write_labels
from csbdeep.utils import normalize
from numpy.typing import NDArray
from stardist import fill_label_holes
from stardist.models import Config2D, StarDist2D

SEED = 0
HELD_OUT = 0.15  # as in the example notebook
TILE_PX = 1024
PACKAGES = ("stardist", "csbdeep", "tensorflow", "tf_keras", "numpy", "numba", "opencv-python-headless")
PROGRESS, BEST, CHECKPOINTS, THRESHOLDS = "progress.json", "weights_best.h5", "checkpoints", "thresholds.json"

Images = list[NDArray[np.float32]]
LabelImages = list[NDArray[np.uint16]]


@dataclass
class Progress:
    """How far a training is, as ``progress.json`` says; ``history`` has a row an epoch."""

    fold: int
    epochs: int = 0
    steps: int = 0
    wall_minutes: float = 0.0
    cpu_minutes: float = 0.0
    checkpoint: str = ""
    best_val_loss: float = math.inf
    plateau: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path, *, fold: int) -> Progress:
        """Read how far a run is, or begin one.

        Raises
        ------
        SystemExit
            The run is one of another fold.
        """
        path = folder / PROGRESS
        if not path.exists():
            return cls(fold)
        progress = cls(**json.loads(path.read_text(encoding="utf-8")))
        if progress.fold != fold:
            raise SystemExit(f"--fold {fold}: {folder} was trained for fold {progress.fold}; name another --output")
        return progress


class Keeper(tf_keras.callbacks.Callback):
    """Keeps a training's whole state after each epoch, restores it at the beginning, and ends it in time.

    Must come after StarDist's own callbacks: it restores and stores what they hold.
    """

    def __init__(self, peer: StarDist2D, progress: Progress, *, minutes: float):
        super().__init__()
        self.folder, self.progress, self.minutes = Path(peer.logdir), progress, minutes
        kinds = (tf_keras.callbacks.ReduceLROnPlateau, tf_keras.callbacks.ModelCheckpoint)
        self.plateau, self.best = (next(c for c in peer.callbacks if isinstance(c, kind)) for kind in kinds)
        optimizer = peer.keras_model.optimizer
        optimizer.build(peer.keras_model.trainable_variables)  # else there are no moments to restore
        self.state = tf.train.Checkpoint(model=peer.keras_model, optimizer=optimizer)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Restore what the last epoch left; patches and augmentation go on from there, not from the first again."""
        np.random.seed([SEED, self.progress.epochs])  # noqa: NPY002 - StarDist draws from this generator
        if self.progress.checkpoint:
            self.state.read(str(self.folder / self.progress.checkpoint)).assert_consumed()
            vars(self.plateau).update(self.progress.plateau)
            self.best.best = self.progress.best_val_loss
        self.began = self._clocks()
        self.before = (self.progress.wall_minutes, self.progress.cpu_minutes)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Count the step, and end the epoch when the time is over."""
        self.progress.steps += 1
        if self._spent()[0] >= self.minutes:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the state, then say in ``progress.json`` which it is, then drop the one before."""
        progress = self.progress
        progress.epochs += 1
        progress.wall_minutes, progress.cpu_minutes = self._spent()
        progress.best_val_loss = float(self.best.best)
        progress.plateau = {name: float(vars(self.plateau)[name]) for name in ("best", "wait", "cooldown_counter")}
        row = {name: float((logs or {})[name]) for name in ("loss", "val_loss", "lr")}
        progress.history.append({**row, "steps": progress.steps, "wall_minutes": progress.wall_minutes})
        before, progress.checkpoint = progress.checkpoint, f"{CHECKPOINTS}/{progress.epochs:04d}/state"
        self.state.write(str(self.folder / progress.checkpoint))
        write_json(self.folder / PROGRESS, asdict(progress))
        if before:
            shutil.rmtree((self.folder / before).parent)

    def _spent(self) -> tuple[float, float]:
        now = self._clocks()
        return tuple(done + (b - a) / 60 for done, a, b in zip(self.before, self.began, now, strict=True))

    @staticmethod
    def _clocks() -> tuple[float, float]:
        return time.monotonic(), time.process_time()


def train(args: argparse.Namespace) -> None:
    """Train, or go on training, until the time or the epochs are over; then optimise the thresholds."""
    rows, judges = hold_out(read_index(args.index, fold=args.fold), share=HELD_OUT, seed=SEED)
    progress = Progress.read(args.output, fold=args.fold)
    tf_keras.utils.set_random_seed(SEED)
    config = Config2D(n_rays=32, grid=(2, 2), n_channel_in=3, train_tensorboard=False)
    peer = StarDist2D(config, name=args.output.name, basedir=str(args.output.parent))
    print(f"{len(rows)} images to train on, {len(judges)} to judge by; {progress.epochs} epochs before", flush=True)
    judged = read_set(args.data, judges)
    if progress.epochs < config.train_epochs and progress.wall_minutes < args.minutes:
        (args.output / THRESHOLDS).unlink(missing_ok=True)  # of the weights before
        images, labels = read_set(args.data, rows)
        peer.prepare_for_training()
        peer.callbacks.append(Keeper(peer, progress, minutes=args.minutes))
        draw = np.random.default_rng([SEED, progress.epochs])
        # With this seed the patches to judge by are the same in every call.
        epochs = config.train_epochs - progress.epochs
        peer.train(images, labels, validation_data=judged, augmenter=augmenter(draw), seed=SEED, epochs=epochs)
    if not (args.output / THRESHOLDS).exists():
        peer.load_weights(BEST)
        peer.optimize_thresholds(*judged)
    print(
        f"{progress.epochs} epochs, {progress.steps} steps, {progress.wall_minutes:.1f} minutes "
        f"({progress.cpu_minutes:.1f} of CPU), best loss {progress.best_val_loss:.4f}, learning rate "
        f"{progress.history[-1]['lr']:g}"
    )


def predict(args: argparse.Namespace) -> None:
    """Write the label image of each image of a folder, and ``prediction.json`` last: with what, and how fast."""
    missing = [name for name in (PROGRESS, BEST, THRESHOLDS) if not (args.model / name).exists()]
    if missing:
        raise SystemExit(f"--model {args.model}: expected a finished training, found no {', '.join(missing)}; train it")
    if args.output.exists() and any(args.output.iterdir()):
        raise SystemExit(f"--output {args.output}: expected a new or empty folder, found files in it; name another")
    paths = list_images(args.images)
    args.output.mkdir(parents=True, exist_ok=True)
    peer = StarDist2D(None, name=args.model.name, basedir=str(args.model.parent))
    seconds, nuclei = 0.0, 0
    for path in paths:
        image = read_image(path)
        began = time.monotonic()
        tiles = (*(math.ceil(side / TILE_PX) for side in image.shape[:2]), 1)
        labels, _ = peer.predict_instances(scaled(image), n_tiles=tiles, show_tile_progress=False)
        seconds += time.monotonic() - began
        nuclei += len(np.unique(labels[labels > 0]))
        write_labels(args.output / f"{path.stem}.png", labels)
    trained = json.loads((args.model / PROGRESS).read_text(encoding="utf-8"))
    about = {
        "versions": versions(),
        "config": json.loads((args.model / "config.json").read_text(encoding="utf-8")),
        "thresholds": json.loads((args.model / THRESHOLDS).read_text(encoding="utf-8")),
        "trained": {name: trained[name] for name in trained if name not in ("history", "plateau", "checkpoint")},
        "images": len(paths),
        "nuclei": nuclei,
        "seconds": round(seconds, 3),
    }
    write_json(args.output / "prediction.json", about)
    print(f"{args.output}: {len(paths)} images, {nuclei} nuclei, {seconds:.1f} s")


def read_set(data: Path, rows: Sequence[Row]) -> tuple[Images, LabelImages]:
    """Read images ``(H, W, 3)`` float32, scaled, and labels without holes."""
    pairs = [read_sample(data / row[ID]) for row in rows]
    return [scaled(image) for image, _ in pairs], [fill_label_holes(labels) for _, labels in pairs]


def scaled(image: NDArray[Any]) -> NDArray[np.float32]:
    """Stretch percentiles 1 and 99.8 of each channel to ``[0, 1]``, unclipped."""
    return normalize(image, 1, 99.8, axis=(0, 1))


def versions() -> dict[str, str]:
    """Say with what the peer runs."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one go: a kill leaves the old file or the new one."""
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)


def main() -> None:
    """Parse the flags and run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help=train.__doc__)
    training.add_argument("--data", type=Path, required=True, help="folder of the Bowl: <id>/images and <id>/masks")
    training.add_argument("--index", type=Path, required=True, help="CSV of kind, fold and group of each image")
    training.add_argument("--fold", type=int, required=True, help="fold to keep for the comparison")
    training.add_argument("--output", type=Path, required=True, help="folder of the model; again the same to go on")
    training.add_argument("--minutes", type=float, default=120, help="time of training, of all calls together")
    training.set_defaults(run=train)
    predicting = commands.add_parser("predict", help=predict.__doc__)
    predicting.add_argument("--model", type=Path, required=True, help="--output of the training")
    predicting.add_argument("--images", type=Path, required=True, help="folder of images")
    predicting.add_argument("--output", type=Path, required=True, help="folder for the labels; new or empty")
    predicting.set_defaults(run=predict)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
