"""Tiles cover the image once, and blending gives back what was cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nucseg_ray.errors import UsageError
from nucseg_ray.imaging.tiling import Box, Tile, blend, plan_tiles

shapes = st.tuples(st.integers(1, 90), st.integers(1, 90))
# (tile_px, overlap_px), the overlap anything from nothing to all but one pixel
grids = st.integers(1, 40).flatmap(lambda tile_px: st.tuples(st.just(tile_px), st.integers(0, tile_px - 1)))


@settings(max_examples=150, deadline=None)
@given(shapes, grids)
def test_cores_share_out_the_image(shape: tuple[int, int], grid: tuple[int, int]) -> None:
    tile_px, overlap_px = grid
    tiles = plan_tiles(shape, tile_px=tile_px, overlap_px=overlap_px)
    times = np.zeros(shape, int)
    for tile in tiles:
        times[tile.core.slices] += 1
        assert tile.read.y0 <= tile.core.y0 < tile.core.y1 <= tile.read.y1
        assert tile.read.x0 <= tile.core.x0 < tile.core.x1 <= tile.read.x1
        assert min(tile.read.y0, tile.read.x0) >= 0
        assert tile.read.y1 <= shape[0]
        assert tile.read.x1 <= shape[1]
        assert tile.read.shape == (min(tile_px, shape[0]), min(tile_px, shape[1]))
    assert np.all(times == 1)
    assert list(tiles) == sorted(tiles, key=lambda tile: (tile.core.y0, tile.core.x0))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 500), grids)
def test_neighbours_overlap_enough_with_no_tile_too_many(length: int, grid: tuple[int, int]) -> None:
    tile_px, overlap_px = grid
    reads = [tile.read for tile in plan_tiles((1, length), tile_px=tile_px, overlap_px=overlap_px)]
    assert all(left.x1 - right.x0 >= overlap_px for left, right in pairwise(reads))
    if len(reads) > 1:  # one tile fewer could not cover the image
        assert (len(reads) - 1) * (tile_px - overlap_px) + overlap_px < length


def test_a_small_image_is_one_tile() -> None:
    whole = Box(0, 0, 30, 50)
    assert plan_tiles((30, 50), tile_px=64, overlap_px=16) == (Tile(whole, whole),)


def test_the_plan_of_one_axis() -> None:
    tiles = plan_tiles((10, 250), tile_px=100, overlap_px=20)
    assert [(tile.read.x0, tile.read.x1) for tile in tiles] == [(0, 100), (75, 175), (150, 250)]
    assert [(tile.core.x0, tile.core.x1) for tile in tiles] == [(0, 87), (87, 162), (162, 250)]


@settings(max_examples=60, deadline=None)
@given(shapes, grids, st.integers(0, 2**32 - 1))
def test_what_does_not_depend_on_position_blends_to_itself(
    shape: tuple[int, int], grid: tuple[int, int], seed: int
) -> None:
    image = np.random.default_rng(seed).random((*shape, 2), dtype=np.float32)
    tiles = plan_tiles(shape, tile_px=grid[0], overlap_px=grid[1])
    blended = blend(((tile, np.sqrt(image[tile.read.slices])) for tile in tiles), shape)
    assert blended.dtype == np.float32
    assert blended.shape == image.shape
    # Both sums, of weights and of weighted maps, have a term a tile: each addition may round by half a unit.
    n_tiles = np.zeros(shape, int)
    for tile in tiles:
        n_tiles[tile.read.slices] += 1
    rounding = 2 * (int(n_tiles.max()) + 2) * np.finfo(np.float32).eps / 2
    np.testing.assert_allclose(blended, np.sqrt(image), rtol=rounding)


def test_a_local_filter_over_tiles_equals_the_whole() -> None:
    image = np.random.default_rng(0).random((200, 170)).astype(np.float32)
    whole = ndimage.uniform_filter(image, 9)
    tiles = plan_tiles(image.shape, tile_px=96, overlap_px=40)
    parts = [(tile, ndimage.uniform_filter(image[tile.read.slices], 9)[:, :, np.newaxis]) for tile in tiles]
    blended = blend(parts, image.shape)[:, :, 0]
    # Each tile is wrong in its outermost 4 pixels; their small weight leaves little of that.
    assert np.abs(blended - whole).max() < 0.25 * max(
        np.abs(part[:, :, 0] - whole[tile.read.slices]).max() for tile, part in parts
    )


def test_the_handover_is_a_straight_ramp() -> None:
    left, right = plan_tiles((1, 14), tile_px=9, overlap_px=4)
    parts = [(left, np.zeros((1, 9, 1), np.float32)), (right, np.ones((1, 9, 1), np.float32))]
    expected = [0] * 5 + [0.125, 0.375, 0.625, 0.875] + [1] * 5
    np.testing.assert_allclose(blend(parts, (1, 14))[0, :, 0], expected, atol=1e-6)


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(UsageError, match="below tile_px; found 8 and tile_px 8"):
        plan_tiles((10, 10), tile_px=8, overlap_px=8)
    with pytest.raises(UsageError, match="0 or more"):
        plan_tiles((10, 10), tile_px=8, overlap_px=-1)
    with pytest.raises(UsageError, match="at least one pixel"):
        plan_tiles((0, 10), tile_px=8, overlap_px=2)
    first, *rest = plan_tiles((10, 20), tile_px=10, overlap_px=2)
    with pytest.raises(UsageError, match="must cover the whole image"):
        blend([(first, np.zeros((10, 10, 1), np.float32))], (10, 20))
    with pytest.raises(UsageError, match="must cover the whole image"):
        blend([], (10, 20))
    with pytest.raises(UsageError, match=r"found \(10, 9, 1\)"):
        blend([(tile, np.zeros((10, 9, 1), np.float32)) for tile in rest], (10, 20))
