"""StarDist on the same folds, in an environment of its own: train it, tune its thresholds, write its label images.

    python -m venv peer && peer/bin/pip install stardist tensorflow tf_keras opencv-python-headless
    peer/bin/python benchmarks/peers/stardist_peer.py train --data DATA/dsb2018/stage1_train --index INDEX --fold 0 \
        --output stardist --minutes 120
    peer/bin/python benchmarks/peers/stardist_peer.py predict --model stardist --images DIR --output labels

Its published configuration for the Bowl's images (Schmidt et al. 2018, arXiv:1806.03535, and its example notebooks): 32 rays, a
grid of 2, a U-Net of depth 3 with 32 filters, patches of 256, batches of 4, flips, turns and changes of intensity; three
channels in, because the Bowl has colour. Trained until 400 epochs of 100 steps or ``--minutes`` are over, and going on
where it stopped when called again.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import cv2
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train")
    for name in ("--data", "--index", "--output"):
        train.add_argument(name, type=Path, required=True)
    train.add_argument("--fold", type=int, required=True)
    train.add_argument("--minutes", type=float, default=120)
    predict = commands.add_parser("predict")
    for name in ("--model", "--images", "--output"):
        predict.add_argument(name, type=Path, required=True)
    arguments = parser.parse_args()
    (run_train if arguments.command == "train" else run_predict)(arguments)


def run_train(arguments: argparse.Namespace) -> None:
    import tf_keras
    from stardist.models import Config2D, StarDist2D

    with arguments.index.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if int(row["topcoders_fold"]) != arguments.fold]
    rng = np.random.default_rng(0)
    # Thresholds and the plateau are judged on groups of the training folds, never on the fold that is reported.
    groups = sorted({row["mosaic_idx"] for row in rows})
    held = set(rng.permutation(groups)[: len(groups) // 10])
    pairs = [(row["mosaic_idx"] in held, *read(arguments.data / row["ImageId"])) for row in rows]
    print(
        f"{sum(not out for out, _, _ in pairs)} images to train on, {sum(out for out, _, _ in pairs)} to judge by",
        flush=True,
    )
    x, y = [p[1] for p in pairs if not p[0]], [p[2] for p in pairs if not p[0]]
    xv, yv = [p[1] for p in pairs if p[0]], [p[2] for p in pairs if p[0]]
    config = Config2D(n_rays=32, grid=(2, 2), n_channel_in=3, train_tensorboard=False)
    model = StarDist2D(config, name=arguments.output.name, basedir=str(arguments.output.parent))
    last = arguments.output / "weights_last.h5"
    model.prepare_for_training()
    if last.exists():
        model.keras_model.load_weights(str(last))
    ends = time.monotonic() + 60 * arguments.minutes

    class Stop(tf_keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            self.model.save_weights(str(last))
            if time.monotonic() > ends:
                self.model.stop_training = True

    model.callbacks.append(Stop())
    model.train(x, y, validation_data=(xv, yv), augmenter=augment)
    model.load_weights("weights_best.h5")
    print(model.optimize_thresholds(xv, yv))


def run_predict(arguments: argparse.Namespace) -> None:
    from csbdeep.utils import normalize
    from stardist.models import StarDist2D

    model = StarDist2D(None, name=arguments.model.name, basedir=str(arguments.model.parent))
    arguments.output.mkdir(parents=True)
    for path in sorted(arguments.images.iterdir()):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]
        labels, _ = model.predict_instances(normalize(image, 1, 99.8, axis=(0, 1, 2)))
        cv2.imwrite(str(arguments.output / f"{path.stem}.png"), labels.astype(np.uint16))


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    from csbdeep.utils import normalize

    (path,) = (folder / "images").iterdir()
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]
    labels = np.zeros(image.shape[:2], np.uint16)
    for number, mask in enumerate(sorted((folder / "masks").iterdir()), start=1):
        labels[(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) > 127) & (labels == 0)] = number
    return normalize(image, 1, 99.8, axis=(0, 1, 2)).astype(np.float32), labels


def augment(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    turns, flips = np.random.randint(4), np.random.randint(2)
    x, y = np.rot90(x, turns), np.rot90(y, turns)
    if flips:
        x, y = x[:, ::-1], y[:, ::-1]
    return x * np.random.uniform(0.6, 2) + np.random.uniform(-0.2, 0.2), y


if __name__ == "__main__":
    main()
