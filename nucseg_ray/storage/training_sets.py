"""Labelled images on disk: which layout a folder has, and what an index says about each image."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from nucseg_ray.errors import InputError
from nucseg_ray.imaging.codecs import IMAGE_SUFFIXES
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.listing import list_files
from nucseg_ray.storage.locations import Location

IMAGE_FOLDERS = ("images", "inputs")
MASK_FOLDER = "masks"
_ID_COLUMNS = ("ImageId", "image_id", "image")
_GROUP_COLUMNS = ("group", "mosaic_idx")
_KIND_COLUMNS = ("kind", "modality")
_FOLD_COLUMNS = ("fold", "topcoders_fold")
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image: paths relative to its set, and what is known about it.

    With several ``masks`` each is one nucleus; a single one holds all nuclei of the image where ``one_mask`` is set.
    ``group`` names images that must stay on one side of a split, such as crops of one picture; by default the image
    itself.
    """

    image_id: str
    image: str
    masks: tuple[str, ...]
    one_mask: bool
    group: str
    kind: str = "image"
    fold: int | None = None


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A folder of labelled images, sorted by id; ``layout`` says in words how it was understood."""

    root: Location
    layout: str
    samples: tuple[Sample, ...]


def find_training_set(root: Location, *, index: Location | None = None) -> TrainingSet:
    """Look at a folder and find out which images have which masks.

    Two layouts: ``<id>/images/*`` with ``<id>/masks/*`` (one file a nucleus, as in the Data Science Bowl), and
    ``images/`` or ``inputs/`` with ``masks/`` (one file an image, the same stem).

    Raises
    ------
    InputError
        Neither layout is there, both are, an image has no mask, or the index does not fit the images.
    """
    paths = [path for path, _ in list_files(root) if path.lower().endswith(IMAGE_SUFFIXES)]
    by_id = _one_file_a_nucleus(paths)
    paired = _one_file_an_image(paths, root)
    if by_id and paired:
        raise InputError(
            f"{root}: found both <id>/masks folders (such as {by_id[0].image_id}) and a masks folder with one file an "
            "image; expected one layout. Name the folder that holds only one of them."
        )
    samples = by_id or paired
    if not samples:
        raise InputError(
            f"{root}: expected <id>/images and <id>/masks folders, or images/ (or inputs/) and masks/ with files of "
            f"the same stem; found {len(paths)} image files in neither layout{_examples(paths)}"
        )
    layout = "<id>/images + <id>/masks, one file a nucleus" if by_id else "images + masks, one file an image"
    if index is not None:
        samples = _join_index(samples, fetch_bytes(index), name=str(index))
    return TrainingSet(root, layout, tuple(samples))


def _one_file_a_nucleus(paths: Sequence[str]) -> list[Sample]:
    images: dict[str, str] = {}
    masks: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        parts = PurePosixPath(path).parts
        if len(parts) != 3:
            continue
        image_id, folder, _ = parts
        if folder == MASK_FOLDER:
            masks[image_id].append(path)
        elif folder in IMAGE_FOLDERS and images.setdefault(image_id, path) != path:
            raise InputError(f"{image_id}: expected one image, found {images[image_id]} and {path}; remove one")
    lonely = sorted(set(masks) - set(images))
    if images and lonely:
        raise InputError(f"{len(lonely)} folders have masks and no image{_examples(lonely)}; add it, or remove them")
    # An image without any mask file is one without nuclei; without a single masks folder it is another layout.
    return [
        Sample(image_id, image, tuple(masks[image_id]), one_mask=False, group=image_id)
        for image_id, image in sorted(images.items())
        if masks
    ]


def _one_file_an_image(paths: Sequence[str], root: Location) -> list[Sample]:
    by_folder: dict[str, dict[str, str]] = {folder: {} for folder in (*IMAGE_FOLDERS, MASK_FOLDER)}
    for path in paths:
        parts = PurePosixPath(path).parts
        if len(parts) == 2 and parts[0] in by_folder:
            stem = PurePosixPath(path).stem
            if by_folder[parts[0]].setdefault(stem, path) != path:
                raise InputError(f"{root}: {by_folder[parts[0]][stem]} and {path} have the same stem; rename one")
    masks = by_folder[MASK_FOLDER]
    images: dict[str, str] = {}
    for folder in IMAGE_FOLDERS:
        for stem, path in by_folder[folder].items():
            if images.setdefault(stem, path) != path:
                raise InputError(f"{root}: {images[stem]} and {path} have the same stem; remove one")
    if not masks or not images:
        return []
    lonely = sorted(set(images) ^ set(masks))
    if lonely:
        raise InputError(
            f"{root}: {len(lonely)} files lack their partner of the same stem in {' or '.join(IMAGE_FOLDERS)} and "
            f"{MASK_FOLDER}{_examples(lonely)}; add what is missing, or remove them"
        )
    return [Sample(stem, images[stem], (masks[stem],), one_mask=True, group=stem) for stem in sorted(images)]


def _join_index(samples: Sequence[Sample], data: bytes, *, name: str) -> list[Sample]:
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig")))
        columns = reader.fieldnames or []
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name}: expected a CSV in UTF-8; {error}") from error
    id_column = _first(columns, _ID_COLUMNS)
    if id_column is None:
        raise InputError(f"{name}: expected a column {' or '.join(_ID_COLUMNS)}, found {', '.join(columns) or 'none'}")
    group, kind, fold = (_first(columns, names) for names in (_GROUP_COLUMNS, _KIND_COLUMNS, _FOLD_COLUMNS))
    by_id = {row[id_column]: row for row in rows}
    if len(by_id) != len(rows):
        counts = Counter(row[id_column] for row in rows)
        raise InputError(f"{name}: {counts.most_common(1)[0][0]!r} has several rows; expected one an image")
    unknown = [sample.image_id for sample in samples if sample.image_id not in by_id]
    if unknown:
        raise InputError(
            f"{name}: {len(unknown)} of {len(samples)} images have no row in it{_examples(unknown)}; add their rows"
        )
    return [_with_index(sample, by_id[sample.image_id], group, kind, fold, name=name) for sample in samples]


def _with_index(
    sample: Sample, row: Mapping[str, str], group: str | None, kind: str | None, fold: str | None, *, name: str
) -> Sample:
    try:
        number = int(row[fold]) if fold and row[fold] else None
    except ValueError as error:
        raise InputError(
            f"{name}: image {sample.image_id}: expected a number in {fold}, found {row[fold or '']!r}"
        ) from error
    return replace(
        sample,
        group=(group and row[group]) or sample.image_id,
        kind=(kind and row[kind]) or sample.kind,
        fold=number,
    )


def _first(columns: Sequence[str], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _examples(names: Sequence[str]) -> str:
    return f" (such as {', '.join(names[:_SHOWN])})" if names else ""
