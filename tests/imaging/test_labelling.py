"""Nuclei that a run leaves out: small ones by the image's own pixels, and those at the border."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucseg_ray.imaging.labelling import Labelling, without_border
from nucseg_ray.imaging.labels import CentreLabels, ForegroundLabels

LABELS = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 6))


@settings(max_examples=120, deadline=None)
@given(LABELS)
def test_what_touches_the_border_goes_and_the_rest_keeps_its_order(labels: np.ndarray) -> None:
    before = labels.copy()
    found = without_border(labels)
    np.testing.assert_array_equal(labels, before)
    at_border = {*labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]}
    kept = [number for number in range(1, 7) if number in labels and number not in at_border]
    expected = np.zeros_like(labels)
    for new, number in enumerate(kept, start=1):
        expected[labels == number] = new
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int32


@pytest.mark.parametrize("variant", [ForegroundLabels(), CentreLabels()])
@pytest.mark.parametrize("scale", [0.7, 1.0, 2.3])
def test_a_least_area_is_in_pixels_of_the_image_at_any_scale(
    variant: ForegroundLabels | CentreLabels, scale: float
) -> None:
    truth = np.zeros((40, 60), np.int32)
    truth[0:6, 5:11], truth[20:25, 5:12], truth[20:26, 40:46] = 1, 2, 3  # 36, 35 and 36 pixels
    maps = variant.targets(truth)
    maps[:, :, 1:] = np.rint((maps[:, :, 1:].astype(float) - 128) * scale + 128)
    for least, drop_border, kept in ((36, False, [1, 3]), (36, True, [3]), (35, False, [1, 2, 3]), (0, True, [2, 3])):
        found = Labelling(variant, min_area_px=least, drop_border=drop_border).label(maps, scale=scale)
        np.testing.assert_array_equal(found > 0, np.isin(truth, kept))
        np.testing.assert_array_equal(np.unique(found), range(len(kept) + 1))
    whole = Labelling(variant).label(maps, scale=scale)
    np.testing.assert_array_equal(whole, variant.label(maps, scale=scale))
