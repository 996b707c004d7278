"""Pixels into [0, 1]."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucseg_ray.imaging.codecs import decode_image
from nucseg_ray.imaging.normalise import FullRange, Percentile, noise_sigma, normalisation_from_dict, percentiles


def noisy(sigma: float, *, level: float = 1000.0, shape: tuple[int, ...] = (256, 256), seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.rint(level + sigma * rng.standard_normal(shape)).clip(0).astype(np.uint16)


def test_full_range_divides_by_the_types_largest_value() -> None:
    eight = FullRange().normalise(np.array([[0, 51, 255]], np.uint8))
    sixteen = FullRange().normalise(np.array([[0, 13107, 65535]], np.uint16))
    assert eight.dtype == sixteen.dtype == np.float32
    np.testing.assert_array_equal(eight, np.float32([[0, 0.2, 1]]))
    np.testing.assert_array_equal(sixteen, np.float32([[0, 0.2, 1]]))


def test_percentile_stretches_between_its_percentiles() -> None:
    # A smooth slope has no noise; its percentiles 10 and 90 are 100 and 900.
    image = np.repeat(np.arange(0, 1001, dtype=np.uint16)[np.newaxis], 4, axis=0)
    scaled = Percentile(low=10, high=90).normalise(image)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[2], np.clip((np.arange(1001) - 100) / 800, 0, 1), atol=1e-6)


def test_percentile_takes_the_channels_together() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    image[..., 1], image[..., 2] = 100, 200
    scaled = Percentile(low=0, high=100).normalise(image)
    np.testing.assert_allclose(scaled[4, 4], [0, 0.5, 1], atol=1e-6)


def test_a_flat_image_is_not_blown_up() -> None:
    image = np.full((20, 20), 50, np.uint8)
    image[::2] = 52
    assert Percentile(least_range=8, least_range_noise=0).normalise(image).max() == 0.25


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3), (1, 1)])
@pytest.mark.parametrize("variant", [FullRange(), Percentile()])
def test_an_image_of_zeros_stays_zero(variant: FullRange | Percentile, shape: tuple[int, ...], dtype: type) -> None:
    scaled = variant.normalise(np.zeros(shape, dtype))
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, np.zeros(shape))


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.one_of(
            hnp.array_shapes(min_dims=2, max_dims=2), st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3))
        ),
    )
)
def test_any_image_lands_between_0_and_1(image: np.ndarray) -> None:
    for variant in (FullRange(), Percentile()):
        scaled = variant.normalise(image)
        assert scaled.shape == image.shape
        assert scaled.min() >= 0 and scaled.max() <= 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sigma", [2.0, 10.0, 100.0])
def test_noise_alone_stays_below_half(sigma: float, seed: int) -> None:
    assert Percentile().normalise(noisy(sigma, seed=seed)).max() < 0.5


@pytest.mark.parametrize("sigma", [3.0, 20.0, 200.0])
def test_noise_is_measured(sigma: float) -> None:
    assert noise_sigma(noisy(sigma, shape=(512, 512))) == pytest.approx(sigma, rel=0.05)


def test_a_slope_and_edges_are_no_noise() -> None:
    y, x = np.mgrid[:256, :256]
    scene = noisy(20.0).astype(float) + 10 * x + 3 * y
    scene[64:128, 64:128] += 5000
    assert noise_sigma(scene.astype(np.uint16)) == pytest.approx(20.0, rel=0.05)
    assert noise_sigma((10 * x).astype(np.uint16)) == 0.0


def test_noise_is_that_of_the_brightest_channel() -> None:
    image = np.stack([noisy(40.0, level=500), noisy(8.0, level=4000), noisy(40.0, level=900)], axis=-1)
    assert noise_sigma(image) == pytest.approx(8.0, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (2, 50), (50, 2), (2, 2, 3)])
def test_too_small_for_a_noise_estimate(shape: tuple[int, ...]) -> None:
    assert noise_sigma(np.full(shape, 9, np.uint8)) == 0.0


@pytest.mark.parametrize("variant", [FullRange(), Percentile(), Percentile(low=2, high=99, least_range=1)])
def test_variants_survive_json(variant: FullRange | Percentile) -> None:
    assert normalisation_from_dict(json.loads(json.dumps(variant.to_dict()))) == variant


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"kind": "histogram"}, "'histogram' is unknown; expected one of full-range, percentile"),
        ({}, "None is unknown"),
        ({"kind": "percentile", "lowest": 1}, "percentile.*lowest"),
        ({"kind": "full-range", "low": 1}, "full-range.*low"),
    ],
)
def test_unknown_kinds_and_settings_are_refused(stored: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        normalisation_from_dict(stored)


def test_no_real_image_is_held_back_by_the_least_range(realdata: Path) -> None:
    """The floor is for noise: over the Bowl's images the percentiles lie further apart than it."""
    images = sorted((realdata / "dsb2018/stage1_train").glob("*/images/*.png"))[::11]
    variant = Percentile()
    assert len(images) == 61
    for path in images:
        image = decode_image(path.read_bytes(), name=path.name)
        low, high = np.percentile(image, [variant.low, variant.high])
        assert high - low >= variant.least_range, path.name
        assert high - low >= 1.2 * variant.least_range_noise * noise_sigma(image), path.name


@given(
    values=st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=3, max_side=30))
    ),
    of=st.lists(st.floats(0, 100), min_size=1, max_size=3),
)
@settings(max_examples=200, deadline=None)
def test_percentiles_are_numpys(values: np.ndarray, of: list[float]) -> None:
    np.testing.assert_allclose(percentiles(values, of), np.percentile(values, of), rtol=1e-9, atol=1e-9)


def test_the_noise_of_bytes_is_that_of_the_same_values_in_16_bits() -> None:
    image = np.random.default_rng(1).integers(0, 256, (61, 47), np.uint8)
    assert noise_sigma(image) == noise_sigma(image.astype(np.uint16))
