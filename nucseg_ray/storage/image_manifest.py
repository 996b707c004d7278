"""Manifests of labelled images: a table with a row an image that names its image file and its mask file."""

from __future__ import annotations

import os.path
import posixpath
from collections.abc import Mapping

from nucseg_ray.errors import InputError, UsageError
from nucseg_ray.storage.fetch import fetch_bytes
from nucseg_ray.storage.image_index import FOLD_COLUMNS, GROUP_COLUMNS, ID_COLUMNS, KIND_COLUMNS, describe
from nucseg_ray.storage.labelled_images import Sample, TrainingSet
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.text_tables import TextTable, read_csv, read_parquet

MANIFEST_SUFFIXES = (".csv", ".parquet")
_IMAGE, _MASK = "image", "mask"
_COLUMNS = (_IMAGE, _MASK, *ID_COLUMNS, *GROUP_COLUMNS, *KIND_COLUMNS, *FOLD_COLUMNS)


def read_manifest(manifest: Location) -> TrainingSet:
    """Read a manifest in CSV or Parquet: ``image, mask`` and any of group, kind, fold and an id.

    Paths are relative to the manifest's folder, absolute, or URIs. A mask holds all nuclei of its image. The id is the
    image's path as it is written, unless a column ``image_id`` (or ``ImageId``) gives another. Whether the files are
    there is seen when they are read; the message then names the row.

    Raises
    ------
    InputError
        A column is missing, a row names no image or no mask, a path means nothing, or an image is named twice.
    """
    data = fetch_bytes(manifest)
    if manifest.uri.lower().endswith(".csv"):
        table = read_csv(data, name=str(manifest))
    else:
        table = read_parquet(data, name=str(manifest), wanted=_COLUMNS)
    missing = [column for column in (_IMAGE, _MASK) if column not in table.columns]
    if missing:
        raise InputError(
            f"{manifest}: expected the columns {_IMAGE} and {_MASK}, found {', '.join(table.columns) or 'none'}; add "
            f"{' and '.join(missing)} (a table that only describes the images of a folder goes to --index)"
        )
    if not table.rows:
        raise InputError(f"{manifest}: expected a row an image, found none below the names of the columns")
    samples = [_sample(manifest, table, place, row) for place, row in table.rows]
    _refuse_repeated(manifest, samples)
    layout = f"manifest {manifest.name}, one mask file an image"
    return TrainingSet(manifest.parent, layout, tuple(sorted(samples, key=lambda sample: sample.image_id)))


def _sample(manifest: Location, table: TextTable, place: str, row: Mapping[str, str]) -> Sample:
    where = f"{manifest}, {place}"
    empty = [column for column in (_IMAGE, _MASK) if not row[column].strip()]
    if empty:
        raise InputError(f"{where}: expected a path, found nothing in {' and '.join(empty)}; fill it in, or remove it")
    image, mask = (_resolve(manifest.parent, row[column], where=where) for column in (_IMAGE, _MASK))
    if image == mask:
        raise InputError(f"{where}: expected an image and its mask, found {row[_IMAGE]} as both")
    id_column = table.first_of(ID_COLUMNS)
    image_id = (id_column and row[id_column]) or row[_IMAGE]
    sample = Sample(image_id, image, (mask,), one_mask=True, group=image_id, named_in=where)
    return describe(sample, table, place, row)


def _resolve(folder: Location, path: str, *, where: str) -> str:
    """Give a path below the folder as a relative one, any other as an absolute one or a URI."""
    try:
        if path.startswith("/") or "://" in path:
            return Location(path).uri
        below = posixpath.normpath(path)
        if not (below == ".." or below.startswith("../")):
            return (folder / below).relative_to(folder)
        protocol, separator, rest = folder.uri.rpartition("://")
        climbed = os.path.normpath(f"{rest}/{path}")
        if separator and climbed.split("/")[0] != rest.split("/")[0]:
            raise InputError(f"{where}: {path} leads out of {protocol}://{rest.split('/')[0]}; give the whole URI")
        return Location(f"{protocol}{separator}{climbed}").uri
    except UsageError as error:
        raise InputError(f"{where}: {error}") from error


def _refuse_repeated(manifest: Location, samples: list[Sample]) -> None:
    for what in ("image", "image_id"):
        seen: dict[str, str] = {}
        for sample in samples:
            value = getattr(sample, what)
            before = seen.setdefault(value, sample.named_in)
            if before != sample.named_in:
                first = before.removeprefix(f"{manifest}, ")
                raise InputError(f"{sample.named_in}: {value} was named in {first} already; remove one of them")
