"""Training and validation sides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucseg_ray.errors import UsageError
from nucseg_ray.pipelines.splitting import split_samples
from nucseg_ray.storage.training_sets import Sample


def sample(number: int, *, group: str | None = None, fold: int | None = None) -> Sample:
    name = f"{number:03d}"
    return Sample(name, f"{name}.png", (), one_mask=False, group=group or name, fold=fold)


@given(
    groups=st.lists(st.integers(0, 12), min_size=2, max_size=40).filter(lambda groups: len(set(groups)) > 1),
    fraction=st.floats(0.01, 0.5),
    seed=st.integers(0, 2**31),
)
def test_no_group_is_on_both_sides(groups: list[int], fraction: float, seed: int) -> None:
    samples = [sample(number, group=f"g{group}") for number, group in enumerate(groups)]
    train, validation = split_samples(samples, fold=None, fraction=fraction, seed=seed)
    assert train and validation
    assert sorted(train + validation, key=lambda each: each.image_id) == samples
    assert not {each.group for each in train} & {each.group for each in validation}
    assert split_samples(samples, fold=None, fraction=fraction, seed=seed) == (train, validation)


def test_the_fraction_is_of_groups_and_the_seed_chooses_them() -> None:
    samples = [sample(number) for number in range(50)]
    splits = {
        tuple(each.image_id for each in split_samples(samples, fold=None, fraction=0.2, seed=seed)[1])
        for seed in range(5)
    }
    assert {len(validation) for validation in splits} == {10}
    assert len(splits) == 5


def test_a_fold_validates() -> None:
    samples = [sample(0, fold=1), sample(1, fold=0), sample(2), sample(3, fold=1), sample(4, fold=2)]
    train, validation = split_samples(samples, fold=1, fraction=0.2, seed=0)
    assert [each.image_id for each in validation] == ["000", "003"]
    assert [each.image_id for each in train] == ["001", "002", "004"]


@pytest.mark.parametrize(
    ("samples", "fold", "fraction", "message"),
    [
        pytest.param(
            [sample(0, fold=0), sample(1, fold=2)], 1, 0.2, "fold 1: not in the index; found 0, 2", id="no such"
        ),
        pytest.param([sample(0), sample(1)], 0, 0.2, "found no fold column", id="no folds"),
        pytest.param([sample(0, fold=0), sample(1, fold=0)], 0, 0.2, "none is left to train on", id="one fold"),
        pytest.param(
            [sample(0, group="well 7", fold=0), sample(1, group="well 7", fold=1)],
            0,
            0.2,
            "'well 7' lies in this",
            id="leak",
        ),
        pytest.param([sample(0, group="g"), sample(1, group="g")], None, 0.2, "found 2 of 1 group", id="one group"),
        pytest.param([], None, 0.2, "found 0 of 0", id="nothing"),
        pytest.param([sample(0), sample(1)], None, 0.99, "0.99: leaves none of 2 groups", id="too large a share"),
    ],
)
def test_impossible_splits_are_refused(samples: list[Sample], fold: int | None, fraction: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split_samples(samples, fold=fold, fraction=fraction, seed=0)
