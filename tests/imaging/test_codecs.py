"""Bytes to arrays and back, on files as other programs write them."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucseg_ray.errors import DecodeError
from nucseg_ray.imaging.codecs import (
    as_rgb,
    decode_image,
    decode_label_png,
    decode_mask,
    encode_image_png,
    encode_label_png,
)


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(7).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


GREY, GREY16 = noise(31, 42), noise(31, 42, dtype=np.uint16)
RGB, RGB16 = noise(31, 42, 3), noise(31, 42, 3, dtype=np.uint16)
ALPHA = noise(31, 42, 1)


def png(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    """Encode with OpenCV; ``pixels`` are grey, RGB or RGBA."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    photometric = "rgb" if pixels.ndim == 3 and 3 in pixels.shape else "minisblack"
    tifffile.imwrite(buffer, pixels, **{"photometric": photometric, **options})
    return buffer.getvalue()


def pillow(pixels: np.ndarray, mode: str) -> bytes:
    """Encode PNG kinds that OpenCV cannot write."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if mode == "P":
        image = image.convert("P", palette=Image.Palette.ADAPTIVE)
    assert image.mode == mode
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(png(GREY), GREY, id="png grey 8"),
        pytest.param(png(GREY16), GREY16, id="png grey 16"),
        pytest.param(png(RGB), RGB, id="png rgb 8"),
        pytest.param(png(RGB16), RGB16, id="png rgb 16"),
        pytest.param(png(np.dstack([RGB, ALPHA])), RGB, id="png rgba"),
        pytest.param(png(np.dstack([GREY, GREY, GREY, ALPHA])), GREY, id="png rgba of a grey image"),
        pytest.param(png(np.dstack([GREY, GREY, GREY])), GREY, id="png of three equal channels"),
        pytest.param(pillow(np.dstack([GREY, ALPHA]), "LA"), GREY, id="png grey and alpha"),
        pytest.param(png(RGB, ".bmp"), RGB, id="bmp"),
        pytest.param(tiff(GREY), GREY, id="tiff grey 8"),
        pytest.param(tiff(GREY16), GREY16, id="tiff grey 16"),
        pytest.param(tiff(GREY16, byteorder=">"), GREY16, id="tiff big-endian"),
        pytest.param(tiff(GREY16, bigtiff=True), GREY16, id="big tiff"),
        pytest.param(tiff(RGB), RGB, id="tiff rgb"),
        pytest.param(tiff(RGB16), RGB16, id="tiff rgb 16"),
        pytest.param(
            tiff(np.dstack([RGB, ALPHA]), extrasamples=["unassalpha"], photometric="rgb"), RGB, id="tiff rgba"
        ),
        pytest.param(
            tiff(np.dstack([GREY, ALPHA]), planarconfig="contig", extrasamples=["assocalpha"]),
            GREY,
            id="tiff grey and alpha",
        ),
        pytest.param(tiff(np.moveaxis(RGB, -1, 0).copy(), planarconfig="separate"), RGB, id="tiff planar"),
        pytest.param(tiff(GREY16, compression="lzw", predictor=True), GREY16, id="tiff lzw"),
        pytest.param(tiff(GREY16, compression="zlib", rowsperstrip=8), GREY16, id="tiff deflate in strips"),
        pytest.param(tiff(RGB, compression="lzw", tile=(16, 16)), RGB, id="tiff in tiles"),
    ],
)
def test_pixels_come_as_stored(data: bytes, expected: np.ndarray) -> None:
    pixels = decode_image(data, name="a")
    assert pixels.dtype == expected.dtype
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, expected)


def test_a_palette_png_gives_its_colours() -> None:
    colours = np.array([[255, 0, 0], [0, 200, 0], [10, 20, 30]], np.uint8)
    expected = colours[np.arange(12).reshape(3, 4) % 3]
    np.testing.assert_array_equal(decode_image(pillow(expected, "P"), name="a"), expected)


def test_jpeg_is_close_and_in_rgb_order() -> None:
    flat = np.full((32, 32, 3), (200, 90, 20), np.uint8)
    pixels = decode_image(png(flat, ".jpg"), name="a")
    assert pixels.shape == flat.shape
    assert np.abs(pixels.astype(int) - flat).max() <= 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"no image at all", "not an image", id="text"),
        pytest.param(noise(500).tobytes(), "not an image", id="noise"),
        pytest.param(png(GREY)[:200], "cut short", id="cut png"),
        pytest.param(png(GREY)[:-1], "cut short", id="png without its last byte"),
        pytest.param(png(RGB, ".jpg")[:700], "cut short", id="cut jpeg"),
        pytest.param(tiff(GREY16)[:600], "damaged", id="cut tiff"),
        pytest.param(tiff(GREY16, compression="lzw")[:900], "damaged", id="cut lzw tiff"),
        pytest.param(tiff(GREY16, compression="zlib")[:900], "damaged", id="cut deflate tiff"),
        pytest.param(tiff(noise(64, 64), compression="jpeg")[:-40], "cut short", id="cut jpeg tiff"),
        pytest.param(b"II*\0", "damaged", id="four bytes of a tiff"),
        pytest.param(b"II*\0" + bytes(60), "found 0", id="tiff without pages"),
        pytest.param(tiff(noise(3, 20, 30), photometric="minisblack"), "found 3", id="several pages"),
        pytest.param(tiff(GREY.astype(np.float32)), "float32", id="float"),
        pytest.param(tiff(GREY.astype(np.int16)), "int16", id="signed"),
        pytest.param(tiff(noise(20, 30, 5), planarconfig="contig"), r"\(20, 30, 5\)", id="five channels"),
        pytest.param(
            tiff(noise(5, 16, 16), volumetric=True, tile=(16, 16, 16)), r"\(5, 16, 16\)", id="volume in one page"
        ),
    ],
)
def test_what_is_no_usable_image_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=rf"plate/A01\.tif.*{message}"):
        decode_image(data, name="plate/A01.tif")


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([b"", b"II*\0", b"MM\0*", b"II+\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]), st.binary(max_size=64)
)
def test_garbage_never_raises_anything_else(magic: bytes, rest: bytes) -> None:
    with pytest.raises(DecodeError, match="odd name"):
        decode_image(magic + rest, name="odd name")


def test_a_colour_mask_is_refused() -> None:
    with pytest.raises(DecodeError, match=r"m\.png.*colour"):
        decode_mask(png(RGB), name="m.png")
    np.testing.assert_array_equal(decode_mask(png(GREY16), name="m.png"), GREY16)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.one_of(
            st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))
        ),
    )
)
def test_images_survive_png(image: np.ndarray) -> None:
    back = decode_image(encode_image_png(image), name="a")
    assert back.dtype == image.dtype
    np.testing.assert_array_equal(as_rgb(back), as_rgb(image))


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 65_535)))
def test_labels_survive_png(labels: np.ndarray) -> None:
    back = decode_label_png(encode_label_png(labels), name="a")
    assert back.dtype == np.int32
    np.testing.assert_array_equal(back, labels)


def test_labels_beyond_16_bits_are_refused() -> None:
    np.testing.assert_array_equal(decode_label_png(encode_label_png(np.array([[65_535]], np.int32)), name="a"), 65_535)
    with pytest.raises(ValueError, match="65536 nuclei"):
        encode_label_png(np.array([[0, 65_536]], np.int32))
