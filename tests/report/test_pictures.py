"""Outlines against a pixel-by-pixel oracle; the before-and-after picture against what must show in it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucseg_ray.errors import UsageError
from nucseg_ray.imaging.codecs import as_rgb, decode_image
from nucseg_ray.report.pictures import before_after_picture, overlay

RED = "#ff0000"


def _outlined(labels, width_px):
    """Say pixel by pixel whether another label lies within ``width_px`` along a row or a column."""
    height, width = labels.shape
    inside = np.zeros(labels.shape, bool)
    for y in range(height):
        for x in range(width):
            reach = range(-width_px, width_px + 1)
            near = [(y + d, x) for d in reach if 0 <= y + d < height] + [
                (y, x + d) for d in reach if 0 <= x + d < width
            ]
            inside[y, x] = labels[y, x] > 0 and any(labels[at] != labels[y, x] for at in near)
    return inside


def _coloured_px(png):
    """Count the bluish and the orange pixels; a line one pixel wide is blended with its neighbours when scaled."""
    red, _, blue = np.moveaxis(as_rgb(decode_image(png, name="picture")).astype(int), 2, 0)
    return int((blue - red > 40).sum()), int((red - blue > 40).sum())


@given(
    labels=hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 3)),
    width_px=st.integers(1, 3),
)
def test_outlines_equal_the_oracle(labels, width_px):
    drawn = overlay(np.zeros(labels.shape, np.uint8), labels, colour=RED, width_px=width_px)
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal((drawn == (255, 0, 0)).all(axis=2), _outlined(labels, width_px))


def test_touching_nuclei_show_a_line_between_them():
    labels = np.repeat([[1, 1, 1, 2, 2, 2]], 5, axis=0).astype(np.int32)
    drawn = overlay(np.zeros((5, 6), np.uint16), labels, colour=RED)
    np.testing.assert_array_equal(drawn[2, :, 0], [0, 0, 255, 255, 0, 0])


def test_an_image_without_nuclei_keeps_its_grey_and_is_not_changed_itself():
    image = np.tile(np.arange(0, 60000, 600, dtype=np.uint16), (50, 1))
    before = image.copy()
    drawn = overlay(image, np.zeros(image.shape, np.int32))
    np.testing.assert_array_equal(image, before)
    assert (drawn[..., 0] == drawn[..., 1]).all()
    assert (drawn[..., 0] == drawn[..., 2]).all()
    assert (drawn[0, 0, 0], drawn[0, -1, 0]) == (0, 255)
    assert (np.diff(drawn[0, :, 0].astype(int)) >= 0).all()


def test_colour_stays_colour():
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 20:] = (200, 100, 0)
    drawn = overlay(image, np.zeros((40, 40), np.int32))
    red, green, blue = drawn[5, 35].astype(int)
    assert red == 255
    assert blue == 0
    assert blue < green < red


def test_noise_alone_does_not_fill_the_range():
    rng = np.random.default_rng(3)
    noise = rng.normal(100, 2, (128, 128)).astype(np.uint8)
    nuclei = noise.copy()
    nuclei[40:80, 40:80] = 250
    none = np.zeros(noise.shape, np.int32)
    assert overlay(noise, none).std() < 0.5 * overlay(nuclei, none).std()


@pytest.mark.parametrize("shape", [(64, 64), (40, 90), (700, 1100)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_before_and_after_shows_truth_and_findings(shape, dtype):
    image = np.zeros(shape, dtype)
    labels = np.zeros(shape, np.int32)
    labels[: shape[0] // 2, : shape[1] // 2] = 1
    image[labels > 0] = 200
    none = np.zeros_like(labels)
    full = before_after_picture([(image, labels, none, labels)])
    blank = before_after_picture([(image, none, none, none)])
    assert full[:8] == b"\x89PNG\r\n\x1a\n"
    truth_px, found_px = _coloured_px(full)
    assert truth_px > 100
    assert found_px > 100
    assert _coloured_px(blank) == (0, 0)


def test_one_row_a_sample_also_of_unlike_images():
    grey = np.zeros((32, 32), np.uint8)
    colour = np.zeros((32, 64, 3), np.uint16)
    samples = [(image, *[np.zeros(image.shape[:2], np.int32)] * 3) for image in (grey, colour)]
    one = decode_image(before_after_picture(samples[:1]), name="one")
    two = decode_image(before_after_picture(samples), name="two")
    assert two.shape[1] == one.shape[1]
    assert 1.3 < two.shape[0] / one.shape[0] < 1.7


def test_no_sample_and_unlike_shapes_are_refused():
    image = np.zeros((8, 9), np.uint8)
    fits, too_small = np.zeros((8, 9), np.int32), np.zeros((8, 8), np.int32)
    with pytest.raises(UsageError, match="at least one sample, found none"):
        before_after_picture([])
    with pytest.raises(UsageError, match="expected labels of 8 x 9 like their image, found 8 x 8"):
        before_after_picture([(image, fits, fits, too_small)])
    with pytest.raises(UsageError, match="expected labels of 8 x 9"):
        overlay(image, too_small)


def test_real_images_of_every_kind(realdata):
    folders = sorted((realdata / "dsb2018" / "stage1_train").iterdir())[::200]
    samples = []
    for folder in folders:
        (path,) = (folder / "images").glob("*.png")
        image = decode_image(path.read_bytes(), name=path.name)
        labels = np.zeros(image.shape[:2], np.int32)
        labels[20:60, 20:60] = 1
        samples.append((image, labels, np.zeros_like(labels), labels))
    truth_px, _ = _coloured_px(before_after_picture(samples))
    assert truth_px > 100 * len(samples)
