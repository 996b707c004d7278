"""Arrays that someone hands over, checked: what is not surely an image is refused, never guessed at."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.errors import InputError
from nucseg_ray.imaging.codecs import Pixels, grey_where_equal

_SHAPES = "expected an image (H, W) or (H, W, 3)"


def to_pixels(image: Any, *, name: str = "image") -> Pixels:
    """Give the pixels that the reader of files would give for the same image: contiguous, in the machine's byte order.

    Accepted is what NumPy makes an array of without changing its values: ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)`` of
    uint8 or uint16, views and either byte order included. Three equal channels become one. A second or fourth channel
    is dropped where it is an opaque alpha, the largest value throughout. An image that is so already is not copied.

    No other type is converted: a model may be trained on the full range of 8 or of 16 bits, and values alone do not
    tell which of the two a wider type or a float holds.

    Raises
    ------
    InputError
        It is something else, or empty; ``name`` says which image in the message.

    Examples
    --------
    >>> to_pixels(np.zeros((2, 3, 4), ">u2") + np.uint16(65_535)).shape
    (2, 3)
    """
    try:
        pixels = np.asarray(image)
    except Exception as error:  # whatever converts itself to an array may raise anything
        raise InputError(f"{name}: {_SHAPES}, found {type(image).__name__}, no array ({error})") from error
    if pixels.dtype.kind not in "u" or pixels.dtype.itemsize > 2:
        raise InputError(f"{name}: expected pixels of type uint8 or uint16, found {_wrong_type(image, pixels)}")
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 2, 3, 4)):
        raise InputError(f"{name}: {_SHAPES}, found an array of shape {pixels.shape}; {_reshape(pixels.shape)}")
    if pixels.size == 0:
        raise InputError(f"{name}: expected at least one pixel, found an array of shape {pixels.shape}")
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        pixels = _without_alpha(pixels, name=name)
    native = pixels.dtype.newbyteorder("=")
    return cast("Pixels", np.ascontiguousarray(grey_where_equal(pixels), native))


def _wrong_type(image: Any, pixels: NDArray[Any]) -> str:
    """Say what was found in place of 8 or 16 bits, and what to do."""
    kind = pixels.dtype.kind
    if kind not in "biuf":
        return f"{type(image).__name__} (as an array: {pixels.dtype}); pass the array of pixels itself"
    found = f"{pixels.dtype}" if pixels.size == 0 else f"{pixels.dtype} from {pixels.min()} to {pixels.max()}"
    if kind == "b":
        return f"{pixels.dtype}; a mask is no image: pass the image that it was made from"
    if kind == "f":
        return (
            f"{found}; scale it to the range of the camera and round, such as (image * 65535).round().astype('uint16')"
        )
    if pixels.size and (pixels.min() < 0 or pixels.max() > 65_535):
        return f"{found}, which do not fit 16 bits; subtract the offset or scale it, then image.astype('uint16')"
    return f"{found}; convert it with image.astype('uint8') or image.astype('uint16'), whichever the camera gave"


def _reshape(shape: tuple[int, ...]) -> str:
    """Say what to do with an array of the wrong shape."""
    if len(shape) == 3 and shape[0] == 3:
        return "if its channels come first, pass np.moveaxis(image, 0, -1); if it is a stack, image.max(axis=0)"
    if len(shape) == 3:
        return "pass one plane or channel, such as image[0], or a projection, such as image.max(axis=0)"
    return "pass images one by one, or many through segment_many" if len(shape) > 3 else "pass a whole image"


def _without_alpha(pixels: NDArray[Any], *, name: str) -> NDArray[Any]:
    alpha = pixels[:, :, -1]
    if not (alpha == np.iinfo(pixels.dtype).max).all():
        n_channels = pixels.shape[2]
        raise InputError(
            f"{name}: {_SHAPES}, found {n_channels} channels, of which the last is not an opaque alpha; pass one "
            f"channel, such as image[:, :, 0]{', or the three of colour, image[:, :, :3]' if n_channels == 4 else ''}"
        )
    return pixels[:, :, :-1]
