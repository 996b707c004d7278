"""Correct uneven light: an image divided by the function that says how much light each of its pixels gets.

The function has mean 1, so that intensities stay what they are on average and only their place stops to matter. As a
file it is a TIFF of 32-bit floats, which CellProfiler (CorrectIlluminationApply, "Divide") and ImageJ open.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import tifffile
from numpy.typing import NDArray

from nucseg_ray.errors import DecodeError
from nucseg_ray.imaging.codecs import Pixels
from nucseg_ray.imaging.tiff_planes import TIFF_MAGIC

NPY_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True, slots=True, eq=False)
class Illumination:
    """How much light falls where: ``function (H, W)`` float32, above 0, of mean 1.

    ``offset`` is what the camera shows without any light, in grey levels: it gets no light, so it is not divided.
    """

    function: NDArray[np.float32]
    offset: float = 0.0

    def correct(self, image: Pixels) -> Pixels:
        """Give ``(image - offset) / function + offset`` for ``(H, W)`` or ``(H, W, 3)``.

        Rounded, and clipped to what the image's type can hold. So the type stays: normalisation, models and the
        measurements know 8 and 16 bits, and what rounding changes, half a grey level, is less than the noise. The
        offset is added again: without it half of a dark background's noise would be clipped at 0.

        Planes of a stack share the function, and dividing by it keeps their order at every pixel: the maximum over
        corrected planes is the corrected maximum, bit for bit. So it is the projection that is corrected, once.

        Raises
        ------
        DecodeError
            The image has another shape than the function.
        """
        if image.shape[:2] != self.function.shape:
            raise DecodeError(
                f"expected an image of {_size(self.function.shape)} px like the illumination function of its plate, "
                f"found {_size(image.shape)}"
            )
        function = self.function if image.ndim == 2 else self.function[:, :, np.newaxis]
        offset = np.float32(self.offset)
        light = (image.astype(np.float32) - offset) / function + offset
        np.clip(np.rint(light, out=light), 0, np.iinfo(image.dtype).max, out=light)
        return cast("Pixels", light.astype(image.dtype))


def encode_illumination(illumination: Illumination, *, note: dict[str, Any]) -> bytes:
    """Encode as TIFF of 32-bit floats; offset and ``note`` go into its description, as JSON. Same in, same bytes."""
    buffer = io.BytesIO()
    description = json.dumps({"offset": illumination.offset, **note}, allow_nan=False)
    tifffile.imwrite(
        buffer,
        illumination.function,
        photometric="minisblack",
        compression="zlib",
        predictor=False,
        description=description,
        metadata=None,
        software="nucseg_ray",
    )
    return buffer.getvalue()


def decode_illumination(data: bytes, *, name: str) -> Illumination:
    """Decode what :func:`encode_illumination` wrote, or a function from elsewhere: a TIFF of one page, or NumPy's .npy.

    Numbers of any type are brought to mean 1, since only their shape counts: a picture of an evenly stained slide will
    do. The offset is 0 where the file does not say one.

    Raises
    ------
    DecodeError
        It is no such file, not of one channel, or holds values that are not finite and above 0.
    """
    try:
        values, description = _read(data)
    except Exception as error:  # damaged files make the readers raise many types
        raise DecodeError(
            f"{name}: expected an illumination function, a TIFF or .npy file, which could not be read ({error})"
        ) from error
    if values.ndim != 2 or values.dtype.kind not in "uif" or values.size == 0:
        raise DecodeError(
            f"{name}: expected an illumination function of one channel (H, W), found an array of shape {values.shape}, "
            f"{values.dtype}; save it as one grey image"
        )
    function = values.astype(np.float64)
    if not np.isfinite(function).all() or function.min() <= 0:
        raise DecodeError(
            f"{name}: expected an illumination function of finite values above 0, found "
            f"{np.count_nonzero(~np.isfinite(function))} that are not finite and "
            f"{np.count_nonzero(function <= 0)} of 0 or below; images are divided by it"
        )
    return Illumination((function / function.mean()).astype(np.float32), _offset(description))


def _read(data: bytes) -> tuple[NDArray[Any], str]:
    if data.startswith(NPY_MAGIC):
        return np.load(io.BytesIO(data), allow_pickle=False), ""
    if data[:4] not in TIFF_MAGIC:
        raise ValueError(f"it begins with {data[:4]!r}")
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        if len(tiff.pages) != 1:
            raise ValueError(f"it has {len(tiff.pages)} pages")
        return np.asarray(tiff.pages[0].asarray()), str(tiff.pages[0].description)


def _offset(description: str) -> float:
    """Give the offset that our own description holds; those of other programs hold none."""
    try:
        return float(json.loads(description)["offset"])
    except (ValueError, KeyError, TypeError):
        return 0.0


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]}"
