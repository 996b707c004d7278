"""Centroids and diameters of nuclei, and the typical one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nucseg_ray.imaging.diameters import nuclei_of, typical_diameter


@pytest.mark.parametrize("seed", range(4))
def test_nuclei_against_scipy(seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 9, (30, 41)).astype(np.int32)
    labels[labels == 4] = 0  # a number that does not occur
    found = nuclei_of(labels)
    assert found.dtype == np.float32
    for number in (1, 2, 3, 5, 6, 7, 8):
        centre = ndimage.center_of_mass(labels == number)
        diameter = 2 * np.sqrt((labels == number).sum() / np.pi)
        np.testing.assert_allclose(found[number], [*centre, diameter], rtol=1e-6)
    assert not found[[0, 4]].any()


def test_no_nuclei() -> None:
    np.testing.assert_array_equal(nuclei_of(np.zeros((3, 4), np.int32)), np.zeros((1, 3)))
    assert typical_diameter(np.zeros(0)) is None
    assert typical_diameter(np.zeros(3)) is None


def test_the_typical_diameter_weighs_by_area() -> None:
    assert typical_diameter(np.array([0, 12.0])) == 12.0
    # Forty specks of 2 px have the area of 160, ten nuclei of 20 px that of 4000.
    assert typical_diameter(np.array([2.0] * 40 + [20.0] * 10)) == 20.0
    assert typical_diameter(np.array([30.0, 10.0, 20.0])) == 30.0
    assert typical_diameter(np.array([10.0, 20.0, 20.0, 29.0])) == 20.0
