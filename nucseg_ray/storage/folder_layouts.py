"""Folders of labelled images: which layout a folder has, and which images have which masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from nucseg_ray.errors import InputError
from nucseg_ray.imaging.codecs import IMAGE_SUFFIXES
from nucseg_ray.storage.labelled_images import Sample, TrainingSet, examples
from nucseg_ray.storage.locations import Location

IMAGE_FOLDERS = ("images", "inputs")
MASK_FOLDER = "masks"


def find_in_folder(root: Location, files: Sequence[str]) -> TrainingSet:
    """Find out from the names of a folder's files which images have which masks.

    Two layouts: ``<id>/images/*`` with ``<id>/masks/*`` (one file a nucleus, as in the Data Science Bowl), and
    ``images/`` or ``inputs/`` with ``masks/`` (one file an image, the same stem).

    Raises
    ------
    InputError
        Neither layout is there, both are, or an image has no mask.
    """
    paths = [path for path in files if path.lower().endswith(IMAGE_SUFFIXES)]
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
            f"the same stem; found {len(paths)} image files in neither layout{examples(paths)}"
        )
    layout = "<id>/images + <id>/masks, one file a nucleus" if by_id else "images + masks, one file an image"
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
        raise InputError(f"{len(lonely)} folders have masks and no image{examples(lonely)}; add it, or remove them")
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
            f"{MASK_FOLDER}{examples(lonely)}; add what is missing, or remove them"
        )
    return [Sample(stem, images[stem], (masks[stem],), one_mask=True, group=stem) for stem in sorted(images)]
