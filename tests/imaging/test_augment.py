"""Training crops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from nucseg_ray.imaging.augment import NO_AUGMENTATION, Augmentation, centre_crop, crop

ALWAYS = Augmentation(probability=1.0, empty_probability=0.0)


def picture(height: int, width: int, channels: int = 3, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def turns(square: np.ndarray) -> list[np.ndarray]:
    """Give the eight pictures that flips and quarter turns make of one."""
    return [np.rot90(flipped, k) for flipped in (square, square[:, ::-1]) for k in range(4)]


@pytest.mark.parametrize("augmentation", [NO_AUGMENTATION, Augmentation(), ALWAYS])
@pytest.mark.parametrize("shape", [(90, 120), (40, 200), (20, 30), (1, 1)])
def test_shapes_and_determinism(shape: tuple[int, int], augmentation: Augmentation) -> None:
    image, targets = picture(*shape), picture(*shape, 2)
    before = image.copy(), targets.copy()
    for seed in range(6):
        first, second = (
            crop(image, targets, crop_px=64, augmentation=augmentation, rng=np.random.default_rng(seed)) for _ in "ab"
        )
        assert [(array.shape, array.dtype) for array in first] == [((64, 64, 3), np.uint8), ((64, 64, 2), np.uint8)]
        for one, other in zip(first, second, strict=True):
            assert one.flags.c_contiguous
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(targets, before[1])


def test_seeds_give_different_crops() -> None:
    image, targets = picture(90, 120), picture(90, 120, 1)
    crops = [
        crop(image, targets, crop_px=64, augmentation=Augmentation(), rng=np.random.default_rng(seed))[0].tobytes()
        for seed in range(8)
    ]
    assert len(set(crops)) == 8


@settings(max_examples=50, deadline=None)
@given(st.integers(16, 60), st.integers(16, 60), st.integers(0, 2**32))
def test_without_augmentation_a_crop_is_a_slice_turned(height: int, width: int, seed: int) -> None:
    image, targets = picture(height, width), picture(height, width, 2, seed=2)
    pixels, truth = crop(image, targets, crop_px=16, augmentation=NO_AUGMENTATION, rng=np.random.default_rng(seed))
    windows = np.moveaxis(sliding_window_view(image, (16, 16), axis=(0, 1)), 2, -1)
    # The wanted window is somewhere in the image, in one of eight positions, with its own targets.
    found = [
        (y, x, k)
        for k, turned in enumerate(turns(pixels))
        for y, x in np.argwhere((windows == turned).all(axis=(2, 3, 4)))
    ]
    assert len(found) == 1
    y, x, k = found[0]
    np.testing.assert_array_equal(turns(truth)[k], targets[y : y + 16, x : x + 16])


def test_every_turn_and_both_edges_are_drawn() -> None:
    image = picture(20, 17)
    seen = set()
    for seed in range(300):
        pixels, _ = crop(image, image, crop_px=16, augmentation=NO_AUGMENTATION, rng=np.random.default_rng(seed))
        seen |= {
            (y, x, k)
            for k, turned in enumerate(turns(pixels))
            for y in range(5)
            for x in range(2)
            if (turned == image[y : y + 16, x : x + 16]).all()
        }
    assert {k for _, _, k in seen} == set(range(8))
    assert {y for y, _, _ in seen} == set(range(5))
    assert {x for _, x, _ in seen} == {0, 1}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.4, 0.55, 0.8, 1.0, 1.7, 3.0]), st.integers(10, 90))
def test_image_and_targets_stay_aligned(seed: int, scale: float, height: int) -> None:
    image = picture(height, 70)
    augmentation = replace(NO_AUGMENTATION, least_scale=scale, largest_scale=scale)
    pixels, truth = crop(image, image, crop_px=32, augmentation=augmentation, rng=np.random.default_rng(seed))
    np.testing.assert_array_equal(pixels, truth)
    # Also where a lone map takes OpenCV's other path.
    _, lone = crop(image, image[..., :1], crop_px=32, augmentation=augmentation, rng=np.random.default_rng(seed))
    np.testing.assert_array_equal(lone[..., 0], truth[..., 0])


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_scale_magnifies_about_pixel_centres(scale: float) -> None:
    # A slope stays a slope, its steps divided by the scale, its middle in the middle.
    image = np.repeat(np.arange(0, 240, 6, dtype=np.uint8)[np.newaxis, :, np.newaxis], 40, axis=0).repeat(3, axis=2)
    crop_px = int(40 * scale)
    augmentation = replace(NO_AUGMENTATION, least_scale=scale, largest_scale=scale)
    pixels, _ = crop(image, image, crop_px=crop_px, augmentation=augmentation, rng=np.random.default_rng(5))
    expected = 6 * ((np.arange(crop_px) + 0.5) / scale - 0.5)
    best = min(np.abs(turned[crop_px // 2, 4:-4, 0].astype(float) - expected[4:-4]).max() for turned in turns(pixels))
    assert best <= 1


def test_beyond_the_border_the_image_is_mirrored() -> None:
    image = picture(10, 12)
    pixels, _ = crop(image, image, crop_px=20, augmentation=NO_AUGMENTATION, rng=np.random.default_rng(0))
    expected = np.pad(image, ((5, 5), (4, 4), (0, 0)), mode="reflect")
    assert any((turned == expected).all() for turned in turns(pixels))


def test_intensity_changes_leave_the_targets_alone() -> None:
    image, targets = picture(64, 64), picture(64, 64, 2)
    for seed in range(10):
        plain = crop(image, targets, crop_px=64, augmentation=NO_AUGMENTATION, rng=np.random.default_rng(seed))
        changed = crop(
            image,
            targets,
            crop_px=64,
            augmentation=replace(ALWAYS, least_scale=1.0, largest_scale=1.0),
            rng=np.random.default_rng(seed),
        )
        assert (plain[0] != changed[0]).any()
        np.testing.assert_array_equal(plain[1], changed[1])


def test_grey_stays_grey() -> None:
    image = np.repeat(picture(64, 64, 1), 3, axis=2)
    for seed in range(20):
        pixels, _ = crop(image, image, crop_px=48, augmentation=ALWAYS, rng=np.random.default_rng(seed))
        assert (pixels == pixels[..., :1]).all()


def test_an_empty_crop_is_noise_without_targets() -> None:
    augmentation = replace(NO_AUGMENTATION, empty_probability=1.0)
    image = np.full((50, 50, 3), 255, np.uint8)
    crops = [
        crop(image, image[..., :2], crop_px=32, augmentation=augmentation, rng=np.random.default_rng(seed))
        for seed in range(20)
    ]
    assert all(pixels.shape == (32, 32, 3) for pixels, _ in crops)
    assert {bool((pixels == pixels[..., :1]).all()) for pixels, _ in crops} == {True, False}, "grey and in colour"
    assert all(truth.shape == (32, 32, 2) and not truth.any() for _, truth in crops)
    assert len({pixels.tobytes() for pixels, _ in crops}) == 20


def test_centre_crop_cuts_the_middle_and_pads_with_zeros() -> None:
    image, labels = picture(12, 7), np.arange(84, dtype=np.int32).reshape(12, 7)
    pixels, numbers = centre_crop(image, labels, crop_px=8)
    np.testing.assert_array_equal(pixels[:, :7], image[2:10])
    np.testing.assert_array_equal(numbers[:, :7], labels[2:10])
    assert pixels.shape == (8, 8, 3) and numbers.shape == (8, 8) and numbers.dtype == np.int32
    assert not pixels[:, 7].any() and not numbers[:, 7].any()
