"""Images and labels of the Data Science Bowl for a peer, which has an environment of its own without this project."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

ID, KIND, FOLD, GROUP = "ImageId", "modality", "topcoders_fold", "mosaic_idx"
IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")

Row = dict[str, str]


def read_index(path: Path, *, fold: int) -> list[Row]:
    """Give the rows of the images that a model may learn from if ``fold`` is what it is scored on.

    Raises
    ------
    SystemExit
        A column is missing, or no image is in the fold.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    missing = [name for name in (ID, KIND, FOLD, GROUP) if not rows or name not in rows[0]]
    if missing:
        raise SystemExit(f"{path}: expected the columns {ID}, {KIND}, {FOLD}, {GROUP}, found no {', '.join(missing)}")
    learned = [row for row in rows if int(row[FOLD]) != fold]
    if len(learned) == len(rows):
        raise SystemExit(
            f"--fold {fold}: no image of {path} is in it; found {sorted({int(row[FOLD]) for row in rows})}"
        )
    return learned


def hold_out(rows: Sequence[Row], *, share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Split rows into those to train on and those to judge by: a share of each kind's groups, whole groups only."""
    rng = np.random.default_rng(seed)
    held: set[str] = set()
    for kind in sorted({row[KIND] for row in rows}):
        groups = sorted({row[GROUP] for row in rows if row[KIND] == kind})
        count = min(len(groups) - 1, max(1, round(share * len(groups))))
        held.update(groups[number] for number in rng.permutation(len(groups))[:count])
    return [row for row in rows if row[GROUP] not in held], [row for row in rows if row[GROUP] in held]


def read_sample(folder: Path) -> tuple[NDArray[Any], NDArray[np.uint16]]:
    """Read ``<id>/images/*`` and ``<id>/masks/*``: an image as :func:`read_image` gives it, labels ``(H, W)``.

    A pixel that two masks claim stays with the first, by name, as in the project's own reader.
    """
    (path,) = (folder / "images").iterdir()
    image = read_image(path)
    labels = np.zeros(image.shape[:2], np.uint16)
    for number, mask in enumerate(sorted((folder / "masks").iterdir()), start=1):
        labels[(_decode(mask, cv2.IMREAD_GRAYSCALE) > 0) & (labels == 0)] = number
    return image, labels


def read_image(path: Path) -> NDArray[Any]:
    """Read an image as ``(H, W, 3)`` RGB of 8 or 16 bits: grey is repeated, an alpha channel dropped."""
    pixels = _decode(path, cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, np.newaxis], 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, 2::-1])  # BGR or BGRA


def augmenter(rng: np.random.Generator) -> Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    """Make the augmentation of StarDist's example notebook: flips and quarter turns, gain and offset, a little noise.

    It maps an image ``(H, W, 3)`` scaled to about ``[0, 1]`` and its labels ``(H, W)`` to such a pair.
    """

    def augment(image: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        if rng.random() < 0.5:
            image, labels = image.swapaxes(0, 1), labels.swapaxes(0, 1)
        for axis in (0, 1):
            if rng.random() < 0.5:
                image, labels = np.flip(image, axis), np.flip(labels, axis)
        image = image * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2)
        return image + rng.normal(0, 0.02 * rng.uniform(), image.shape), labels

    return augment


def list_images(folder: Path) -> list[Path]:
    """Give the images of a folder, by name.

    Raises
    ------
    SystemExit
        There is none, or two have one stem.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise SystemExit(f"--images {folder}: expected images ({', '.join(IMAGE_SUFFIXES)}), found none")
    stems = [path.stem for path in paths]
    repeated = sorted({stem for stem in stems if stems.count(stem) > 1})
    if repeated:
        raise SystemExit(f"--images {folder}: {len(repeated)} stems are of several images (such as {repeated[0]})")
    return paths


def write_labels(path: Path, labels: NDArray[Any]) -> None:
    """Write labels as a PNG of 16 bits.

    Raises
    ------
    SystemExit
        There are more than 16 bits hold.
    """
    if labels.max(initial=0) > np.iinfo(np.uint16).max:
        raise SystemExit(f"{path}: {labels.max()} nuclei do not fit a PNG of 16 bits")
    if not cv2.imwrite(str(path), labels.astype(np.uint16)):
        raise SystemExit(f"{path}: cannot be written")


def _decode(path: Path, flags: int) -> NDArray[Any]:
    pixels = cv2.imread(str(path), flags)
    if pixels is None:
        raise SystemExit(f"{path}: not an image that can be read")
    return pixels
