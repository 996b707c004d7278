"""Bytes to arrays and back: images, masks and label images.

OpenCV decodes PNG, JPEG, BMP and the like. TIFF goes through tifffile: microscopes write private tags, for each of
which OpenCV prints a warning, and pages that it would drop silently.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from nucseg_ray.errors import DecodeError

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
LARGEST_PNG_LABEL = 65_535
IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Labels = NDArray[np.int32]


def decode_image(data: bytes, *, name: str) -> Pixels:
    """Decode one image.

    Returns ``(H, W)`` for grey images (also those stored as three equal channels) or ``(H, W, 3)`` RGB, uint8 or
    uint16 as stored; an alpha channel is dropped. ``name`` is used in messages only.

    Raises
    ------
    DecodeError
        The bytes are no image, or one with several pages, another number of channels or another pixel type.
    """
    pixels = _decode_any(data, name=name)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        pixels = pixels[:, :, :-1]
    pixels = grey_where_equal(pixels)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise DecodeError(
            f"{name}: expected a grey or RGB image, found an array of shape {pixels.shape}; "
            "save each channel or plane as an image of its own"
        )
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DecodeError(
            f"{name}: expected pixels of 8 or 16 bits without sign, found {pixels.dtype}; convert the image to uint16"
        )
    return cast("Pixels", np.ascontiguousarray(pixels))


def decode_mask(data: bytes, *, name: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decode a mask or label image to ``(H, W)`` uint8 or uint16, values as stored.

    Raises
    ------
    DecodeError
        The bytes are no image, or one in colour.
    """
    mask = decode_image(data, name=name)
    if mask.ndim != 2:
        raise DecodeError(
            f"{name}: expected a mask of one channel, found a colour image; save it as 0/255 or as labels"
        )
    return mask


def as_rgb(image: NDArray[Any]) -> NDArray[Any]:
    """Give ``(H, W, 3)``: a colour image as it is, a grey one replicated; the dtype is kept."""
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def grey_where_equal(pixels: NDArray[Any]) -> NDArray[Any]:
    """Give ``(H, W)`` for an image of one channel or of three equal ones, any other as it is; views, not copies."""
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        return pixels
    first = pixels[:, :, 0]
    return first if all((pixels[:, :, i] == first).all() for i in range(1, pixels.shape[2])) else pixels


def encode_label_png(labels: Labels) -> bytes:
    """Encode a label image ``(H, W) int32`` as a PNG of 16 bits.

    Raises
    ------
    ValueError
        There are more labels than 16 bits can hold; they are never wrapped.
    """
    largest = int(labels.max(initial=0))
    if largest > LARGEST_PNG_LABEL:
        raise ValueError(f"{largest} nuclei do not fit a PNG of 16 bits, which holds {LARGEST_PNG_LABEL}")
    return _encode_png(labels.astype(np.uint16))


def encode_image_png(image: Pixels) -> bytes:
    """Encode ``(H, W)`` or RGB ``(H, W, 3)``, uint8 or uint16, as PNG."""
    return _encode_png(image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def decode_label_png(data: bytes, *, name: str) -> Labels:
    """Decode what :func:`encode_label_png` wrote: ``(H, W) int32``, values as stored."""
    return decode_mask(data, name=name).astype(np.int32)


@dataclass(frozen=True, slots=True)
class JoinedMasks:
    """A label image made of masks, and what was odd about them."""

    labels: Labels
    overlap_px: int
    n_empty: int


def join_masks(masks: Iterable[NDArray[np.uint8] | NDArray[np.uint16]], *, shape: tuple[int, int]) -> JoinedMasks:
    """Join masks of one nucleus each into a label image ``(H, W) int32``.

    Any value but 0 is nucleus. A pixel that two masks claim stays with the first. Empty masks get no label, nor do
    masks that lie wholly under earlier ones; both count as empty.

    Raises
    ------
    DecodeError
        A mask has another shape than ``shape``.
    """
    labels = np.zeros(shape, np.int32)
    overlap_px = n_empty = count = 0
    for mask in masks:
        if mask.shape != shape:
            raise DecodeError(f"expected a mask of {shape[0]} x {shape[1]} like its image, found {mask.shape}")
        inside = mask != 0
        free = inside & (labels == 0)
        n_free = int(np.count_nonzero(free))
        overlap_px += int(np.count_nonzero(inside)) - n_free
        if n_free == 0:
            n_empty += 1
            continue
        count += 1
        labels[free] = count
    return JoinedMasks(labels, overlap_px, n_empty)


def labels_from_mask(mask: NDArray[np.uint8] | NDArray[np.uint16]) -> Labels:
    """Turn one mask ``(H, W)`` into labels ``(H, W) int32``, consecutive.

    A mask of 0 and one of 1, 255 and 65535 (or of one of these alone) is split into its 8-connected components;
    anything else is taken for a label image and renumbered in the order of its values.
    """
    values, inverse = np.unique(mask, return_inverse=True)
    if set(values[:-1].tolist()) <= {0} and values[-1] in (0, 1, 255, 65_535):
        _, components = cv2.connectedComponents((mask > 0).astype(np.uint8), connectivity=8)
        return components.astype(np.int32)
    numbers = inverse.reshape(mask.shape).astype(np.int32)
    return numbers if values[0] == 0 else numbers + 1


def _decode_any(data: bytes, *, name: str) -> NDArray[np.generic]:
    if not data:
        raise DecodeError(f"{name}: the file is empty; expected a PNG, TIFF or JPEG image")
    if data[:4] in TIFF_MAGIC:
        return _decode_tiff(data, name=name)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DecodeError(f"{name}: cannot be decoded ({error.err}); the file may be damaged") from error
    if pixels is None:
        raise DecodeError(
            f"{name}: not an image that can be read, or cut short ({len(data)} bytes); expected PNG, TIFF or JPEG"
        )
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA))
    return np.asarray(pixels)


def _decode_tiff(data: bytes, *, name: str) -> NDArray[np.generic]:
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            n_pages = len(tiff.pages)
            if n_pages == 1:
                page = tiff.pages[0]
                ends = [start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=True)]
                if max(ends, default=0) > len(data):  # a JPEG segment that is cut short would be decoded in part
                    raise ValueError(f"cut short: its pixels end at byte {max(ends)}, the file at {len(data)}")
                pixels = page.asarray()
                planar = getattr(page, "planarconfig", 1) == tifffile.PLANARCONFIG.SEPARATE
    except Exception as error:  # tifffile and its codecs raise many types for damaged files
        raise DecodeError(f"{name}: cannot be decoded as TIFF ({error}); the file may be damaged") from error
    if n_pages != 1:
        raise DecodeError(f"{name}: expected a TIFF of one page, found {n_pages}; save each page as a file of its own")
    return np.moveaxis(pixels, 0, -1) if planar and pixels.ndim == 3 else pixels


def _encode_png(pixels: NDArray[np.generic]) -> bytes:
    # Label images are runs of one number: this takes under half of the default's time, and fewer bytes.
    ok, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE])
    if not ok:
        raise ValueError(f"cannot encode {pixels.dtype} of shape {pixels.shape} as PNG")
    return encoded.tobytes()
