"""Arrays that someone hands over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nucseg_ray.errors import InputError
from nucseg_ray.imaging.codecs import decode_image
from nucseg_ray.imaging.pixels import to_pixels

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
RGB = np.arange(36, dtype=np.uint16).reshape(3, 4, 3)


def with_alpha(image: np.ndarray, value: int) -> np.ndarray:
    alpha = np.full(image.shape[:2], value, image.dtype)
    return np.dstack([image, alpha])


class Lazy:
    """As Dask and Zarr: an array on demand."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return GREY


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(GREY, GREY, id="grey"),
        pytest.param(RGB, RGB, id="colour"),
        pytest.param(GREY[..., np.newaxis], GREY, id="one channel"),
        pytest.param(np.dstack([GREY] * 3), GREY, id="three equal channels"),
        pytest.param(with_alpha(GREY, 255), GREY, id="grey and alpha"),
        pytest.param(with_alpha(RGB, 65_535), RGB, id="colour and alpha"),
        pytest.param(with_alpha(np.dstack([GREY] * 3), 255), GREY, id="grey as RGBA"),
        pytest.param(GREY.astype(np.uint16).astype(">u2"), GREY.astype(np.uint16), id="big-endian"),
        pytest.param(GREY[::-1, ::2], np.array([[8, 10], [4, 6], [0, 2]], np.uint8), id="view"),
        pytest.param(np.asfortranarray(RGB), RGB, id="Fortran order"),
        pytest.param(Lazy(), GREY, id="array on demand"),
        pytest.param(np.uint8([[7]]), np.uint8([[7]]), id="one pixel"),
    ],
)
def test_what_is_taken_for_an_image(given: Any, expected: np.ndarray) -> None:
    found = to_pixels(given)
    np.testing.assert_array_equal(found, expected, strict=True)
    assert found.flags.c_contiguous and found.dtype.isnative
    assert np.shares_memory(to_pixels(found), found)


@pytest.mark.parametrize("image", [GREY, RGB, with_alpha(RGB, 65_535), np.dstack([GREY] * 3)])
def test_an_array_is_read_as_its_file_is(tmp_path: Path, image: np.ndarray) -> None:
    to_bgr = {2: lambda a: a, 3: lambda a: a[..., [2, 1, 0, 3][: a.shape[2]]]}[image.ndim]
    ok, png = cv2.imencode(".png", np.ascontiguousarray(to_bgr(image)))
    assert ok
    np.testing.assert_array_equal(to_pixels(image), decode_image(png.tobytes(), name="image.png"), strict=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (GREY.astype(np.int64), r"found int64 from 0 to 11; convert it with image\.astype\('uint8'\) or .*'uint16'"),
        (GREY.astype(np.int16) - 5, r"found int16 from -5 to 6, which do not fit 16 bits; subtract the offset"),
        (GREY.astype(np.uint32) + 65_530, "found uint32 from 65530 to 65541, which do not fit"),
        (GREY / np.float32(11), r"found float32 from 0\.0 to 1\.0; scale it to the range of the camera and round"),
        (GREY.astype(np.float16) * np.nan, "found float16 from nan to nan; scale it"),
        (GREY > 3, "found bool; a mask is no image: pass the image that it was made from"),
        (GREY * 1j, r"found ndarray \(as an array: complex128\); pass the array of pixels itself"),
        ("image.tif", r"found str \(as an array: <U9\); pass the array of pixels itself"),
        (None, r"found NoneType \(as an array: object\)"),
        ([[1, 2], [3]], r"expected an image \(H, W\) or \(H, W, 3\), found list, no array"),
        (np.zeros((0, 4), np.uint8), r"expected at least one pixel, found an array of shape \(0, 4\)"),
        (np.zeros((4, 0, 3), np.uint8), r"expected at least one pixel, found an array of shape \(4, 0, 3\)"),
        (np.zeros(4, np.uint8), r"expected an image .* shape \(4,\); pass a whole image"),
        (np.zeros((3, 8, 9), np.uint8), r"shape \(3, 8, 9\); if its channels come first, pass np\.moveaxis"),
        (np.zeros((5, 8, 9), np.uint8), r"shape \(5, 8, 9\); pass one plane or channel, such as image\[0\]"),
        (np.zeros((5, 8, 9, 3), np.uint8), r"shape \(5, 8, 9, 3\); pass images one by one, or .* segment_many"),
        (with_alpha(RGB, 0), r"found 4 channels, .* not an opaque alpha; .* image\[:, :, 0\], or .* image\[:, :, :3\]"),
        (with_alpha(GREY, 254), r"found 2 channels, .* pass one channel, such as image\[:, :, 0\]$"),
    ],
)
def test_what_is_not_surely_an_image_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match="^image 3: .*" + message):
        to_pixels(given, name="image 3")
