"""Cut a large image into tiles that a network can take, and blend the maps it returns into one.

Maps are blended, not labels: the site is labelled once, as a whole, so there are no numbers to merge and no seams.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.errors import UsageError

Weights = NDArray[np.float32]


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A half-open box of pixels: rows ``y0`` to ``y1``, columns ``x0`` to ``x1``, the ends left out."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """The box as an index: ``image[box.slices]``."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A tile: ``core`` is its own share of the image; ``read``, around it, is what the network sees."""

    core: Box
    read: Box


def plan_tiles(shape: tuple[int, int], *, tile_px: int, overlap_px: int) -> tuple[Tile, ...]:
    """Cover an image of ``shape`` (height, width) with tiles, in raster order.

    The cores share the image out without gap or overlap. All read boxes have one shape, ``tile_px`` along an axis
    that is longer than that and the whole axis otherwise, so that a network compiled for one shape serves them all.
    Neighbouring read boxes overlap by at least ``overlap_px`` and are spread evenly.

    Raises
    ------
    UsageError
        The image is empty, or the overlap is negative or leaves nothing of a tile.

    Examples
    --------
    >>> [tile.read.x0 for tile in plan_tiles((100, 250), tile_px=100, overlap_px=20)]
    [0, 75, 150]
    """
    if min(shape) < 1:
        raise UsageError(f"an image to tile needs at least one pixel; found the shape {shape}")
    if not 0 <= overlap_px < tile_px:
        raise UsageError(f"overlap_px must be 0 or more and below tile_px; found {overlap_px} and tile_px {tile_px}")
    rows, columns = (_spans(length, tile_px, overlap_px) for length in shape)
    return tuple(
        Tile(
            core=Box(y_core[0], x_core[0], y_core[1], x_core[1]),
            read=Box(y_read[0], x_read[0], y_read[1], x_read[1]),
        )
        for (y_core, y_read), (x_core, x_read) in product(rows, columns)
    )


def blend(tiles: Iterable[tuple[Tile, NDArray[np.float32]]], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Blend the maps of tiles, each (h, w, M) float32 over its read box, into maps (H, W, M) float32.

    Where tiles overlap, the weight of each falls off linearly towards its own edge, where a network sees least of the
    surroundings. Where they agree, the outcome is what they agree on, up to rounding.

    Raises
    ------
    UsageError
        A tile's maps do not have the shape of its read box, or the tiles leave part of the image bare.
    """
    total: NDArray[np.float32] | None = None
    weight_sum = np.zeros(shape, np.float32)
    for tile, maps in tiles:
        if maps.ndim != 3 or maps.shape[:2] != tile.read.shape:
            raise UsageError(f"the maps of {tile} must be {tile.read.shape} and their number; found {maps.shape}")
        if total is None:
            total = np.zeros((*shape, maps.shape[2]), np.float32)
        weights = _weights(tile)
        total[tile.read.slices] += maps * weights[:, :, np.newaxis]
        weight_sum[tile.read.slices] += weights
    if total is None or not weight_sum.all():
        raise UsageError(f"the tiles must cover the whole image {shape}; some of its pixels are in none of them")
    total /= weight_sum[:, :, np.newaxis]
    return total


def _spans(length: int, tile_px: int, overlap_px: int) -> Sequence[tuple[tuple[int, int], tuple[int, int]]]:
    """Return core and read interval of each tile along one axis."""
    if length <= tile_px:
        return [((0, length), (0, length))]
    n_tiles = -(-(length - overlap_px) // (tile_px - overlap_px))
    starts = [number * (length - tile_px) // (n_tiles - 1) for number in range(n_tiles)]
    # A border between cores runs down the middle of the overlap.
    borders = [(start + tile_px + following) // 2 for start, following in pairwise(starts)]
    edges = [0, *borders, length]
    return [((edges[i], edges[i + 1]), (start, start + tile_px)) for i, start in enumerate(starts)]


def _weights(tile: Tile) -> Weights:
    core, read = tile.core, tile.read
    along_y = _ramp(read.y1 - read.y0, core.y0 - read.y0, read.y1 - core.y1)
    along_x = _ramp(read.x1 - read.x0, core.x0 - read.x0, read.x1 - core.x1)
    return along_y[:, np.newaxis] * along_x


def _ramp(length: int, before: int, after: int) -> Weights:
    """Return weights (length,) that rise over the overlap at the start and fall over the one at the end.

    ``before`` and ``after`` are the margins outside the core, half of an overlap; 0 at the border of the image,
    where no other tile takes over and the weight stays 1.
    """
    centres = np.arange(length, dtype=np.float32) + 0.5
    weights = np.ones(length, np.float32)
    if before:
        weights = np.minimum(weights, centres / (2 * before))
    if after:
        weights = np.minimum(weights, centres[::-1] / (2 * after))
    return weights
