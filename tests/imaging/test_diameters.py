"""Centroids and diameters of nuclei, and the typical one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nucseg_ray.imaging.diameters import believed_diameter, nuclei_of, typical_diameter


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


def discs(*diameters: float, shape: tuple[int, int] = (900, 900)) -> np.ndarray:
    """Lay out discs of these diameters in rows."""
    labels = np.zeros(shape, np.int32)
    y, x = np.mgrid[: shape[0], : shape[1]]
    top, left, lowest = 0.0, 0.0, 0.0
    for number, diameter in enumerate(diameters, start=1):
        if left + diameter > shape[1]:
            top, left, lowest = lowest, 0.0, lowest
        centre = top + diameter / 2, left + diameter / 2
        labels[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (diameter / 2) ** 2] = number
        left, lowest = left + diameter + 2, max(lowest, top + diameter + 2)
    assert np.unique(labels).size == len(diameters) + 1
    return labels


@pytest.mark.parametrize(
    ("diameters", "expected"),
    [
        ([], None),
        ([9.0] * 4, None),  # a few specks in an empty well
        ([9.0] * 5, 9),  # as many small nuclei are
        ([90.0], 90),  # one large nucleus is enough
        ([300.0] + [20.0] * 50, 20),  # a blob out of focus, or two
        ([300.0, 280.0] + [12.0] * 60, 12),
        ([100.0] + [6.0] * 40, 100),  # a large nucleus among debris
        ([100.0] * 3 + [12.0] * 60, 100),  # three are no accident
        ([700.0], None),  # nearly the whole image: background that was taken for a nucleus
        ([25.0, 30.0, 30.0, 30.0, 41.0], 30),
    ],
)
def test_a_diameter_is_believed_or_not(diameters: list[float], expected: float | None) -> None:
    found = believed_diameter(discs(*diameters), model_diameter_px=30.0)
    assert found == (None if expected is None else pytest.approx(expected, rel=0.04))
