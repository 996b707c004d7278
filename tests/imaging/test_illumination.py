"""Illumination functions: what dividing by one gives, exactly, and which files hold one."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import tifffile

from nucseg_ray.errors import DecodeError
from nucseg_ray.imaging.illumination import Illumination, decode_illumination, encode_illumination

RNG = np.random.default_rng(5)
FUNCTION = np.array([[0.5, 1.0], [1.25, 1.25]], np.float32)


def _tiff(values: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def test_an_image_is_divided_rounded_and_clipped() -> None:
    image = np.array([[100, 7], [101, 0]], np.uint8)
    np.testing.assert_array_equal(Illumination(FUNCTION).correct(image), np.array([[200, 7], [81, 0]], np.uint8))
    bright = np.array([[40_000, 65_535], [65_535, 1]], np.uint16)
    expected = np.array([[65_535, 65_535], [52_428, 1]], np.uint16)
    corrected = Illumination(FUNCTION).correct(bright)
    np.testing.assert_array_equal(corrected, expected)
    assert corrected.dtype == np.uint16


def test_the_offset_gets_no_light() -> None:
    image = np.array([[150, 100], [90, 225]], np.uint16)
    corrected = Illumination(FUNCTION, offset=100.0).correct(image)
    np.testing.assert_array_equal(corrected, [[200, 100], [92, 200]])


def test_a_function_of_1_changes_nothing() -> None:
    for dtype in (np.uint8, np.uint16):
        image = RNG.integers(0, np.iinfo(dtype).max, (9, 7), dtype=dtype, endpoint=True)
        np.testing.assert_array_equal(Illumination(np.ones((9, 7), np.float32), offset=37.5).correct(image), image)


def test_colour_images_share_the_function() -> None:
    image = RNG.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    corrected = Illumination(FUNCTION).correct(image)
    for channel in range(3):
        np.testing.assert_array_equal(corrected[:, :, channel], Illumination(FUNCTION).correct(image[:, :, channel]))


@pytest.mark.parametrize("offset", [0.0, 120.3])
def test_the_projection_of_corrected_planes_is_the_corrected_projection(offset: float) -> None:
    light = Illumination(RNG.uniform(0.3, 1.7, (40, 50)).astype(np.float32), offset)
    planes = RNG.integers(0, 65_536, (5, 40, 50), dtype=np.uint16)
    each = np.max([light.correct(plane) for plane in planes], axis=0)
    np.testing.assert_array_equal(light.correct(planes.max(axis=0)), each)


def test_another_shape_is_refused() -> None:
    with pytest.raises(DecodeError, match="expected an image of 2 x 2 px like the illumination .* found 2 x 3"):
        Illumination(FUNCTION).correct(np.zeros((2, 3), np.uint8))


def test_a_function_comes_back_from_its_file() -> None:
    function = RNG.uniform(0.5, 1.5, (31, 17)).astype(np.float32)
    function /= function.mean(dtype=np.float64)
    data = encode_illumination(Illumination(function, 101.5), note={"plate": "Pläte"})
    assert data == encode_illumination(Illumination(function, 101.5), note={"plate": "Pläte"})
    found = decode_illumination(data, name="f")
    np.testing.assert_allclose(found.function, function, rtol=1e-6)
    assert found.offset == 101.5
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:  # as other programs see it
        assert (tiff.pages[0].dtype, tiff.pages[0].shape, len(tiff.pages)) == (np.float32, (31, 17), 1)
        np.testing.assert_array_equal(tiff.pages[0].asarray(), function)
        assert json.loads(tiff.pages[0].description)["plate"] == "Pläte"


@pytest.mark.parametrize("encode", [_tiff, _npy])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_functions_from_elsewhere_are_brought_to_mean_1(encode, dtype) -> None:
    found = decode_illumination(encode(np.array([[10, 30], [20, 20]], dtype)), name="f")
    np.testing.assert_allclose(found.function, [[0.5, 1.5], [1, 1]], rtol=1e-6)
    assert (found.function.dtype, found.offset) == (np.float32, 0.0)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "could not be read"),
        (b"plain text", "could not be read .it begins with b'plai'"),
        (_tiff(np.ones((2, 4, 4), np.float32), photometric="minisblack"), "it has 2 pages"),
        (_tiff(np.ones((4, 4, 3), np.uint8), photometric="rgb"), "of one channel .* shape .4, 4, 3"),
        (_npy(np.ones(4)), "of one channel .* shape .4,."),
        (_npy(np.ones((2, 2), complex)), "of one channel .* complex"),
        (_npy(np.zeros((0, 4))), "of one channel .* shape .0, 4"),
        (_npy(np.array([[1.0, np.nan], [np.inf, 1.0]])), "2 that are not finite and 0 of 0 or below"),
        (_npy(np.array([[1.0, 0.0], [-1.0, 1.0]])), "0 that are not finite and 2 of 0 or below"),
        (_npy(np.array([[object()]], object)), "could not be read"),
    ],
)
def test_what_is_no_function_is_refused_with_its_name(data: bytes, problem: str) -> None:
    with pytest.raises(DecodeError, match=f"light.tif: expected an illumination function.*{problem}"):
        decode_illumination(data, name="light.tif")
