"""Masks to label images: joined, split and renumbered, against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucseg_ray.errors import DecodeError
from nucseg_ray.imaging.masks import join_masks, labels_from_mask


def test_masks_join_with_overlaps_and_empties_counted() -> None:
    masks = np.zeros((5, 3, 6), np.uint16)
    masks[0, :2, :3] = 255
    masks[2, 1:, 1:5] = 1  # disputes (1, 1) and (1, 2) with the first
    masks[3, 0, :2] = 65_535  # wholly under the first
    masks[4, 0, 5] = 7
    joined = join_masks(masks, shape=(3, 6))  # the second has no pixel
    np.testing.assert_array_equal(joined.labels, [[1, 1, 1, 0, 0, 3], [1, 1, 1, 2, 2, 0], [0, 2, 2, 2, 2, 0]])
    assert joined.labels.dtype == np.int32
    assert (joined.overlap_px, joined.n_empty) == (4, 2)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(0, 5), st.just(3), st.just(4)), elements=st.integers(0, 1)))
def test_joined_masks_agree_with_a_loop_over_pixels(masks: np.ndarray) -> None:
    joined = join_masks(masks, shape=(3, 4))
    owner = np.where(masks.any(axis=0), masks.argmax(axis=0) + 1, 0) if len(masks) else np.zeros((3, 4), int)
    owners = [number for number in range(1, len(masks) + 1) if (owner == number).any()]
    for label, number in enumerate(owners, start=1):
        np.testing.assert_array_equal(joined.labels == label, owner == number)
    assert joined.labels.max() == len(owners)
    assert joined.n_empty == len(masks) - len(owners)
    assert joined.overlap_px == int(masks.sum()) - np.count_nonzero(owner)


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(DecodeError, match=r"3 x 6.*\(6, 3\)"):
        join_masks([np.ones((6, 3), np.uint8)], shape=(3, 6))


@pytest.mark.parametrize(("dtype", "high"), [(np.uint8, 1), (np.uint8, 255), (np.uint16, 255), (np.uint16, 65_535)])
def test_a_mask_of_two_values_falls_into_components(dtype: type, high: int) -> None:
    mask = np.array([[1, 0, 0, 1, 1], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0]], dtype) * dtype(high)
    expected = [[1, 0, 0, 2, 2], [0, 1, 0, 0, 2], [0, 0, 0, 0, 0], [3, 3, 0, 0, 0]]
    labels = labels_from_mask(mask)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        pytest.param([[0, 3, 3], [9, 0, 200]], [[0, 1, 1], [2, 0, 3]], id="gaps"),
        pytest.param([[0, 5, 0], [0, 0, 5]], [[0, 1, 0], [0, 0, 1]], id="one nucleus of two pieces"),
        pytest.param([[4, 4, 9], [9, 7, 7]], [[1, 1, 3], [3, 2, 2]], id="labels without background"),
        pytest.param([[1, 255], [1, 1]], [[1, 2], [1, 1]], id="two labels without background"),
        pytest.param([[255, 255], [255, 255]], [[1, 1], [1, 1]], id="all nucleus"),
        pytest.param([[6, 6], [6, 6]], [[1, 1], [1, 1]], id="all one label"),
        pytest.param([[0, 0], [0, 0]], [[0, 0], [0, 0]], id="no nucleus"),
    ],
)
def test_labels_are_renumbered(mask: list[list[int]], expected: list[list[int]]) -> None:
    np.testing.assert_array_equal(labels_from_mask(np.array(mask, np.uint8)), expected)
