"""Training crops."""

from __future__ import annotations

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from nucseg_ray.imaging import augment
from nucseg_ray.imaging.augment import Augmentation, Crop, Subject, centre_crop, random_crop
from nucseg_ray.imaging.diameters import nuclei_of
from nucseg_ray.imaging.intensity import Intensity

SAME = Intensity(probability=0.0)
PLAIN = Augmentation(
    size_spread=0.0, stray_probability=0.0, tilt_probability=0.0, stretch=0.0, intensity=SAME, empty_probability=0.0
)
ALWAYS = Augmentation(tilt_probability=1.0, intensity=Intensity(probability=1.0), empty_probability=0.0)


def subject(height: int, width: int, *, seed: int = 1, diameter_px: float = 20.0, grey: bool = False) -> Subject:
    """Make an image of noise, its labels in blocks of 5 x 5."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    labels = np.kron(rng.integers(0, 60, (height // 5 + 1, width // 5 + 1)), np.ones((5, 5)))[:height, :width]
    if grey:
        image = np.repeat(image[..., :1], 3, axis=2)
    return Subject(image, labels.astype(np.uint16), nuclei_of(labels.astype(np.int32)), diameter_px)


def cut(of: Subject, *, crop_px: int, augmentation: Augmentation, seed: int, diameter_px: float = 20.0) -> Crop:
    rng = np.random.default_rng(seed)
    return random_crop(of, crop_px=crop_px, diameter_px=diameter_px, augmentation=augmentation, rng=rng)


def turns(square: np.ndarray) -> list[np.ndarray]:
    """Give the eight pictures that flips and quarter turns make of one."""
    return [np.rot90(flipped, k) for flipped in (square, square[:, ::-1]) for k in range(4)]


@pytest.mark.parametrize("augmentation", [PLAIN, Augmentation(), ALWAYS])
@pytest.mark.parametrize("shape", [(90, 120), (40, 200), (20, 30), (1, 1)])
def test_shapes_and_determinism(shape: tuple[int, int], augmentation: Augmentation) -> None:
    of = subject(*shape)
    before = of.image.copy(), of.labels.copy(), of.nuclei.copy()
    for seed in range(6):
        first, second = (cut(of, crop_px=64, augmentation=augmentation, seed=seed) for _ in "ab")
        assert (first.pixels.shape, first.pixels.dtype) == ((64, 64, 3), np.uint8)
        assert (first.labels.shape, first.labels.dtype) == ((64, 64), np.int32)
        assert (first.inside.shape, first.inside.dtype) == ((64, 64), np.bool_)
        assert (first.nuclei.shape[1], first.nuclei.dtype) == (3, np.float32)
        for field in fields(Crop):
            np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))
    for array, old in zip((of.image, of.labels, of.nuclei), before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_seeds_give_different_crops() -> None:
    of = subject(90, 120)
    crops = {cut(of, crop_px=64, augmentation=Augmentation(), seed=seed).pixels.tobytes() for seed in range(8)}
    assert len(crops) == 8


@settings(max_examples=50, deadline=None)
@given(st.integers(16, 60), st.integers(16, 60), st.integers(0, 2**32))
def test_without_augmentation_a_crop_is_the_image_turned_between_pixels(height: int, width: int, seed: int) -> None:
    # Labels are taken from the nearest pixel: each of the crop's is one of the image's, in one of eight positions.
    of = subject(height, width)
    numbered = replace(of, labels=np.arange(height * width, dtype=np.float32).reshape(height, width))
    crop = cut(numbered, crop_px=16, augmentation=PLAIN, seed=seed)
    windows = sliding_window_view(numbered.labels, (16, 16)).astype(np.int32)
    found = [np.argwhere((windows == turned).all(axis=(2, 3))) for turned in turns(crop.labels)]
    assert sum(map(len, found)) == 1
    assert crop.inside.all()


def test_every_turn_and_both_edges_are_drawn() -> None:
    numbered = replace(subject(20, 17), labels=np.arange(340, dtype=np.float32).reshape(20, 17))
    windows = sliding_window_view(numbered.labels, (16, 16)).astype(np.int32)
    seen = set()
    for seed in range(300):
        crop = cut(numbered, crop_px=16, augmentation=PLAIN, seed=seed)
        for k, turned in enumerate(turns(crop.labels)):
            seen |= {(y, x, k) for y, x in np.argwhere((windows == turned).all(axis=(2, 3)))}
    assert {k for _, _, k in seen} == set(range(8))
    assert {y for y, _, _ in seen} == set(range(5))
    assert {x for _, x, _ in seen} == {0, 1}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), diameter=st.sampled_from([6.0, 11.0, 20.0, 34.0, 60.0]), height=st.integers(40, 90))
def test_pixels_labels_and_nuclei_stay_aligned(seed: int, diameter: float, height: int) -> None:
    # Nuclei that are as bright as their number, so that the picture tells where each is.
    labels = np.zeros((height, 70), np.uint16)
    for number, (y, x) in enumerate([(6, 8), (14, 40), (height - 8, 22), (height - 6, 60)], start=1):
        cv2.circle(labels, (x, y), 5, number * 50, -1)
    of = Subject(
        np.repeat(labels[..., np.newaxis], 3, axis=2).astype(np.uint8), labels, nuclei_of(labels.astype(np.int32)), 11.0
    )
    augmentation = replace(Augmentation(), intensity=SAME, empty_probability=0.0, stray_probability=0.0)
    crop = cut(of, crop_px=64, augmentation=augmentation, seed=seed, diameter_px=diameter)
    for number in (50, 100, 150, 200):
        inner = cv2.erode((crop.labels == number).astype(np.uint8), np.ones((11, 11)), borderValue=0) > 0
        assert (np.abs(crop.pixels[inner].astype(int) - number) <= 2).all() or diameter < 11
        y, x = np.nonzero(crop.labels == number)
        ring = not (crop.labels == number)[[0, -1]].any() and not (crop.labels == number)[:, [0, -1]].any()
        if y.size > 30 and ring:  # the whole nucleus is in the crop
            expected = [y.mean(), x.mean(), 2 * np.sqrt(y.size / np.pi)]
            np.testing.assert_allclose(crop.nuclei[number], expected, atol=1.2)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_scale_magnifies_about_pixel_centres(scale: float) -> None:
    # A slope stays a slope, its steps divided by the scale, its middle in the middle.
    image = np.repeat(np.arange(0, 240, 6, dtype=np.uint8)[np.newaxis, :, np.newaxis], 40, axis=0).repeat(3, axis=2)
    of = Subject(image, np.zeros((40, 40), np.uint16), np.zeros((1, 3), np.float32), 20.0)
    crop_px = int(40 * scale)
    pixels = cut(of, crop_px=crop_px, augmentation=PLAIN, seed=5, diameter_px=20 * scale).pixels
    expected = 6 * ((np.arange(crop_px) + 0.5) / scale - 0.5)
    best = min(np.abs(turned[crop_px // 2, 4:-4, 0].astype(float) - expected[4:-4]).max() for turned in turns(pixels))
    assert best <= 1
    np.testing.assert_array_equal(
        centre_crop(of, crop_px=crop_px, diameter_px=20 * scale).pixels.shape, (crop_px, crop_px, 3)
    )


def test_sizes_scatter_about_the_wanted_one_and_some_stray() -> None:
    labels = np.zeros((400, 400), np.uint16)
    labels[:200] = 1  # a border that a crop of 64 px shows, or not; the scale is read from the nuclei
    of = Subject(np.zeros((400, 400, 3), np.uint8), labels, np.float32([[0, 0, 0], [100, 200, 20]]), 20.0)
    spread = replace(PLAIN, size_spread=0.35)
    seen = np.array([cut(of, crop_px=64, augmentation=spread, seed=s, diameter_px=30).nuclei[1, 2] for s in range(400)])
    assert np.median(seen) == pytest.approx(30, rel=0.05)
    assert np.std(np.log(seen)) == pytest.approx(0.35, rel=0.1)
    stray = replace(PLAIN, stray_probability=1.0)
    seen = np.array([cut(of, crop_px=64, augmentation=stray, seed=s, diameter_px=30).nuclei[1, 2] for s in range(400)])
    assert seen.min() >= 7.9 and seen.max() <= 80.1  # at most four times larger
    np.testing.assert_allclose(np.quantile(seen, [0.25, 0.5]), 8 * (100 / 8) ** np.array([0.25, 0.5]), rtol=0.15)


def test_beyond_the_border_the_image_is_mirrored_and_nothing_is_known() -> None:
    of = subject(10, 12)
    crop = cut(of, crop_px=20, augmentation=PLAIN, seed=0)
    expected = np.pad(of.image, ((5, 5), (4, 4), (0, 0)), mode="reflect")
    known = np.pad(np.ones((10, 12), bool), ((5, 5), (4, 4)))
    numbers = np.pad(of.labels, ((5, 5), (4, 4)))
    assert any(
        (pixels == expected).all() and (inside == known).all() and (labels == numbers).all()
        for pixels, inside, labels in zip(*map(turns, (crop.pixels, crop.inside, crop.labels)), strict=True)
    )


@pytest.mark.parametrize("shape", [(900, 700), (60, 50), (12, 300)])
def test_a_crop_of_a_part_is_one_of_the_whole(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    of = subject(*shape)
    augmentation = replace(ALWAYS, intensity=SAME)
    crops = [cut(of, crop_px=48, augmentation=augmentation, seed=seed, diameter_px=9.0) for seed in range(20)]
    monkeypatch.setattr(augment, "_around", lambda subject, view, crop_px: (subject.image, subject.labels, view))
    for seed, crop in enumerate(crops):
        whole = cut(of, crop_px=48, augmentation=augmentation, seed=seed, diameter_px=9.0)
        # OpenCV's coordinates have 5 bits below one: a pixel may lie on the edge between two labels.
        np.testing.assert_allclose(crop.pixels, whole.pixels, atol=1)
        assert (crop.labels != whole.labels).mean() < 0.001
        np.testing.assert_array_equal(crop.inside, whole.inside)


def test_intensity_changes_leave_the_labels_alone() -> None:
    of = subject(64, 64)
    for seed in range(10):
        plain = cut(of, crop_px=64, augmentation=PLAIN, seed=seed)
        changed = cut(of, crop_px=64, augmentation=replace(PLAIN, intensity=ALWAYS.intensity), seed=seed)
        assert (plain.pixels != changed.pixels).any()
        np.testing.assert_array_equal(plain.labels, changed.labels)


def test_grey_stays_grey_and_colour_sometimes_becomes_it() -> None:
    for seed in range(20):
        pixels = cut(subject(64, 64, grey=True), crop_px=48, augmentation=ALWAYS, seed=seed).pixels
        assert (pixels == pixels[..., :1]).all()
    coloured = [cut(subject(64, 64), crop_px=48, augmentation=ALWAYS, seed=seed).pixels for seed in range(60)]
    assert 1 <= sum(bool((pixels == pixels[..., :1]).all()) for pixels in coloured) <= 20


def test_an_empty_crop_is_noise_without_nuclei() -> None:
    of = replace(subject(50, 50), image=np.full((50, 50, 3), 255, np.uint8))
    crops = [cut(of, crop_px=32, augmentation=replace(PLAIN, empty_probability=1.0), seed=seed) for seed in range(20)]
    grey = {bool((crop.pixels == crop.pixels[..., :1]).all()) for crop in crops}
    assert grey == {True, False}, "grey and in colour"
    assert all(crop.inside.all() and not crop.labels.any() and crop.nuclei.shape == (1, 3) for crop in crops)
    assert len({crop.pixels.tobytes() for crop in crops}) == 20


def test_centre_crop_shows_the_middle() -> None:
    of = subject(12, 6)
    crop = centre_crop(of, crop_px=8, diameter_px=20.0)
    np.testing.assert_array_equal(crop.labels, np.pad(of.labels[2:10], ((0, 0), (1, 1))))
    np.testing.assert_array_equal(crop.pixels[:, 1:7], of.image[2:10])
    np.testing.assert_array_equal(crop.inside, np.pad(np.ones((8, 6), bool), ((0, 0), (1, 1))))


def test_numbers_above_16_bits_survive() -> None:
    of = replace(
        subject(30, 30), labels=np.full((30, 30), 70_001, np.float32), nuclei=np.zeros((70_002, 3), np.float32)
    )
    crop = centre_crop(of, crop_px=16, diameter_px=20.0)
    assert (crop.labels == 70_001).all()
