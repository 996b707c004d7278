r"""The validation images that a model does worst on, as pictures: the image, the truth, what was found.

    python benchmarks/worst_images.py --model benchmarks/fold0 --data DATA/stage1_train \
        --index DATA/stage1_train_index.csv --fold 0 --output worst

writes ``worst/worst_01.jpg`` and so on, the worst first, and prints a line on each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from nucseg_ray.imaging.codecs import Labels, Pixels
from nucseg_ray.imaging.metrics import Matches, match
from nucseg_ray.model.segmenter import Segmenter
from nucseg_ray.pipelines.rows import unpack
from nucseg_ray.pipelines.samples import read_here, refuse_unreadable
from nucseg_ray.report.figures import ORANGE, SKY
from nucseg_ray.report.pictures import overlay
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import find_training_set

PANEL_PX = 400
GAP_PX = 6
QUALITY = 85


def panels(image: Pixels, truth: Labels, found: Labels) -> Pixels:
    """Put an image, its true outlines and those found side by side, each at most ``PANEL_PX`` high and wide."""
    nothing = np.zeros_like(truth)
    drawn = [overlay(image, nothing), overlay(image, truth, colour=SKY), overlay(image, found, colour=ORANGE)]
    scale = PANEL_PX / max(truth.shape)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    resized = [cv2.resize(panel, None, fx=scale, fy=scale, interpolation=how) for panel in drawn]
    gap = np.full((resized[0].shape[0], GAP_PX, 3), 255, np.uint8)
    return np.concatenate([resized[0], gap, resized[1], gap, resized[2]], axis=1)


def told(image_id: str, kind: str, matches: Matches) -> str:
    """Say how an image came out."""
    found, wrong = int(matches.tp[0]), int(matches.fp[0])
    score = f"{image_id[:12]} {kind}: score {matches.ap.mean():.3f}"
    return f"{score}; of {matches.n_truth} nuclei {found} found at IoU 0.5, {wrong} wrong ones"


def main() -> None:
    """Draw the pictures and print a line on each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a model bundle")
    parser.add_argument("--data", required=True, help="labelled images, in any layout that training reads")
    parser.add_argument("--index", help="table of their folds and kinds")
    parser.add_argument("--fold", type=int, required=True, help="fold that the model has not seen")
    parser.add_argument("--number", type=int, default=10, help="how many images")
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    args = parser.parse_args()
    found_set = find_training_set(Location(args.data), index=Location(args.index) if args.index else None)
    fold = found_set.only(sample for sample in found_set.samples if sample.fold == args.fold)
    segmenter = Segmenter.load(args.model)
    scored: list[tuple[float, str, str, Matches, tuple[Pixels, Labels, Labels]]] = []
    for table in read_here(fold):
        refuse_unreadable([error for error in table.column("error").to_pylist() if error])
        for row in range(table.num_rows):
            image, truth = unpack("image", table, row), unpack("labels", table, row)
            assert image is not None and truth is not None  # it has no error
            labels = segmenter.segment(image)
            matches = match(truth, labels)
            names = (table.column(name)[row].as_py() for name in ("image_id", "kind"))
            scored.append((float(matches.ap.mean()), *names, matches, (image, truth, labels)))
    args.output.mkdir(parents=True, exist_ok=True)
    worst = sorted(scored, key=lambda image: image[:2])[: args.number]
    for number, (_, image_id, kind, matches, arrays) in enumerate(worst, start=1):
        name = f"worst_{number:02}.jpg"
        cv2.imwrite(str(args.output / name), panels(*arrays)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        print(f"{name}  {told(image_id, kind, matches)}")


if __name__ == "__main__":
    main()
