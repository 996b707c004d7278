"""What a table says about each image: its group, kind and fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from nucseg_ray.errors import InputError
from nucseg_ray.storage.labelled_images import Sample, examples
from nucseg_ray.storage.text_tables import TextTable, whole_number

ID_COLUMNS = ("ImageId", "image_id")
GROUP_COLUMNS = ("group", "mosaic_idx")
KIND_COLUMNS = ("kind", "modality")
FOLD_COLUMNS = ("fold", "topcoders_fold")
_INDEX_ID_COLUMNS = (*ID_COLUMNS, "image")


def join_index(samples: Sequence[Sample], index: TextTable, *, partial: bool) -> list[Sample]:
    """Give the samples with what an index says about them; with ``partial`` it need not know them all.

    Raises
    ------
    InputError
        The index has no column of ids, an image several times or not at all, or a fold that is no number.
    """
    id_column = index.first_of(_INDEX_ID_COLUMNS)
    if id_column is None:
        found = ", ".join(index.columns) or "none"
        raise InputError(f"{index.name}: expected a column {' or '.join(_INDEX_ID_COLUMNS)}, found {found}")
    by_id = {row[id_column]: (place, row) for place, row in index.rows}
    if len(by_id) != len(index.rows):
        counts = Counter(row[id_column] for _, row in index.rows)
        raise InputError(f"{index.name}: {counts.most_common(1)[0][0]!r} has several rows; expected one an image")
    unknown = [sample.image_id for sample in samples if sample.image_id not in by_id]
    if unknown and not partial:
        raise InputError(
            f"{index.name}: {len(unknown)} of {len(samples)} images have no row in it{examples(unknown)}; "
            "add their rows"
        )
    return [
        describe(sample, index, *by_id[sample.image_id]) if sample.image_id in by_id else sample for sample in samples
    ]


def describe(sample: Sample, table: TextTable, place: str, row: Mapping[str, str]) -> Sample:
    """Give a sample with the group, kind and fold of its row; what the row leaves open stays as it is.

    Raises
    ------
    InputError
        The fold is no number.
    """
    group, kind, fold = (table.first_of(names) for names in (GROUP_COLUMNS, KIND_COLUMNS, FOLD_COLUMNS))
    try:
        number = whole_number(row[fold]) if fold and row[fold] else sample.fold
    except ValueError as error:
        raise InputError(
            f"{table.name}, {place}: image {sample.image_id}: expected a number in {fold}, found {row[fold or '']!r}"
        ) from error
    return replace(
        sample,
        group=(group and row[group]) or sample.group,
        kind=(kind and row[kind]) or sample.kind,
        fold=number,
    )
