r"""How far 20 images of a kind go: a network that has never seen the kind, before and after it learns from them.

    python benchmarks/adaptation.py --data DATA/stage1_train --index DATA/stage1_train_index.csv \
        --kind histology_colour --encoder-weights WEIGHTS --output WORK

trains a network on all other kinds, gives it 20 images of this one for a few minutes, does the same with a network that
knows nothing but ImageNet, and prints the table of the README: all scores are of this kind in the fold held out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformed_sets import mask_png, read_fold, write_manifest

from nucseg_ray.imaging.codecs import encode_image_png
from nucseg_ray.storage.labelled_images import Sample, TrainingSet
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import find_training_set

JOBS = Path(__file__).resolve().parents[1] / "jobs"
# The network that is adapted, and the few images' own training; the README tells users the second.
WITHOUT = ("--epochs", "1", "--finetune-epochs", "7", "--crops-per-epoch", "2000")
FEW = ("--epochs", "1", "--finetune-epochs", "4", "--crops-per-epoch", "320", "--learning-rate", "0.001")
COLUMNS = ("AP@0.5", "AP@0.75", "mean AP", "Bowl score")


def draw(samples: Sequence[Sample], *, count: int, seed: int) -> list[Sample]:
    """Draw images from as many groups as there are, one of each before a second of any."""
    order = np.random.default_rng(seed).permutation(len(samples))
    rounds: dict[str, int] = {}
    ranked = []
    for place, number in enumerate(order):
        group = samples[number].group
        rounds[group] = rounds.get(group, 0) + 1
        ranked.append((rounds[group], place, number))
    return [samples[number] for _, _, number in sorted(ranked)[:count]]


def write_set(found: TrainingSet, folder: Path) -> Path:
    """Write images and label images; give the manifest."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for sample, (image, labels) in zip(found.samples, read_fold(found), strict=True):
        (folder / "images" / f"{sample.image_id}.png").write_bytes(encode_image_png(image))
        (folder / "masks" / f"{sample.image_id}.png").write_bytes(mask_png(labels))
    write_manifest(folder / "manifest.csv", found.samples)
    return folder / "manifest.csv"


def train(name: str, data: Path, flags: Sequence[str], output: Path) -> float:
    """Train by the project's own command; give the seconds it took in all."""
    start = time.monotonic()
    command = [sys.executable, str(JOBS / "train.py"), "--data", str(data), "--output", str(output), *flags]
    print(f"{name}: {' '.join(command)}", file=sys.stderr)
    subprocess.run(command, check=True)
    return time.monotonic() - start


def score(model: Path, data: Path, output: Path) -> list[float]:
    """Score a bundle by the project's own command: the ``COLUMNS``."""
    command = [sys.executable, str(JOBS / "evaluate.py"), "--model", str(model), "--data", str(data)]
    subprocess.run([*command, "--output", str(output)], check=True, stdout=subprocess.DEVNULL)
    row: Mapping[str, Any] = json.loads((output / "scores.json").read_text(encoding="utf-8"))["all"]
    return [row["ap"][0], row["ap"][5], row["mean_ap"], row["bowl_score"]]


def main() -> None:
    """Write the sets, train three networks, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="labelled images, in any layout that training reads")
    parser.add_argument("--index", help="table of their folds and kinds")
    parser.add_argument("--kind", required=True, help="kind of image to hold out")
    parser.add_argument("--fold", type=int, default=0, help="fold to score on")
    parser.add_argument("--images", type=int, default=20, help="images of the kind to learn from")
    parser.add_argument("--encoder-weights", default="imagenet", help="as train takes them")
    parser.add_argument("--output", type=Path, required=True, help="new folder for sets, models and scores")
    parser.add_argument("--seed", type=int, default=0, help="which images of the kind are learned from")
    args = parser.parse_args()
    found = find_training_set(Location(args.data), index=Location(args.index) if args.index else None)
    others = [sample for sample in found.samples if sample.kind != args.kind]
    own = [sample for sample in found.samples if sample.kind == args.kind]
    test = [sample for sample in own if sample.fold == args.fold]
    few = draw([sample for sample in own if sample.fold != args.fold], count=args.images, seed=args.seed)
    if not test or len(few) < args.images:
        parser.error(f"--kind {args.kind}: {len(test)} images in fold {args.fold}, {len(few)} to learn from outside it")
    sets, models = args.output / "sets", args.output / "models"
    manifests = {
        name: write_set(found.only(sorted(samples, key=lambda sample: sample.image_id)), sets / name)
        for name, samples in (("others", others), ("few", few), ("test", test))
    }
    encoder = ("--encoder-weights", args.encoder_weights)
    without, adapted, fresh = (models / name for name in ("without", "adapted", "fresh"))
    train("without the kind", manifests["others"], (*encoder, *WITHOUT, "--fold", str(args.fold)), without)
    own_time = train("adapted", manifests["few"], ("--encoder-weights", str(without), *FEW), adapted)
    fresh_time = train("from ImageNet", manifests["few"], (*encoder, *FEW), fresh)
    print(f"| network | training | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 2)}")
    for name, seconds, model in (
        (f"trained on {len(others)} images of other kinds", None, without),
        (f"the same, after {args.images} images", own_time, adapted),
        (f"ImageNet's encoder, after the same {args.images} images", fresh_time, fresh),
    ):
        figures = score(model, manifests["test"], args.output / "scores" / model.name)
        told = "" if seconds is None else f"{seconds / 60:.1f} min"
        print(f"| {name} | {told} | {' | '.join(f'{figure:.3f}' for figure in figures)} |")


if __name__ == "__main__":
    main()
