"""From pixels to maps and labels."""

from __future__ import annotations

import doctest
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from nucseg_ray.errors import InputError, MissingInputError, UsageError, WeightsError
from nucseg_ray.imaging.synthetic import SiteLook, render_site
from nucseg_ray.imaging.tiling import plan_tiles
from nucseg_ray.model.bundle import FLOAT32, REFERENCE, Bundle, record_metrics, write_bundle
from nucseg_ray.model.segmenter import Segmenter
from nucseg_ray.model.tiled_network import Tiling


class Brightness:
    """A stand-in for the network: maps are the first channel, so what is right is known."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.shapes.append(images.shape)
        assert images.dtype == np.float32
        return np.repeat(images[..., :1], 3, axis=-1)


@pytest.fixture(scope="module")
def segmenter(unet: Any, bundle: Bundle) -> Segmenter:
    """Give one that need not look for the scale: with TensorFlow each new shape of tile takes a second."""
    tiling = Tiling(tile_px=128, overlap_px=32)
    return Segmenter.load(bundle.folder, tiling=tiling, nucleus_diameter_px=bundle.diameter_px)


def site(*shape: int, seed: int = 0) -> np.ndarray:
    look = SiteLook(shape_px=(shape[0], shape[1]), nuclei=7, radius_px=(7.0, 12.0))
    return render_site(look, np.random.default_rng(seed))[0]


def at_scale_1(bundle: Bundle, network: Any) -> Segmenter:
    """Give a segmenter that is told that nuclei are as its network knows them."""
    tiling = Tiling(tile_px=96, overlap_px=20)
    return Segmenter(bundle, network, tiling=tiling, nucleus_diameter_px=bundle.diameter_px)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 31), (32, 64), (127, 129, 3), (200, 131)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_size_keeps_its_shape(segmenter: Segmenter, shape: tuple[int, ...], dtype: type) -> None:
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    maps = segmenter.maps(image)
    assert maps.shape == (*shape[:2], 3) and maps.dtype == np.uint8
    labels = segmenter.segment(image)
    assert labels.shape == shape[:2] and labels.dtype == np.int32


def test_the_same_image_gives_the_same_bits(segmenter: Segmenter, bundle: Bundle) -> None:
    image = site(200, 170)
    maps = segmenter.maps(image)
    segmenter.maps(site(90, 70, seed=1))  # what came between leaves no trace
    np.testing.assert_array_equal(segmenter.maps(image), maps)
    (found,) = segmenter.maps_of([image])
    np.testing.assert_array_equal(found.maps, maps)
    np.testing.assert_array_equal(bundle.labels.label(maps, scale=found.scale), segmenter.segment(image))
    tiling = Tiling(tile_px=128, overlap_px=32)
    again = Segmenter.load(bundle.folder, tiling=tiling, nucleus_diameter_px=bundle.diameter_px)
    np.testing.assert_array_equal(again.maps(image), maps)


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (70, 45), (300, 201), (300, 201, 3)])
def test_padding_and_tiling_add_nothing_of_their_own(bundle: Bundle, shape: tuple[int, ...]) -> None:
    network = Brightness()
    image = np.random.default_rng(2).integers(0, 60_000, shape, np.uint16)
    maps = at_scale_1(bundle, network).maps(image)
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
    segmenter = at_scale_1(bundle, network)
    together = segmenter.maps_of(images)
    calls = len(network.shapes)
    assert calls == 2  # one of each shape of tile: 64 x 64, and 128 x 128
    for image, found in zip(images, together, strict=True):
        np.testing.assert_array_equal(segmenter.maps(image), found.maps)
    monkeypatch.setattr("nucseg_ray.model.tiled_network.PIXELS_TOGETHER", 64 * 64)
    network.shapes.clear()
    for found, alone in zip(segmenter.maps_of(images), together, strict=True):
        np.testing.assert_array_equal(found.maps, alone.maps)
    assert {shape[0] for shape in network.shapes} == {1}
    assert segmenter.maps_of([]) == []


def test_tiles_join_to_the_whole(bundle: Bundle, unet: Any) -> None:
    """A network sees further than any overlap, so tiles differ a little: at most by 2 % of full range here."""
    image = site(448, 384)
    whole, tiled = (
        Segmenter.load(bundle.folder, tiling=Tiling(*tiling), nucleus_diameter_px=bundle.diameter_px)
        .maps(image)
        .astype(int)
        for tiling in ((448, 0), (256, 64))
    )
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
        diameter_px=bundle.diameter_px,
        labels=bundle.labels,
        training={},
    )
    with pytest.raises(WeightsError, match="'head/bias:0'"):
        Segmenter.load(tmp_path)


def stream_of_images(seed: int = 0) -> Iterator[np.ndarray]:
    """Yield images without end, of four shapes and both types in turn."""
    for number in count():
        shape = [(64, 64), (300, 90), (60, 64, 3), (130, 130)][number % 4]
        look = SiteLook(shape_px=(shape[0], shape[1]), nuclei=2, radius_px=(7.0, 10.0))
        image = render_site(look, np.random.default_rng((seed, number)))[0]
        if number % 3:
            image = (image * (255 / image.max())).astype(np.uint8)
        yield np.dstack([image, image // 2, image // 3]) if len(shape) == 3 else image


@pytest.fixture
def brightness(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Segmenter:
    """A segmenter with a network that costs nothing, and few pixels together."""
    monkeypatch.setattr("nucseg_ray.model.segmenter.PIXELS_TOGETHER", 40_000)
    return Segmenter(bundle, Brightness(), tiling=Tiling(tile_px=96, overlap_px=20))


def test_many_are_as_each_alone_and_in_order(brightness: Segmenter) -> None:
    images = list(islice(stream_of_images(), 23))
    found = list(brightness.segment_many(images))
    assert len({labels.tobytes() for labels in found}) == 23 and all(labels.any() for labels in found)
    for image, labels in zip(images, found, strict=True):
        np.testing.assert_array_equal(labels, brightness.segment(image), strict=True)
    assert list(brightness.segment_many([])) == []
    stack = np.random.default_rng(3).integers(0, 255, (5, 70, 60), np.uint8)
    for plane, labels in zip(stack, brightness.segment_many(stack), strict=True):
        np.testing.assert_array_equal(labels, brightness.segment(plane))


def test_a_stream_without_end_is_taken_a_few_at_a_time(brightness: Segmenter) -> None:
    taken = 0

    def watched() -> Iterator[np.ndarray]:
        nonlocal taken
        for image in stream_of_images():
            taken += 1
            yield image

    threads = threading.active_count()
    stream = brightness.segment_many(watched())
    assert taken == 0
    # An image of four has 16,280 pixels on average: three or four make 40,000, and two such lots are under way.
    ahead = []
    for number, _ in enumerate(islice(stream, 60), start=1):
        ahead.append(taken - number)
    assert max(ahead) <= 2 * 5
    stream.close()  # as a loop that is broken off
    assert threading.active_count() == threads
    assert taken <= 60 + 2 * 5


def test_what_comes_before_an_error_is_given(brightness: Segmenter) -> None:
    images: list[Any] = [*islice(stream_of_images(), 9), np.zeros((4, 4), np.float64), np.zeros((9, 9), np.uint8)]
    stream = brightness.segment_many(images)
    for image in images[:9]:
        np.testing.assert_array_equal(next(stream), brightness.segment(image))
    with pytest.raises(InputError, match="^image 9: expected pixels of type uint8 or uint16, found float64"):
        next(stream)

    def breaks() -> Iterator[np.ndarray]:
        yield images[0]
        raise OSError("the camera is gone")

    stream = brightness.segment_many(breaks())
    np.testing.assert_array_equal(next(stream), brightness.segment(images[0]))
    with pytest.raises(OSError, match="the camera is gone"):
        next(stream)


def test_odd_arrays_are_refused_and_views_are_not(brightness: Segmenter) -> None:
    image = next(stream_of_images())
    with pytest.raises(InputError, match="^image: expected pixels of type uint8 or uint16, found int64"):
        brightness.segment(image.astype(np.int64))
    with pytest.raises(InputError, match="^image 1: expected at least one pixel"):
        brightness.maps_of([image, image[:0]])
    with pytest.raises(InputError, match=r"one array of shape \(60, 64, 3\); pass one image to segment"):
        next(brightness.segment_many(np.zeros((60, 64, 3), np.uint8)))
    expected = brightness.segment(image)
    padded = np.zeros((128, 200), image.dtype)
    padded[::2, 10:138:2] = image
    rgba = np.dstack([image, image, image, np.full_like(image, np.iinfo(image.dtype).max)])
    for same in (padded[::2, 10:138:2], image.astype(image.dtype.newbyteorder(">")), np.asfortranarray(image), rgba):
        np.testing.assert_array_equal(brightness.segment(same), expected)


@pytest.mark.parametrize("form", [pytest.param(REFERENCE, marks=pytest.mark.slow), FLOAT32])
def test_threads_do_not_disturb_each_other(exported: Bundle, form: str) -> None:
    tiling = Tiling(tile_px=64, overlap_px=16)
    segmenter = Segmenter.load(exported.folder, form=form, tiling=tiling, nucleus_diameter_px=15.0)
    images = [site(100 + 20 * (number % 4), 120, seed=number) for number in range(16)]
    alone = [segmenter.maps(image) for image in images]
    assert len({maps.tobytes() for maps in alone}) == 16
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for maps, expected in zip(pool.map(segmenter.maps, images), alone, strict=True):
                np.testing.assert_array_equal(maps, expected)


def test_the_runtime_can_be_chosen(exported: Bundle, tmp_path: Path) -> None:
    shutil.copytree(exported.folder, tmp_path / "model")
    record_metrics(tmp_path / "model", {}, default_form=REFERENCE)
    image = site(110, 120)
    by_runtime = {
        name: Segmenter.load(str(tmp_path / "model"), runtime=name, nucleus_diameter_px=30).maps(image)
        for name in ("auto", "tensorflow", "openvino")
    }
    np.testing.assert_array_equal(by_runtime["auto"], by_runtime["tensorflow"])
    assert (by_runtime["openvino"] != by_runtime["tensorflow"]).any()  # close, but to be told apart
    with pytest.raises(UsageError, match="runtime: expected one of auto, openvino, tensorflow, found 'onnx'"):
        Segmenter.load(tmp_path / "model", runtime="onnx")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="threads: expected at least 1, found 0"):
        Segmenter.load(tmp_path / "model", threads=0)
    for diameter in (0, -3.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="nucleus_diameter_px: expected pixels above 0, or None, found"):
            Segmenter.load(tmp_path / "model", nucleus_diameter_px=diameter)


def test_a_uri_is_refused_with_a_remedy_that_works(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.filesystem("memory").put(f"{bundle.folder}/", "memory://models/one/", recursive=True)
    with pytest.raises(
        UsageError, match="expected a model bundle in a local folder, found a URI; copy it first"
    ) as told:
        Segmenter.load("memory://models/one")
    monkeypatch.chdir(tmp_path)
    eval(str(told.value).partition("copy it first: ")[2].partition(", then load")[0], {"fsspec": fsspec})
    assert Segmenter.load("model").bundle.fingerprint == bundle.fingerprint


LOADED = """
import json, sys
import numpy as np
from nucseg_ray.model.segmenter import Segmenter
segmenter = Segmenter.load(sys.argv[1], runtime=sys.argv[2])
assert segmenter.segment(np.zeros((40, 50), np.uint8)).shape == (40, 50)
assert len(list(segmenter.segment_many([np.zeros((40, 50), np.uint8)] * 3))) == 3
print(json.dumps([name for name in ("ray", "tensorflow", "openvino") if name in sys.modules]))
"""


@pytest.mark.parametrize(("runtime", "loaded"), [("openvino", ["openvino"]), ("tensorflow", ["tensorflow"])])
def test_ray_is_never_loaded_and_a_runtime_only_where_it_runs(
    exported: Bundle, tmp_path: Path, runtime: str, loaded: list[str]
) -> None:
    command = [sys.executable, "-c", LOADED, str(exported.folder), runtime]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert json.loads(run.stdout) == loaded


def test_the_example_in_the_docstring(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(bundle.folder, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    tests = doctest.DocTestFinder(recurse=False).find(Segmenter, "Segmenter", globs={"image": site(110, 120)})
    results = [doctest.DocTestRunner().run(test) for test in tests]
    assert [(result.failed, result.attempted) for result in results] == [(0, 4)]
