"""Training and validation images, split by group: crops of one picture never land on both sides."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold

from nucseg_ray.config import TrainSettings
from nucseg_ray.errors import UsageError
from nucseg_ray.storage.labelled_images import examples
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import Sample, TrainingSet, find_training_set

logger = logging.getLogger(__name__)
_Sides = tuple[list[Sample], list[Sample]]


@dataclass(frozen=True, slots=True)
class Split:
    """The two sides of a training; each may have a root of its own."""

    train: TrainingSet
    validation: TrainingSet


def split_training_data(settings: TrainSettings) -> Split:
    """Find the images that the settings name and split them.

    All of ``--data`` trains where ``--validation-data`` is given. Else one part of it validates: ``--fold`` of the
    folds that index, manifest or pack name; ``--fold`` of ``--folds`` that are cut here, the same for the same images
    and seed; or a seeded share of the groups.

    Raises
    ------
    NucsegError
        The flags contradict each other, the data cannot be used, or it cannot be split so.
    """
    _refuse_contradictions(settings)
    index = None if settings.index is None else Location(settings.index)
    found = find_training_set(Location(settings.data), index=index)
    if settings.validation_data is not None:
        validation = find_training_set(Location(settings.validation_data), index=index, index_is_partial=True)
        _refuse_shared(found, validation)
        return Split(found, validation)
    if settings.fold is None:
        train, held_out = by_fraction(found.samples, fraction=settings.validation_fraction, seed=settings.seed)
    elif settings.folds is None:
        train, held_out = by_known_fold(found.samples, settings.fold)
    else:
        train, held_out = by_cut_fold(found.samples, settings.fold, folds=settings.folds, seed=settings.seed)
    return Split(found.only(train), found.only(held_out))


def log_split(split: Split) -> None:
    """Log what was found where, and how many images each side has."""
    train, validation = split.train, split.validation
    counts = (len(train.samples), len(validation.samples))
    logger.info("%s: %s; %d images to train on, %d to validate on", train.root, train.layout, *counts)
    if (validation.root, validation.layout) != (train.root, train.layout):
        logger.info("validating on %s: %s", validation.root, validation.layout)


def by_fraction(samples: Sequence[Sample], *, fraction: float, seed: int) -> _Sides:
    """Give training and validation samples: a seeded share of the groups validates.

    Raises
    ------
    UsageError
        There are too few groups, so that one side would be empty.
    """
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


def by_known_fold(samples: Sequence[Sample], fold: int) -> _Sides:
    """Give training and validation samples: those that are known to be in the fold validate.

    Raises
    ------
    UsageError
        No image is in the fold, or all are, or a group lies in several folds.
    """
    folds = sorted({sample.fold for sample in samples if sample.fold is not None})
    if fold not in folds:
        known = (
            f"folds {', '.join(map(str, folds))}" if folds else "no fold column (give --index, or cut some: --folds)"
        )
        raise UsageError(f"--fold {fold}: no image is in it; found {known}")
    validation = [sample for sample in samples if sample.fold == fold]
    train = [sample for sample in samples if sample.fold != fold]
    shared = {sample.group for sample in validation} & {sample.group for sample in train}
    if shared:
        raise UsageError(
            f"--fold {fold}: group {sorted(shared)[0]!r} lies in this fold and outside it; crops of one "
            "picture on both sides would flatter the score. Correct the folds, or cut others with --folds."
        )
    if not train:
        raise UsageError(f"--fold {fold}: every image is in this fold; none is left to train on")
    return train, validation


def by_cut_fold(samples: Sequence[Sample], fold: int, *, folds: int, seed: int) -> _Sides:
    """Give training and validation samples: the groups are cut into folds with each kind's share in each of them.

    Raises
    ------
    UsageError
        There are fewer groups than folds.
    """
    groups = [sample.group for sample in samples]
    if len(set(groups)) < folds:
        raise UsageError(
            f"--folds {folds}: expected at least as many groups of images, found {len(set(groups))}; lower --folds"
        )
    if any(sample.fold is not None for sample in samples):
        logger.info("--folds %d: cut by group; the folds that the images came with are not used", folds)
    kinds = [sample.kind for sample in samples]
    if max(Counter(kinds).values()) < folds:
        kinds = [""] * len(samples)  # too few of any kind to have a share of it in each fold
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # a rare kind is not in every fold
        train, validation = list(splitter.split(samples, kinds, groups))[fold]
    if not len(validation):
        raise UsageError(f"--fold {fold}: is empty, since some of {len(set(groups))} groups are large; lower --folds")
    return [samples[i] for i in train], [samples[i] for i in validation]


def _refuse_contradictions(settings: TrainSettings) -> None:
    """Refuse two flags that each say what to validate on, and a half of a pair."""
    fraction = settings.validation_fraction
    default = TrainSettings.model_fields["validation_fraction"].default
    ways = {
        "--validation-data": settings.validation_data is not None,
        "--folds": settings.folds is not None,
        "--fold": settings.fold is not None,
        # A run that is resumed names every setting: only another value than the default's was meant.
        "--validation-fraction": fraction != default,
    }
    given = [flag for flag, is_given in ways.items() if is_given]
    if len(given) > 1 and given != ["--folds", "--fold"]:
        raise UsageError(f"{given[0]} and {given[-1]}: each says what to validate on; give one of them")
    if settings.folds is None:
        return
    if settings.fold is None:
        raise UsageError(f"--folds {settings.folds}: expected --fold too, from 0 to {settings.folds - 1}; add it")
    if settings.fold >= settings.folds:
        raise UsageError(
            f"--fold {settings.fold}: expected 0 to {settings.folds - 1}, as --folds {settings.folds} cuts"
        )


def _refuse_shared(train: TrainingSet, validation: TrainingSet) -> None:
    """Refuse to validate on what is trained on."""
    for attribute, what in (("image_id", "image"), ("group", "group")):
        shared = {getattr(sample, attribute) for sample in train.samples} & {
            getattr(sample, attribute) for sample in validation.samples
        }
        if shared:
            raise UsageError(
                f"--validation-data: {len(shared)} of its {what}s are in --data too{examples(sorted(shared))}; images "
                "on both sides would flatter the score. Remove them from one side, or rename what is not the same."
            )
