"""Scores against hand-made truth and a brute-force oracle."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

from nucseg_ray.errors import InputError
from nucseg_ray.imaging.metrics import THRESHOLDS, bowl_score, match, pool

EMPTY = np.zeros((4, 5), np.int32)


def row(*runs: tuple[int, int]) -> np.ndarray:
    """Label image of one row, from (label, length) runs."""
    return np.repeat(*np.array(runs, np.int32).T)[np.newaxis]


def oracle(truth: np.ndarray, predicted: np.ndarray) -> tuple[list[int], list[float]]:
    """Pairs matched at each threshold by an optimal assignment on exact IoUs, and the sum of their IoUs."""
    numbers = [[n for n in np.unique(labels) if n > 0] for labels in (truth, predicted)]
    iou = [
        [
            Fraction(int(np.sum((truth == t) & (predicted == p))), int(np.sum((truth == t) | (predicted == p))))
            for p in numbers[1]
        ]
        for t in numbers[0]
    ]
    counts, sums = [], []
    for threshold in (Fraction(n, 20) for n in range(10, 20)):
        allowed = np.array([[float(v) if v > threshold else 0.0 for v in line] for line in iou])
        allowed = allowed.reshape(len(numbers[0]), len(numbers[1]))
        # A match weighs more than any IoU can, so that the assignment matches as many as it can.
        rows, columns = linear_sum_assignment(-(allowed + (allowed > 0) * 100))
        chosen = allowed[rows, columns]
        counts.append(int(np.count_nonzero(chosen)))
        sums.append(float(chosen.sum()))
    return counts, sums


def test_thresholds() -> None:
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_numbers_worked_out_by_hand() -> None:
    truth = row((1, 10), (0, 5), (2, 10), (0, 5), (3, 4))
    predicted = row((1, 8), (0, 7), (2, 10), (7, 3), (0, 6))  # IoU 0.8 and 1; 3 missed; 7 invented
    found = match(truth, predicted)
    assert found.tp.tolist() == [2] * 6 + [1] * 4  # 0.8 is not above 0.8
    assert found.fp.tolist() == [1] * 6 + [2] * 4
    assert found.fn.tolist() == [1] * 6 + [2] * 4
    assert (found.n_truth, found.n_predicted) == (3, 3)
    np.testing.assert_allclose(found.iou_sum, [1.8] * 6 + [1.0] * 4)
    np.testing.assert_allclose(found.ap, [2 / 4] * 6 + [1 / 5] * 4)
    np.testing.assert_allclose(found.precision, [2 / 3] * 6 + [1 / 3] * 4)
    np.testing.assert_allclose(found.recall, [2 / 3] * 6 + [1 / 3] * 4)
    np.testing.assert_allclose(found.f1, [2 / 3] * 6 + [1 / 3] * 4)
    np.testing.assert_allclose(found.panoptic_quality, [1.8 / 3] * 6 + [1 / 3] * 4)
    assert (found.intersection_px, found.truth_px, found.predicted_px) == (18, 24, 21)
    assert found.dice == pytest.approx(36 / 45)
    assert found.pixel_iou == pytest.approx(18 / 27)
    assert bowl_score([found]) == pytest.approx(0.38)


def test_exactly_a_threshold_is_no_match() -> None:
    for n, threshold in enumerate(THRESHOLDS):
        overlap = round(threshold * 20)
        found = match(row((1, 20)), row((1, overlap), (0, 20 - overlap)))
        assert found.tp.tolist() == [1] * n + [0] * (10 - n)


def test_nothing_predicted_where_nothing_is() -> None:
    found = match(EMPTY, EMPTY)
    for scores in (found.ap, found.precision, found.recall, found.f1, found.panoptic_quality):
        np.testing.assert_array_equal(scores, np.ones(10))
    assert found.dice == found.pixel_iou == bowl_score([found]) == 1.0


@pytest.mark.parametrize("swap", [False, True])
def test_something_where_nothing_is_and_the_reverse(swap: bool) -> None:
    one = EMPTY.copy()
    one[1:3, 1:3] = 1
    found = match(one, EMPTY) if swap else match(EMPTY, one)
    for scores in (found.ap, found.precision, found.recall, found.f1, found.panoptic_quality):
        np.testing.assert_array_equal(scores, np.zeros(10))
    assert found.dice == found.pixel_iou == bowl_score([found]) == 0.0


@settings(max_examples=150, deadline=None)
@given(
    hnp.arrays(np.int32, (5, 6), elements=st.integers(0, 3)),
    hnp.arrays(np.int32, (5, 6), elements=st.integers(0, 3)),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_matches_the_assignment_oracle(first: np.ndarray, second: np.ndarray, share: float, seed: int) -> None:
    # Mostly the same labels, so that pairs really match; with gaps in the numbers of one.
    mixed = np.where(np.random.default_rng(seed).random(first.shape) < share, first, second) * 3
    found = match(first, mixed)
    counts, sums = oracle(first, mixed)
    assert found.tp.tolist() == counts
    np.testing.assert_allclose(found.iou_sum, sums, atol=1e-12)
    back = match(mixed, first)
    np.testing.assert_array_equal([back.tp, back.fp, back.fn], [found.tp, found.fn, found.fp])


def test_pooling_counts_every_nucleus_alike() -> None:
    good = match(row((1, 10), (2, 10), (3, 10)), row((1, 10), (2, 10), (3, 10)))
    bad = match(row((1, 10)), row((0, 10)))
    pooled = pool([good, bad])
    np.testing.assert_allclose(pooled.ap, [3 / 4] * 10)
    assert (pooled.truth_px, pooled.predicted_px, pooled.intersection_px) == (40, 30, 30)
    np.testing.assert_array_equal((good + bad).tp, pooled.tp)
    assert bowl_score([good, bad]) == 0.5
    np.testing.assert_array_equal(pool([]).ap, np.ones(10))


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match=r"one shape; found \(4, 5\) and \(5, 4\)"):
        match(EMPTY, EMPTY.T)
    with pytest.raises(InputError, match="found a negative one"):
        match(EMPTY, EMPTY - 1)
    with pytest.raises(InputError, match="at least one image"):
        bowl_score([])
