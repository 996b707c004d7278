"""Training sets, whichever way they lie: folders of images and masks, manifests, packed sets."""

from __future__ import annotations

from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.folder_layouts import find_in_folder
from nucseg_ray.storage.image_index import join_index
from nucseg_ray.storage.image_manifest import MANIFEST_SUFFIXES, read_manifest
from nucseg_ray.storage.labelled_images import Sample, TrainingSet
from nucseg_ray.storage.listing import list_files
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.packed_sets import is_packed, read_packed
from nucseg_ray.storage.text_tables import read_csv

__all__ = ["Sample", "TrainingSet", "find_training_set"]


def find_training_set(root: Location, *, index: Location | None = None, index_is_partial: bool = False) -> TrainingSet:
    """Look at a folder or a manifest and find out which images have which masks.

    What the index says about an image comes before what the set itself says. It must know every image, unless it
    ``is_partial``: the index of another set, which may know some.

    Raises
    ------
    InputError
        The set is of no known layout, is incomplete or contradicts itself, or the index does not fit the images.
    """
    found = _find(root)
    if index is None:
        return found
    table = read_csv(fetch_bytes(index), name=str(index))
    return found.only(join_index(found.samples, table, partial=index_is_partial))


def _find(root: Location) -> TrainingSet:
    if root.uri.lower().endswith(MANIFEST_SUFFIXES):
        return read_manifest(root)
    sizes = dict(list_files(root))
    return read_packed(root, sizes) if is_packed(sizes) else find_in_folder(root, list(sizes))
