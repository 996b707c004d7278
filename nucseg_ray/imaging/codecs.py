"""Bytes to arrays and back: images, the planes of a file, masks and label images.

OpenCV decodes PNG, JPEG, BMP and the like. TIFF goes through tifffile: microscopes write private tags, for each of
which OpenCV prints a warning, and pages that it would drop silently.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from nucseg_ray.errors import DecodeError
from nucseg_ray.imaging.tiff_planes import TIFF_MAGIC, TiffPlanes

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
    ChoiceError
        They hold several images.
    """
    planes = decode_planes(data, name=name, unnamed_pages="Z")
    n_pages = planes.n_channels * planes.n_z * planes.n_times
    if n_pages != 1:
        raise DecodeError(f"{name}: expected a TIFF of one page, found {n_pages}; save each page as a file of its own")
    return planes.plane(0, 0)


class Planes:
    """One file, opened: its planes by channel, height (lowest first) and time, decoded one at a time.

    ``channels`` are the names, each empty where the file has none for it; ``n_z`` is how many planes each has, at each
    of ``n_times`` time points.
    ``pixel_size_um`` is the side of a pixel, None where the file does not say it. The samples of a colour image are
    not channels: its planes are RGB.
    """

    def __init__(self, name: str, *, tiff: TiffPlanes | None = None, image: NDArray[np.generic] | None = None) -> None:
        """Take an opened TIFF, or the one image of a file of another format."""
        self.name = name
        self._tiff = tiff
        self._image = image

    @property
    def n_channels(self) -> int:
        """How many channels there are."""
        return 1 if self._tiff is None else self._tiff.stack.channels

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the channels."""
        return ("",) if self._tiff is None else self._tiff.channels

    @property
    def n_z(self) -> int:
        """How many planes there are of each channel."""
        return 1 if self._tiff is None else self._tiff.stack.n_z

    @property
    def n_times(self) -> int:
        """How many time points there are."""
        return 1 if self._tiff is None else self._tiff.stack.n_times

    @property
    def pixel_size_um(self) -> float | None:
        """The side of a pixel, in micrometres."""
        return None if self._tiff is None else self._tiff.pixel_size_um

    def plane(self, channel: int, z: int, time: int = 0) -> Pixels:
        """Decode one plane, by its numbers from 0, to what :func:`decode_image` gives.

        Raises
        ------
        DecodeError
            It is damaged, or of a type that is not read; names the file, and the page where there are several.
        ChoiceError
            Its pixels are of channels that nothing tells apart.
        """
        pixels = self._image if self._tiff is None else self._tiff.decode(channel, z, time)
        return _as_pixels(cast("NDArray[Any]", pixels), name=self.name)


def decode_planes(data: bytes, *, name: str, unnamed_pages: Literal["Z", "C"] | None = None) -> Planes:
    """Open a file of one image or more; the pixels of a TIFF are decoded only when they are asked for.

    ``unnamed_pages`` says what pages are of which a TIFF says nothing: planes, or channels.

    Raises
    ------
    DecodeError
        The bytes are no image.
    ChoiceError
        Nobody can tell which channel and height the pages are: nothing is said of them, several images, a part of a
        set of files.
    """
    if data[:4] in TIFF_MAGIC:
        return Planes(name, tiff=TiffPlanes(data, name=name, unnamed_pages=unnamed_pages))
    return Planes(name, image=_decode_other(data, name=name))


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


def _as_pixels(pixels: NDArray[Any], *, name: str) -> Pixels:
    """Drop an alpha channel and equal ones, and refuse what is no image of 8 or 16 bits."""
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


def _decode_other(data: bytes, *, name: str) -> NDArray[np.generic]:
    if not data:
        raise DecodeError(f"{name}: the file is empty; expected a PNG, TIFF or JPEG image")
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


def _encode_png(pixels: NDArray[np.generic]) -> bytes:
    # Label images are runs of one number: this takes under half of the default's time, and fewer bytes.
    ok, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE])
    if not ok:
        raise ValueError(f"cannot encode {pixels.dtype} of shape {pixels.shape} as PNG")
    return encoded.tobytes()
