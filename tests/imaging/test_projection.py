"""Stacks to one image, against plain NumPy; the sharpest plane of synthetic stacks."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucseg_ray.imaging.projection import PROJECTIONS, project, sharpness

STACKS = hnp.arrays(
    st.sampled_from([np.uint8, np.uint16]),
    st.one_of(
        st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)),
        st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.just(3)),
    ),
)


@settings(max_examples=80, deadline=None)
@given(STACKS)
def test_pixels_are_the_largest_and_the_mean_rounded(stack: np.ndarray) -> None:
    before = stack.copy()
    largest, mean = project(list(stack), "max"), project(list(stack), "mean")
    np.testing.assert_array_equal(largest, stack.max(axis=0))
    rounded = [
        floor(Fraction(int(total), len(stack)) + Fraction(1, 2)) for total in stack.sum(axis=0, dtype=np.int64).ravel()
    ]
    np.testing.assert_array_equal(mean.ravel(), rounded)
    assert largest.dtype == mean.dtype == stack.dtype
    np.testing.assert_array_equal(stack, before)


def test_a_mean_of_the_brightest_pixels_does_not_overflow() -> None:
    white = np.full((2, 2), 65_535, np.uint16)
    np.testing.assert_array_equal(project((white for _ in range(700)), "mean"), white)


@pytest.mark.parametrize("by", PROJECTIONS)
def test_one_plane_is_the_image(by: str) -> None:
    plane = np.arange(12, dtype=np.uint16).reshape(3, 4)
    np.testing.assert_array_equal(project(iter([plane]), by), plane)


def test_sharpness_is_brenners_gradient_over_the_squared_mean() -> None:
    plane = np.array([[0, 10, 20, 60000]], np.uint16)
    assert sharpness(plane) == pytest.approx(((20 - 0) ** 2 + (60000 - 10) ** 2) / 2 / np.mean([0, 10, 20, 60000]) ** 2)
    assert sharpness(plane.T.copy()) == sharpness(plane)
    assert sharpness(np.zeros((5, 5), np.uint8)) == 0.0
    assert sharpness(np.full((2, 2), 9, np.uint8)) == 0.0


def _nuclei(sigma: float, brightness: float, rng: np.random.Generator) -> np.ndarray:
    """Draw discs on a background as a camera sees them: blurred, with shot noise and read noise."""
    image = np.full((160, 160), 100.0)
    for y, x in ((40, 40), (40, 110), (100, 75), (130, 130)):
        cv2.circle(image, (x, y), 11, 900.0, -1)
    image = cv2.GaussianBlur(image, (0, 0), sigma) * brightness
    return np.clip(rng.poisson(image) + rng.normal(0, 5, image.shape), 0, 65_535).astype(np.uint16)


@pytest.mark.parametrize("seed", range(6))
def test_the_plane_in_focus_is_found_in_noise_and_not_the_brightest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    defocus, brightness = (6.0, 3.5, 2.0, 1.0, 2.0, 4.0), (1.6, 1.4, 1.2, 1.0, 0.9, 0.8)
    stack = [_nuclei(sigma, level, rng) for sigma, level in zip(defocus, brightness, strict=True)]
    np.testing.assert_array_equal(project(stack, "best-focus"), stack[3])
    np.testing.assert_array_equal(project(stack[::-1], "best-focus"), stack[3])


def test_of_planes_equally_sharp_the_first_is_taken() -> None:
    """A plane turned by 180 degrees has the same pairs of pixels; so has a plane of double contrast and brightness."""
    plane = np.random.default_rng(0).integers(0, 200, (9, 9), np.uint16)
    for twin in (plane[::-1, ::-1], plane * np.uint16(2)):
        assert sharpness(twin) == sharpness(plane)
        assert project([np.ones_like(plane), twin, plane], "best-focus") is twin
        assert project([plane, twin], "best-focus") is plane
