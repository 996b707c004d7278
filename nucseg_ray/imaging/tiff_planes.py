"""The planes of one TIFF file by time, channel and height: which pages they are, and decoding one at a time.

What the pages mean is said by OME-XML, by ImageJ's description or by tifffile's own; without any of these the caller
has to say it. Of a set of files that says where each plane lies, a file gives its own. Nothing is guessed:
several images, a part of a set that does not say which are refused.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import EXTRASAMPLE

from nucseg_ray.errors import ChoiceError, DecodeError
from nucseg_ray.imaging.ome_parts import OwnPart, own_part
from nucseg_ray.imaging.tiff_metadata import channel_names, pixel_size_um

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Axes that tifffile gives to pages of which nothing is said.
UNNAMED_AXES = "IQ"
MEANT = {"P": "positions", "R": "tiles", "M": "tiles", "H": "lifetimes", "A": "angles"}


@dataclass(frozen=True, slots=True)
class Stack:
    """How the pages of a file are ordered: the sizes of the axes before those of a page, and which are C, Z and T."""

    sizes: tuple[int, ...] = ()
    channel_axis: int | None = None
    z_axis: int | None = None
    time_axis: int | None = None

    @property
    def channels(self) -> int:
        """How many channels there are."""
        return self._size(self.channel_axis)

    @property
    def n_z(self) -> int:
        """How many planes there are, of each channel."""
        return self._size(self.z_axis)

    @property
    def n_times(self) -> int:
        """How many time points there are, each with all channels and planes."""
        return self._size(self.time_axis)

    def number(self, channel: int, z: int, time: int) -> int:
        """Give the number of a plane in the file's order; all from 0."""
        place = [0] * len(self.sizes)
        for axis, index in ((self.channel_axis, channel), (self.z_axis, z), (self.time_axis, time)):
            if axis is not None:
                place[axis] = index
        return sum(index * math.prod(self.sizes[axis + 1 :]) for axis, index in enumerate(place))

    def _size(self, axis: int | None) -> int:
        return 1 if axis is None else self.sizes[axis]


class TiffPlanes:
    """One opened TIFF; all errors name the file."""

    def __init__(self, data: bytes, *, name: str, unnamed_pages: Literal["Z", "C"] | None) -> None:
        """Read the structure of the file, and no pixels; ``unnamed_pages`` are planes, channels or refused.

        Raises
        ------
        DecodeError
            It is damaged.
        ChoiceError
            It is in order, but nobody can tell which channel and height its pages are.
        """
        self.name = name
        self._data = data
        self._unnamed_pages = unnamed_pages
        self._series: Any = None
        self._part: OwnPart | None = None
        try:
            # The name is compared with those that OME-XML has; other files of a set are never opened.
            self._tiff = tifffile.TiffFile(io.BytesIO(data), name=name.rpartition("/")[2], _multifile=False)
            n_pages = len(self._tiff.pages)
        except Exception as error:  # tifffile raises many types for damaged files
            raise self._damaged(error) from error
        if n_pages == 0:
            raise DecodeError(f"{name}: expected a TIFF of one page or more, found 0; the file may be damaged")
        self.stack = Stack()
        try:
            self._first: Any = self._tiff.pages.first
            if n_pages > 1 or self._may_hold_more():
                self.stack = self._understood(n_pages)
        except (DecodeError, ChoiceError):
            raise
        except Exception as error:
            raise self._damaged(error) from error

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """The names of the channels, each empty where it has none."""
        if self._part is not None:
            return self._part.channels
        count = self.stack.channels
        try:
            firsts = [self.stack.number(channel, 0, 0) for channel in range(count)]
            return channel_names(self._tiff, channels=count, first_labels=firsts)
        except Exception:  # names are a convenience: a file whose pixels are in order can do without
            return ("",) * count

    @cached_property
    def pixel_size_um(self) -> float | None:
        """The side of a pixel, in micrometres; None where the file does not say it."""
        try:
            return pixel_size_um(self._first)
        except Exception:  # odd tags are no reason to do without the pixels
            return None

    def decode(self, channel: int, z: int, time: int) -> NDArray[np.generic]:
        """Decode one plane: (H, W) or (H, W, S) with the samples that its page holds, but for an alpha channel.

        Raises
        ------
        DecodeError
            It is damaged.
        ChoiceError
            Its last sample may be a channel.
        """
        number = self.stack.number(channel, z, time)
        several = math.prod(self.stack.sizes) > 1
        where = f"{self.name}, page {number + 1}" if several else self.name
        try:
            if self._series is not None and self._series.is_truncated:
                pixels = self._contiguous(number)
            else:
                page = self._page(number)
                if page is None:
                    raise ValueError("its metadata name it, but the file does not hold it")
                if several:
                    where = f"{self.name}, page {page.index + 1}"
                pixels = _decoded(page, n_bytes=len(self._data))
        except Exception as error:
            raise self._damaged(error, where) from error
        return self._without_alpha(pixels)

    def _without_alpha(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        """Drop the last of two or four samples where the file says that it is alpha: it may be a channel."""
        if pixels.ndim != 3 or pixels.shape[2] not in (2, 4):
            return pixels
        if self._first.extrasamples[-1:] not in ((EXTRASAMPLE.ASSOCALPHA,), (EXTRASAMPLE.UNASSALPHA,)):
            raise ChoiceError(
                f"{self.name}: expected a grey image or one in colour, found {pixels.shape[2]} samples a pixel, of "
                "which nothing says that the last is transparency; save each channel as a page, or as a file of its own"
            )
        return pixels[:, :, :-1]

    def _page(self, number: int) -> Any:
        if self._part is not None:
            return self._tiff.pages[self._part.pages[number]]
        return self._first if self._series is None else self._series[number]

    def _may_hold_more(self) -> bool:
        """Tell whether a file of one page may hold more than one plane after it, as ImageJ and MetaMorph write them."""
        return bool(self._first.is_imagej or self._first.is_shaped or self._first.is_stk)

    def _understood(self, n_pages: int) -> Stack:
        """Choose the series that holds the planes, and understand its axes."""
        series = [found for found in self._tiff.series if found is not None]
        if not series:
            raise DecodeError(f"{self.name}: expected planes, found none that can be read; the file may be damaged")
        if self._tiff.is_ome and series[0].kind != "ome" and n_pages > 1:
            self._part = own_part(self._first.description, file_name=self._tiff.filename, n_pages=n_pages)
            if self._part is not None:
                return Stack((len(self._part.channels), self._part.n_z), channel_axis=0, z_axis=1)
            raise ChoiceError(
                f"{self.name}: its OME metadata describe a set of files, but not the one image whose channels and "
                "planes this file holds; save all planes of a site in one file, or each plane as a file of its own"
            )
        self._refuse_other_images(series)
        self._series = series[0]
        axes, shape = self._series.get_axes(squeeze=False), self._series.get_shape(squeeze=False)
        stack = understood_axes(axes, shape, name=self.name, unnamed_pages=self._unnamed_pages)
        if not self._series.is_truncated and len(self._series) != math.prod(stack.sizes):
            raise DecodeError(
                f"{self.name}: expected a page for each plane, found an array of shape {tuple(shape)} in "
                f"{len(self._series)} pages; save each channel or plane as an image of its own"
            )
        return stack

    def _refuse_other_images(self, series: list[Any]) -> None:
        """Refuse what is neither the image nor a small one made of it, such as a thumbnail."""
        first = series[0].keyframe
        others = [other.keyframe for other in series[1:] if not other.keyframe.is_reduced]
        if others:
            raise ChoiceError(
                f"{self.name}: expected the planes of one image, found {len(others) + 1} images: that of page "
                f"{first.index + 1} is {first.shape} {first.dtype}, that of page {others[0].index + 1} is "
                f"{others[0].shape} {others[0].dtype}; save each image, such as a position, as a file of its own"
            )

    def _contiguous(self, number: int) -> NDArray[np.generic]:
        """Give a plane of a file that says only where the first of them lies; the others follow it."""
        page = self._first
        count = math.prod(page.shape)
        dtype = np.dtype(self._tiff.byteorder + page.dtype.char)
        start = self._series.dataoffset + number * count * dtype.itemsize
        if start + count * dtype.itemsize > len(self._data):
            raise ValueError(
                f"cut short: it ends at byte {start + count * dtype.itemsize}, the file at {len(self._data)}"
            )
        pixels = np.frombuffer(self._data, dtype, count, start).reshape(page.shape)
        return pixels.astype(page.dtype)

    def _damaged(self, error: Exception, where: str | None = None) -> DecodeError:
        return DecodeError(f"{where or self.name}: cannot be decoded as TIFF ({error}); the file may be damaged")


def understood_axes(axes: str, shape: tuple[int, ...], *, name: str, unnamed_pages: Literal["Z", "C"] | None) -> Stack:
    """Find C, Z and T among the axes before Y and X; ``axes`` as tifffile names them, those of length 1 included.

    An axis of which nothing is said is what ``unnamed_pages`` says.

    Raises
    ------
    ChoiceError
        There are others, such as positions, or one of which nobody says what it is.
    """
    before = min(axes.index("Y"), axes.index("S") if "S" in axes else len(axes))
    sizes = tuple(int(size) for size in shape[:before])
    long = {axes[axis]: axis for axis in range(before) if sizes[axis] > 1}
    if sum(size > 1 for size in sizes) > len(long):  # one letter twice
        raise _unknown(axes, sizes, name)
    unnamed = [letter for letter in long if letter in UNNAMED_AXES]
    if len(unnamed) > 1 or (unnamed and unnamed_pages in long):
        raise _unknown(axes, sizes, name)
    if unnamed and unnamed_pages is None:
        raise ChoiceError(
            f"{name}: expected one image, or pages of which the file says what they are, found "
            f"{sizes[long[unnamed[0]]]} pages of which it says nothing; if they are the planes of a z-stack, give "
            "--z max (or mean, best-focus, a number); if they are channels, --channel with a number from 1"
        )
    if unnamed and unnamed_pages is not None:
        long[unnamed_pages] = long.pop(unnamed[0])
    for letter, axis in long.items():
        if letter not in ("C", "Z", "T"):
            raise ChoiceError(
                f"{name}: expected channels, z planes and time points of one image, found {sizes[axis]} "
                f"{MEANT.get(letter, f'along the axis {letter}')}; save each as a file of its own"
            )
    return Stack(sizes, long.get("C"), long.get("Z"), long.get("T"))


def _unknown(axes: str, sizes: tuple[int, ...], name: str) -> ChoiceError:
    return ChoiceError(
        f"{name}: expected pages that are channels and z planes, found {' x '.join(map(str, sizes))} of which nothing "
        f"says what they are (axes {axes}); save it as OME-TIFF with named axes"
    )


def _decoded(page: Any, *, n_bytes: int) -> NDArray[np.generic]:
    ends = [start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if max(ends, default=0) > n_bytes:  # a JPEG segment that is cut short would be decoded in part
        raise ValueError(f"cut short: its pixels end at byte {max(ends)}, the file at {n_bytes}")
    pixels: NDArray[np.generic] = page.asarray()
    is_planar = pixels.ndim == 3 and page.keyframe.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    return np.moveaxis(pixels, 0, -1) if is_planar else pixels
