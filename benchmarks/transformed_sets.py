r"""One fold of a labelled set as sets of their own: as it is, rescaled, brighter and darker, noisy, blurred.

    python benchmarks/transformed_sets.py --data DATA/stage1_train --index DATA/stage1_train_index.csv \
        --fold 0 --output SETS

For each ``NAME`` of ``TRANSFORMS`` it writes

::

    SETS/NAME/images/<image id>.png    the image, grey or RGB, of as many bits as before
    SETS/NAME/masks/<image id>.png     its labels, 16 bits
    SETS/NAME/manifest.csv             image, mask, image_id, kind, group, fold
    SETS/sets.json                     what was done, and how many nuclei each set has: written last

so that the project's own command scores a model on them, kind by kind, and anybody's label images:

::

    nucseg evaluate --model MODEL --data SETS/NAME/manifest.csv --output SCORES
    nucseg evaluate --masks LABELS --truth SETS/NAME/masks --output SCORES

The same data, fold and seed give the same files, whatever the order of the images.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import relabel_sequential

from nucseg_ray.imaging.codecs import Labels, Pixels, encode_image_png, encode_label_png
from nucseg_ray.imaging.normalise import percentiles
from nucseg_ray.storage.labelled_images import Sample, TrainingSet
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import find_training_set

NOISE_SHARE = 0.05
NOISE_PERCENTILES = (1.0, 99.8)
BLUR_SIGMA_PX = 1.5
_BLUR_REACH_PX = 6  # four sigmas
COLUMNS = ("image", "mask", "image_id", "kind", "group", "fold")

Apply = Callable[[Pixels, Labels, np.random.Generator], tuple[Pixels, Labels]]


@dataclass(frozen=True, slots=True)
class Transform:
    """A way to change an image and its labels; ``definition`` says it in words for the table."""

    name: str
    definition: str
    apply: Apply


def keep(image: Pixels, labels: Labels, rng: np.random.Generator) -> tuple[Pixels, Labels]:
    """Give both as they are."""
    return image, labels


def rescale(factor: float) -> Apply:
    """Make a transform of both sides by ``factor``, rounded to whole pixels.

    Images are averaged over areas where they shrink and interpolated linearly where they grow: a cubic would draw rings
    around nuclei that no microscope draws. Each pixel takes the label that lies under its centre; a nucleus that lies
    under none is gone, and the others are numbered anew.
    """

    def apply(image: Pixels, labels: Labels, rng: np.random.Generator) -> tuple[Pixels, Labels]:
        height, width = (max(1, int(factor * side + 0.5)) for side in labels.shape)
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(image, (width, height), interpolation=how)
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(np.intp)
            for new, old in zip((height, width), labels.shape, strict=True)
        )
        renumbered, _, _ = relabel_sequential(labels[np.ix_(rows, columns)])
        return resized, renumbered.astype(np.int32)

    return apply


def gamma(exponent: float) -> Apply:
    """Make a transform of intensities, with the largest value of the pixel type as 1: below 1 brightens."""

    def apply(image: Pixels, labels: Labels, rng: np.random.Generator) -> tuple[Pixels, Labels]:
        largest = np.iinfo(image.dtype).max
        return _to_pixels(largest * (image / largest) ** exponent, image.dtype), labels

    return apply


def add_noise(image: Pixels, labels: Labels, rng: np.random.Generator) -> tuple[Pixels, Labels]:
    """Add white Gaussian noise, each channel its own, of a standard deviation that is a share of the image's range."""
    low, high = percentiles(image, NOISE_PERCENTILES)
    return _to_pixels(image + rng.normal(0, NOISE_SHARE * (high - low), image.shape), image.dtype), labels


def blur(image: Pixels, labels: Labels, rng: np.random.Generator) -> tuple[Pixels, Labels]:
    """Convolve with a Gaussian; images go on beyond their border as mirrored."""
    side = 2 * _BLUR_REACH_PX + 1
    return _to_pixels(cv2.GaussianBlur(image.astype(np.float64), (side, side), BLUR_SIGMA_PX), image.dtype), labels


TRANSFORMS: tuple[Transform, ...] = (
    Transform("plain", "unchanged", keep),
    *(
        Transform(f"scale-{factor:g}", f"sides x {factor:g}, {how}; labels by nearest pixel", rescale(factor))
        for factor, how in ((0.5, "averaged over areas"), (2, "bilinear"), (3, "bilinear"))
    ),
    *(
        Transform(f"gamma-{exponent:g}", f"intensity to the power of {exponent:g}, full range as 1", gamma(exponent))
        for exponent in (0.5, 2)
    ),
    Transform(
        "noise",
        f"Gaussian noise of a sigma of {NOISE_SHARE:g} of the image's range (percentiles 1 to 99.8), clipped",
        add_noise,
    ),
    Transform("blur", f"Gaussian blur of a sigma of {BLUR_SIGMA_PX:g} px", blur),
)


def random_for(image_id: str, *, seed: int) -> np.random.Generator:
    """Give the generator of one image: no other image changes what it draws."""
    return np.random.default_rng([seed, *image_id.encode()])


def mask_png(labels: Labels) -> bytes:
    """Encode labels so that they are read as they are, whether as truth or as the mask of a labelled image.

    A mask of 0 and 1 would be taken for foreground and split into its components, so a lone nucleus gets the number 2.
    """
    return encode_label_png(2 * labels if labels.max(initial=0) == 1 else labels)


def read_fold(found: TrainingSet) -> Iterator[tuple[Pixels, Labels]]:
    """Read images and labels as an evaluation does, in the order of the samples.

    Raises
    ------
    InputError
        An image cannot be read.
    """
    # Ray comes along with these; the transforms alone need none of it.
    from nucseg_ray.pipelines.rows import unpack
    from nucseg_ray.pipelines.samples import read_here, refuse_unreadable

    for table in read_here(found):
        refuse_unreadable([error for error in table.column("error").to_pylist() if error])
        for row in range(table.num_rows):
            image, labels = unpack("image", table, row), unpack("labels", table, row)
            assert image is not None and labels is not None  # it has no error
            yield image, labels


def write_sets(found: TrainingSet, output: Path, *, seed: int) -> dict[str, Any]:
    """Write every set; give what ``sets.json`` says."""
    counts: dict[str, dict[str, dict[str, int]]] = defaultdict(
        lambda: defaultdict(lambda: {"images": 0, "nuclei": 0, "vanished": 0})
    )
    for transform in TRANSFORMS:
        for folder in ("images", "masks"):
            (output / transform.name / folder).mkdir(parents=True)
    for sample, (image, labels) in zip(found.samples, read_fold(found), strict=True):
        for transform in TRANSFORMS:
            changed, truth = transform.apply(image, labels, random_for(sample.image_id, seed=seed))
            name = f"{sample.image_id}.png"
            (output / transform.name / "images" / name).write_bytes(encode_image_png(changed))
            (output / transform.name / "masks" / name).write_bytes(mask_png(truth))
            count = counts[transform.name][sample.kind]
            count["images"] += 1
            count["nuclei"] += int(truth.max(initial=0))
            count["vanished"] += int(labels.max(initial=0) - truth.max(initial=0))
    for transform in TRANSFORMS:
        write_manifest(output / transform.name / "manifest.csv", found.samples)
    about = {
        "seed": seed,
        "sets": {t.name: {"definition": t.definition, "kinds": counts[t.name]} for t in TRANSFORMS},
    }
    (output / "sets.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return about


def write_manifest(path: Path, samples: Sequence[Sample]) -> None:
    """Write what the project knows about each image of a set, with the paths of its two files."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for sample in samples:
            files = (f"images/{sample.image_id}.png", f"masks/{sample.image_id}.png")
            writer.writerow([*files, sample.image_id, sample.kind, sample.group, sample.fold])


def _to_pixels(values: NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> Pixels:
    """Round and clip to what the pixel type holds."""
    return np.clip(np.rint(values), 0, np.iinfo(dtype).max).astype(dtype)


def main() -> None:
    """Write the sets and print how many nuclei each has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="labelled images, in any layout that training reads")
    parser.add_argument("--index", help="table of their folds and kinds")
    parser.add_argument("--fold", type=int, required=True, help="fold whose images are transformed")
    parser.add_argument("--output", type=Path, required=True, help="folder to write the sets into; new or empty")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    args = parser.parse_args()
    found = find_training_set(Location(args.data), index=Location(args.index) if args.index else None)
    fold = found.only(sample for sample in found.samples if sample.fold == args.fold)
    if not fold.samples:
        parser.error(f"--fold {args.fold}: no image is in it; name another, or the --index that says which are")
    if args.output.exists() and any(args.output.iterdir()):
        parser.error(f"--output {args.output}: expected a new or empty folder, found files in it; name another")
    for name, about in write_sets(fold, args.output, seed=args.seed)["sets"].items():
        told = "; ".join(
            f"{kind}: {count['images']} images, {count['nuclei']} nuclei, {count['vanished']} vanished"
            for kind, count in sorted(about["kinds"].items())
        )
        print(f"{name}: {about['definition']}\n    {told}")


if __name__ == "__main__":
    main()
