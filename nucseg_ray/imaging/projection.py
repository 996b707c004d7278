"""One image of a stack of planes, which are taken one after another: no more than two are held here at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.imaging.codecs import Pixels

Projection = Literal["max", "mean", "best-focus"]
PROJECTIONS: tuple[str, ...] = get_args(Projection)
# How far apart the pixels are whose difference Brenner's measure takes.
BRENNER_STEP = 2


def project(planes: Iterable[Pixels], by: Projection) -> Pixels:
    """Make one image of planes of one shape and type, (H, W) or (H, W, 3), and of that type.

    ``max`` and ``mean`` take each pixel's largest value and its mean, halves rounded up; ``best-focus`` is the plane
    that :func:`sharpness` is highest for, the first of several.
    """
    remaining = iter(planes)
    first = next(remaining)
    if by == "best-focus":
        return _sharpest(first, remaining)
    if by == "mean":
        return _mean(first, remaining)
    largest = first
    for number, plane in enumerate(remaining):
        largest = np.maximum(largest, plane, out=largest if number else None)
    return largest


def sharpness(plane: Pixels) -> float:
    """Tell how well a plane is in focus: Brenner's gradient over the squared mean; 0 for a plane that is black.

    The mean squared difference of pixels two apart, in both directions; over two pixels it sees less of the noise than
    a Laplacian does. Dividing by the squared mean keeps a plane from winning by brightness alone.

    J. F. Brenner et al., An automated microscope for cytologic research, J. Histochem. Cytochem. 24 (1976) 100-111; in
    the comparison of Y. Sun, S. Duthaler, B. J. Nelson, Autofocusing in computer microscopy, Microsc. Res. Tech. 65
    (2004) 139-149.
    """
    brightness = float(plane.mean(dtype=np.float64))
    if brightness == 0.0:
        return 0.0
    total, pairs = 0.0, 0
    for axis in (0, 1):
        ahead, behind = _apart(plane, axis)
        if not ahead.size:
            continue
        difference = np.subtract(ahead, behind, dtype=np.int32).ravel()
        # Of 16 bits a difference squared is up to 2**32: beyond int32, and exact in float64.
        total += float(np.square(difference, dtype=np.float64).sum())
        pairs += difference.size
    return total / pairs / brightness**2 if pairs else 0.0


def _sharpest(first: Pixels, others: Iterable[Pixels]) -> Pixels:
    best, highest = first, sharpness(first)
    for plane in others:
        found = sharpness(plane)
        if found > highest:
            best, highest = plane, found
    return best


def _mean(first: Pixels, others: Iterable[Pixels]) -> Pixels:
    total: NDArray[Any] = first.astype(np.uint32)  # holds 65,537 planes of 16 bits
    count = 1
    for plane in others:
        total += plane
        count += 1
    return cast("Pixels", ((total + np.uint32(count // 2)) // np.uint32(count)).astype(first.dtype))


def _apart(plane: Pixels, axis: int) -> tuple[Pixels, Pixels]:
    if axis == 0:
        return plane[BRENNER_STEP:], plane[:-BRENNER_STEP]
    return plane[:, BRENNER_STEP:], plane[:, :-BRENNER_STEP]
