"""Training and validation sides."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from nucseg_ray.config import TrainSettings
from nucseg_ray.errors import InputError, UsageError
from nucseg_ray.pipelines.splitting import (
    Split,
    by_cut_fold,
    by_fraction,
    by_known_fold,
    log_split,
    split_training_data,
)
from nucseg_ray.storage.labelled_images import Sample

GROUPS = st.lists(st.integers(0, 12), min_size=2, max_size=40).filter(lambda groups: len(set(groups)) > 1)


def sample(number: int, *, group: str | None = None, fold: int | None = None, kind: str = "image") -> Sample:
    name = f"{number:03d}"
    return Sample(name, f"{name}.png", (), one_mask=False, group=group or name, fold=fold, kind=kind)


def check_sides(samples: list[Sample], train: list[Sample], validation: list[Sample]) -> None:
    assert train and validation
    assert sorted(train + validation, key=lambda each: each.image_id) == samples
    assert not {each.group for each in train} & {each.group for each in validation}


@how(deadline=None)  # other work on the machine must not fail it
@given(groups=GROUPS, fraction=st.floats(0.01, 0.5), seed=st.integers(0, 2**31))
def test_no_group_is_on_both_sides(groups: list[int], fraction: float, seed: int) -> None:
    samples = [sample(number, group=f"g{group}") for number, group in enumerate(groups)]
    sides = by_fraction(samples, fraction=fraction, seed=seed)
    check_sides(samples, *sides)
    assert by_fraction(samples, fraction=fraction, seed=seed) == sides


def test_the_fraction_is_of_groups_and_the_seed_chooses_them() -> None:
    samples = [sample(number) for number in range(50)]
    splits = {tuple(each.image_id for each in by_fraction(samples, fraction=0.2, seed=seed)[1]) for seed in range(5)}
    assert {len(validation) for validation in splits} == {10}
    assert len(splits) == 5


def test_a_fold_that_is_known_validates() -> None:
    samples = [sample(0, fold=1), sample(1, fold=0), sample(2), sample(3, fold=1), sample(4, fold=2)]
    train, validation = by_known_fold(samples, 1)
    assert [each.image_id for each in validation] == ["000", "003"]
    assert [each.image_id for each in train] == ["001", "002", "004"]


@how(deadline=None)  # other work on the machine must not fail it
@given(groups=GROUPS, kinds=st.lists(st.sampled_from("abc"), min_size=40), seed=st.integers(0, 2**31), data=st.data())
def test_every_image_validates_in_one_of_the_folds_that_are_cut(
    groups: list[int], kinds: list[str], seed: int, data: st.DataObject
) -> None:
    samples = [sample(number, group=f"g{group}", kind=kinds[number]) for number, group in enumerate(groups)]
    folds = data.draw(st.integers(2, len(set(groups))))
    seen: Counter[str] = Counter()
    empty = 0
    for fold in range(folds):
        try:
            sides = by_cut_fold(samples, fold, folds=folds, seed=seed)
        except UsageError:  # one group can be larger than several folds
            empty += 1
            continue
        check_sides(samples, *sides)
        assert by_cut_fold(samples, fold, folds=folds, seed=seed) == sides
        seen.update(each.image_id for each in sides[1])
    assert seen == Counter(each.image_id for each in samples)
    assert not empty or len(set(groups)) < len(groups)


def test_folds_that_are_cut_hold_their_share_of_every_kind_whatever_fold_column_there_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # 40 groups of two images: 30 groups common, 10 rare; the images' own folds would put all rare ones into fold 0.
    samples = [
        sample(number, group=f"g{number // 2}", kind="rare" if number % 8 < 2 else "common", fold=int(number % 8 > 1))
        for number in range(80)
    ]
    with caplog.at_level(logging.INFO):
        cut = [by_cut_fold(samples, fold, folds=5, seed=3)[1] for fold in range(5)]
    assert [Counter(each.kind for each in fold) for fold in cut] == [{"common": 12, "rare": 4}] * 5
    assert "the folds that the images came with are not used" in caplog.text
    assert by_cut_fold(samples, 0, folds=5, seed=4)[1] != cut[0]


def test_a_kind_that_is_rarer_than_folds_is_cut_too() -> None:
    kinds = [sample(number, kind=f"kind {number}") for number in range(7)]
    assert sorted(len(by_cut_fold(kinds, fold, folds=3, seed=0)[1]) for fold in range(3)) == [2, 2, 3]
    rare = [sample(number, kind="rare" if number == 3 else "common") for number in range(9)]
    assert [len(by_cut_fold(rare, fold, folds=3, seed=0)[1]) for fold in range(3)] == [3, 3, 3]


@pytest.mark.parametrize(
    ("samples", "fold", "message"),
    [
        pytest.param(
            [sample(0, fold=0), sample(1, fold=2)], 1, "^--fold 1: no image is in it; found folds 0, 2", id="no"
        ),
        pytest.param(
            [sample(0), sample(1)], 0, "^--fold 0: .*found no fold column .give --index, or cut", id="no folds"
        ),
        pytest.param([sample(0, fold=0), sample(1, fold=0)], 0, "^--fold 0: .*none is left to train on", id="one fold"),
        pytest.param(
            [sample(0, group="well 7", fold=0), sample(1, group="well 7", fold=1)],
            0,
            "^--fold 0: group 'well 7' lies in this fold and outside it",
            id="leak",
        ),
    ],
)
def test_a_known_fold_that_cannot_be_had_is_refused(samples: list[Sample], fold: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        by_known_fold(samples, fold)


@pytest.mark.parametrize(
    ("samples", "fraction", "message"),
    [
        pytest.param([sample(0, group="g"), sample(1, group="g")], 0.2, "found 2 of 1 group", id="one group"),
        pytest.param([], 0.2, "found 0 of 0", id="nothing"),
        pytest.param([sample(0), sample(1)], 0.99, "0.99: leaves none of 2 groups", id="too large a share"),
    ],
)
def test_impossible_fractions_are_refused(samples: list[Sample], fraction: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        by_fraction(samples, fraction=fraction, seed=0)


def test_more_folds_than_groups_are_refused() -> None:
    samples = [sample(number, group=f"g{number % 3}") for number in range(12)]
    with pytest.raises(UsageError, match="^--folds 4: expected at least as many groups of images, found 3"):
        by_cut_fold(samples, 0, folds=4, seed=0)


def paired(folder: Path, *names: str) -> Path:
    """Make the files of a training set (nothing reads them)."""
    for name in names:
        for below in ("images", "masks"):
            (folder / below).mkdir(parents=True, exist_ok=True)
            (folder / below / f"{name}.png").touch()
    return folder


def split(data: Path, **settings: Any) -> Split:
    return split_training_data(TrainSettings(data=str(data), output="unused", **settings))


def names(split: Split) -> tuple[list[str], list[str]]:
    train, validation = ([each.image_id for each in side.samples] for side in (split.train, split.validation))
    return train, validation


def test_the_flags_choose_the_way_to_split(tmp_path: Path) -> None:
    data = paired(tmp_path / "data", *"abcdefgh")
    index = tmp_path / "index.csv"
    index.write_text("ImageId,fold\n" + "".join(f"{name},{number % 4}\n" for number, name in enumerate("abcdefgh")))
    assert names(split(data, index=str(index), fold=1)) == (list("acdegh"), list("bf"))
    cut = [names(split(data, index=str(index), fold=fold, folds=4, seed=1))[1] for fold in range(4)]
    assert sorted(name for fold in cut for name in fold) == list("abcdefgh")
    assert cut != [list("ae"), list("bf"), list("cg"), list("dh")]
    by_share = split(data, validation_fraction=0.5)
    assert len(by_share.validation.samples) == 4
    assert by_share == split(data, validation_fraction=0.5)
    assert len({tuple(names(split(data, validation_fraction=0.5, seed=seed))[1]) for seed in range(5)}) > 1


def test_an_explicit_set_validates_and_all_of_data_trains(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = paired(tmp_path / "data", "a", "b")
    manifest = tmp_path / "held_out" / "set.csv"
    paired(manifest.parent, "x", "y")
    manifest.write_text("image,mask,kind\nimages/x.png,masks/x.png,tissue\nimages/y.png,masks/y.png,\n")
    index = tmp_path / "index.csv"
    index.write_text("ImageId,kind,fold\na,cells,0\nb,cells,1\nimages/y.png,cells,1\n")
    found = split(data, validation_data=str(manifest), index=str(index))
    assert names(found) == (["a", "b"], ["images/x.png", "images/y.png"])
    assert (found.train.root.name, found.validation.root.name) == ("data", "held_out")
    assert [each.kind for each in found.validation.samples] == ["tissue", "cells"]
    with caplog.at_level(logging.INFO):
        log_split(found)
    assert f"{data}: images + masks, one file an image; 2 images to train on, 2 to validate on" in caplog.text
    assert f"validating on {manifest.parent}: manifest set.csv" in caplog.text


def test_what_is_on_both_sides_is_refused(tmp_path: Path) -> None:
    data = paired(tmp_path / "data", "a", "b", "c")
    same = paired(tmp_path / "same", "c", "d", "b")
    with pytest.raises(UsageError, match=r"--validation-data: 2 of its images are in --data too \(such as b, c\)"):
        split(data, validation_data=str(same))
    other = paired(tmp_path / "other", "x", "y")
    index = tmp_path / "index.csv"
    index.write_text("ImageId,group\na,7\nb,8\nc,9\nx,9\n")
    with pytest.raises(UsageError, match=r"--validation-data: 1 of its groups are in --data too \(such as 9\)"):
        split(data, validation_data=str(other), index=str(index))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_data": "x", "fold": 1}, "^--validation-data and --fold: each says what to validate on"),
        ({"validation_data": "x", "folds": 4}, "^--validation-data and --folds: each says"),
        ({"validation_data": "x", "validation_fraction": 0.3}, "^--validation-data and --validation-fraction: each"),
        ({"fold": 1, "validation_fraction": 0.3}, "^--fold and --validation-fraction: each"),
        ({"folds": 4, "fold": 1, "validation_fraction": 0.3}, "^--folds and --validation-fraction: each"),
        ({"folds": 4}, "^--folds 4: expected --fold too, from 0 to 3"),
        ({"folds": 4, "fold": 4}, "^--fold 4: expected 0 to 3, as --folds 4 cuts"),
    ],
)
def test_contradictory_flags_are_refused_before_anything_is_looked_at(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        split(tmp_path / "nowhere", **settings)


def test_an_index_of_data_must_know_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("ImageId,fold\na,1\n")
    with pytest.raises(InputError, match="1 of 2 images have no row in it"):
        split(paired(tmp_path / "data", "a", "b"), index=str(tmp_path / "index.csv"), fold=1)
