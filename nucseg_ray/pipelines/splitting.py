"""Training and validation images, split by group: crops of one picture never land on both sides."""

from __future__ import annotations

from collections.abc import Sequence

from sklearn.model_selection import GroupShuffleSplit

from nucseg_ray.errors import UsageError
from nucseg_ray.storage.training_sets import Sample


def split_samples(
    samples: Sequence[Sample], *, fold: int | None, fraction: float, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """Give training and validation samples: by fold where one is named, else a seeded share of the groups.

    Raises
    ------
    UsageError
        The fold is not in the index, a group lies in several folds, or one side would be empty.
    """
    if fold is not None:
        return _by_fold(samples, fold)
    groups = [sample.group for sample in samples]
    if len(set(groups)) < 2:
        raise UsageError(
            f"--data: expected at least two independent images to split, found {len(samples)} of {len(set(groups))} "
            "group; add images"
        )
    splitter = GroupShuffleSplit(n_splits=1, test_size=fraction, random_state=seed)
    try:
        train, validation = next(splitter.split(samples, groups=groups))
    except ValueError as error:
        raise UsageError(
            f"--validation-fraction {fraction}: leaves none of {len(set(groups))} groups to train on; lower it"
        ) from error
    return [samples[i] for i in train], [samples[i] for i in validation]


def _by_fold(samples: Sequence[Sample], fold: int) -> tuple[list[Sample], list[Sample]]:
    folds = sorted({sample.fold for sample in samples if sample.fold is not None})
    if fold not in folds:
        known = ", ".join(map(str, folds)) or "no fold column (give --index)"
        raise UsageError(f"--fold {fold}: not in the index; found {known}")
    validation = [sample for sample in samples if sample.fold == fold]
    train = [sample for sample in samples if sample.fold != fold]
    shared = {sample.group for sample in validation} & {sample.group for sample in train}
    if shared:
        raise UsageError(
            f"--fold {fold}: group {sorted(shared)[0]!r} lies in this fold and in another; crops of one "
            "picture on both sides would flatter the score. Correct the index."
        )
    if not train:
        raise UsageError(f"--fold {fold}: every image is in this fold; none is left to train on")
    return train, validation
