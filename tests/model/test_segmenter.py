"""From pixels to maps and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg_ray.errors import MissingInputError, WeightsError
from nucseg_ray.imaging.synthetic import SiteLook, render_site
from nucseg_ray.imaging.tiling import plan_tiles
from nucseg_ray.model.bundle import Bundle, write_bundle
from nucseg_ray.model.segmenter import Segmenter, Tiling


class Brightness:
    """A stand-in for the network: maps are the first channel, so what is right is known."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.shapes.append(images.shape)
        assert images.dtype == np.float32
        return np.repeat(images[..., :1], 2, axis=-1)


@pytest.fixture(scope="module")
def segmenter(unet: Any, bundle: Bundle) -> Segmenter:
    return Segmenter.load(bundle.folder, tiling=Tiling(tile_px=128, overlap_px=32))


def site(*shape: int, seed: int = 0) -> np.ndarray:
    look = SiteLook(shape_px=(shape[0], shape[1]), nuclei=7, radius_px=(7.0, 12.0))
    return render_site(look, np.random.default_rng(seed))[0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 31), (32, 64), (127, 129, 3), (200, 131)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_size_keeps_its_shape(segmenter: Segmenter, shape: tuple[int, ...], dtype: type) -> None:
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    maps = segmenter.maps(image)
    assert maps.shape == (*shape[:2], 2) and maps.dtype == np.uint8
    labels = segmenter.segment(image)
    assert labels.shape == shape[:2] and labels.dtype == np.int32


def test_the_same_image_gives_the_same_bits(segmenter: Segmenter, bundle: Bundle) -> None:
    image = site(200, 170)
    maps = segmenter.maps(image)
    segmenter.maps(site(90, 70, seed=1))  # what came between leaves no trace
    np.testing.assert_array_equal(segmenter.maps(image), maps)
    np.testing.assert_array_equal(bundle.labels.label(maps), segmenter.segment(image))
    again = Segmenter.load(bundle.folder, tiling=Tiling(tile_px=128, overlap_px=32))
    np.testing.assert_array_equal(again.maps(image), maps)


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (70, 45), (300, 201), (300, 201, 3)])
def test_padding_and_tiling_add_nothing_of_their_own(bundle: Bundle, shape: tuple[int, ...]) -> None:
    network = Brightness()
    image = np.random.default_rng(2).integers(0, 60_000, shape, np.uint16)
    maps = Segmenter(bundle, network, tiling=Tiling(tile_px=96, overlap_px=20)).maps(image)
    normalised = bundle.normalisation.normalise(image)
    plane = normalised if normalised.ndim == 2 else normalised[..., 0]
    assert np.abs(maps - 255.0 * plane[..., np.newaxis]).max() <= 0.5 + 1e-3
    assert all(height % 64 == width % 64 == 0 and channels == 3 for _, height, width, channels in network.shapes)
    assert len({shape[1:] for shape in network.shapes}) == 1
    tiles = plan_tiles((shape[0], shape[1]), tile_px=96, overlap_px=20)
    assert sum(shape[0] for shape in network.shapes) == len(tiles)


def test_images_together_are_as_each_alone(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    shapes = [(64, 64), (300, 90), (1, 1), (60, 64, 3), (64, 64), (130, 130)]
    images = [rng.integers(0, 255, shape, np.uint8) for shape in shapes]
    network = Brightness()
    segmenter = Segmenter(bundle, network, tiling=Tiling(tile_px=96, overlap_px=20))
    together = segmenter.maps_of(images)
    calls = len(network.shapes)
    assert calls == 2  # one of each shape of tile: 64 x 64, and 128 x 128
    for image, maps in zip(images, together, strict=True):
        np.testing.assert_array_equal(segmenter.maps(image), maps)
    monkeypatch.setattr("nucseg_ray.model.segmenter.PIXELS_TOGETHER", 64 * 64)
    network.shapes.clear()
    for maps, alone in zip(segmenter.maps_of(images), together, strict=True):
        np.testing.assert_array_equal(maps, alone)
    assert {shape[0] for shape in network.shapes} == {1}
    assert segmenter.maps_of([]) == []


def test_tiles_join_to_the_whole(bundle: Bundle, unet: Any) -> None:
    """A network sees further than any overlap, so tiles differ a little: at most by 2 % of full range here."""
    image = site(448, 384)
    whole = Segmenter.load(bundle.folder, tiling=Tiling(tile_px=448, overlap_px=0)).maps(image).astype(int)
    tiled = Segmenter.load(bundle.folder, tiling=Tiling(tile_px=256, overlap_px=64)).maps(image).astype(int)
    difference = np.abs(tiled - whole)
    assert whole.max() - whole.min() > 50  # there is something to compare
    assert difference.mean() <= 0.1 and difference.max() <= 5


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no model bundle"):
        Segmenter.load(tmp_path)


def test_weights_of_another_network_are_refused(
    tmp_path: Path, unet: Any, bundle: Bundle, weights: dict[str, np.ndarray]
) -> None:
    write_bundle(
        tmp_path,
        {name: array for name, array in weights.items() if name != "head/bias:0"},
        architecture=bundle.architecture,
        normalisation=bundle.normalisation,
        labels=bundle.labels,
        training={},
    )
    with pytest.raises(WeightsError, match="'head/bias:0'"):
        Segmenter.load(tmp_path)
