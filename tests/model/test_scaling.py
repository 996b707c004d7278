"""The search for the scale, with a network that is perfect for nuclei of the sizes it knows, and blind for others."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from nucseg_ray.imaging.diameters import nuclei_of
from nucseg_ray.imaging.labels import CentreLabels
from nucseg_ray.imaging.metrics import match
from nucseg_ray.imaging.normalise import FullRange
from nucseg_ray.model.scaling import ScaledNetwork
from nucseg_ray.model.tiled_network import TiledNetwork, Tiling

MODEL_PX = 30.0
VARIANT = CentreLabels()


class Perfect:
    """Gives the maps of what is brighter than half, as far as it is of a size that it can see, in its own pixels."""

    def __init__(self, least_px: float = 7.0, most_px: float = 110.0) -> None:
        self.sees = least_px, most_px
        self.calls: list[tuple[int, ...]] = []

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.calls.append(images.shape)
        return np.stack([self._maps(image[..., 0]) for image in images])

    def _maps(self, image: np.ndarray) -> np.ndarray:
        _, labels = cv2.connectedComponents((image > 0.5).astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)
        diameters = nuclei_of(labels)[:, 2]
        seen = (diameters >= self.sees[0]) & (diameters <= self.sees[1])
        return VARIANT.targets(np.where(seen[labels], labels, 0)).astype(np.float32) / 255


class Specks:
    """Sees specks of so many of its own pixels wherever it looks, as in noise."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.calls: list[tuple[int, ...]] = []

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.calls.append(images.shape)
        y, x = np.mgrid[: images.shape[1], : images.shape[2]]
        pitch = 2 * self.side
        is_speck = (y % pitch < self.side) & (x % pitch < self.side)
        speck = is_speck.astype(np.int32) * (1 + (y // pitch) * 1000 + x // pitch)
        return np.repeat(VARIANT.targets(speck)[np.newaxis].astype(np.float32) / 255, images.shape[0], axis=0)


def scaled(network: Perfect | Specks, *, model_px: float = MODEL_PX) -> ScaledNetwork:
    tiled = TiledNetwork(network, FullRange(), tiling=Tiling(tile_px=1024, overlap_px=128))
    return ScaledNetwork(tiled, VARIANT, model_diameter_px=model_px)


def drawn(diameter: float, *, side: int = 400, count: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw ellipses of about this diameter, apart from each other and from the sides; give image and labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    taken = np.zeros((side, side), np.uint8)
    number = 0
    for _ in range(4000):
        centre = rng.uniform(0.7 * diameter + 2, side - 0.7 * diameter - 3, 2).astype(int).tolist()
        axes = (round(diameter * rng.uniform(0.5, 0.58)), round(diameter * rng.uniform(0.42, 0.5)))
        turn = float(rng.uniform(0, 180))
        wider = cv2.ellipse(np.zeros_like(taken), centre, (axes[0] + 3, axes[1] + 3), turn, 0, 360, 1, -1)
        if number == count:
            break
        if (taken & wider).any():
            continue
        number += 1
        taken |= wider
        cv2.ellipse(labels, centre, axes, turn, 0, 360, number, -1)
    return np.where(labels > 0, 230, 20).astype(np.uint8), labels


def enlarged(array: np.ndarray, times: float, *, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    side = round(array.shape[0] * times)
    return cv2.resize(array, (side, side), interpolation=interpolation)


@pytest.mark.parametrize("diameter", [10, 14, 18, 24, 40, 60, 90])
def test_labels_are_right_at_any_size(diameter: int) -> None:
    image, truth = drawn(diameter, side=max(160, 6 * diameter), count=12)
    network = Perfect()
    ((found),) = scaled(network).maps_of([image], [None])
    assert found.maps.shape == (*image.shape, 3)
    assert found.diameter_px == pytest.approx(diameter, rel=0.12)
    assert 0.9 * 20 <= diameter * found.scale <= 1.1 * 45
    matches = match(truth, VARIANT.label(found.maps, scale=found.scale))
    assert (matches.tp[5], matches.fp[5], matches.fn[5]) == (truth.max(), 0, 0)
    assert len(network.calls) == (1 if found.scale == 1 else 2)


def test_the_least_area_of_a_label_does_not_hide_small_nuclei_from_the_search() -> None:
    image, truth = drawn(10, side=160)
    for least_px in (20, 150):  # a disc of 10 px has 79
        tiled = TiledNetwork(Perfect(), FullRange(), tiling=Tiling())
        variant = CentreLabels(min_area_px=least_px)
        (found,) = ScaledNetwork(tiled, variant, model_diameter_px=MODEL_PX).maps_of([image], [None])
        assert found.diameter_px == pytest.approx(10, rel=0.12)
        assert variant.label(found.maps, scale=found.scale).max() == truth.max()


@pytest.mark.parametrize("times", [2, 3, 5])
def test_the_same_image_enlarged_gives_the_same_nuclei(times: int) -> None:
    """Large ones are beyond what the network sees: only some clipped ones give a first, wrong estimate."""
    image, truth = drawn(24, side=240)
    large = enlarged(image, times)
    ((found),) = scaled(Perfect(most_px=140)).maps_of([large], [None])
    again = enlarged(truth.astype(np.float32), times, interpolation=cv2.INTER_NEAREST).astype(np.int32)
    matches = match(again, VARIANT.label(found.maps, scale=found.scale))
    assert (matches.tp[5], matches.fp[5], matches.fn[5]) == (truth.max(), 0, 0)
    assert found.diameter_px == pytest.approx(24 * times, rel=0.1)


def test_at_the_scale_that_is_asked_for_one_pass_is_all() -> None:
    image, _ = drawn(30)
    network = Perfect()
    ((found),) = scaled(network).maps_of([image], [None])
    assert len(network.calls) == 1 and found.scale == 1
    ((told),) = scaled(Perfect()).maps_of([image], [30.0])
    assert (told.scale, told.diameter_px) == (1.0, 30.0)
    np.testing.assert_array_equal(found.maps, told.maps)


def test_a_diameter_that_is_given_is_taken() -> None:
    image, _ = drawn(30)
    network = Perfect()
    ((found),) = scaled(network).maps_of([image], [60.0])
    assert (found.scale, found.diameter_px) == (0.5, 60.0)
    assert network.calls == [(1, 256, 256, 3)]  # 200 px, in steps of 64


def test_without_nuclei_the_scale_is_1_and_one_pass_is_all() -> None:
    network = Perfect()
    ((found),) = scaled(network).maps_of([np.full((200, 200), 20, np.uint8)], [None])
    assert (found.scale, found.diameter_px, len(network.calls)) == (1.0, None, 1)


def test_a_first_estimate_far_off_is_corrected() -> None:
    """At first the network sees fragments alone; from each pass it learns that it must look from further away."""
    image = np.full((1000, 1000), 20, np.uint8)
    for radius, centres in {80: (250, 750), 20: (30, 970)}.items():
        for centre in itertools.product(centres, centres):
            cv2.circle(image, centre, radius, 230, -1)
    cv2.circle(image, (500, 500), 45, 230, -1)
    network = Perfect(most_px=100)
    ((found),) = scaled(network).maps_of([image], [None])
    assert found.diameter_px == pytest.approx(160, rel=0.05)
    assert len(network.calls) == 3  # at 1 for 90 px; at a half; and where the four large ones belong


def test_what_vanishes_when_looked_at_closely_was_no_nucleus() -> None:
    image, _ = drawn(9, count=30)
    assert scaled(Perfect(least_px=5)).diameters_of([image])[0] == pytest.approx(9, rel=0.15)
    # Blind to them once they are enlarged.
    ((found),) = scaled(Perfect(least_px=5, most_px=14)).maps_of([image], [None])
    assert (found.scale, found.diameter_px) == (1.0, None)


@pytest.mark.parametrize(("model_px", "calls", "scale"), [(90, 2, 4.0), (9, 4, 0.125)])
def test_noise_ends_the_search(model_px: float, calls: int, scale: float) -> None:
    """Small specks ask for more than is allowed; large ones at each pass for less than half of the pass before."""
    network = Specks(20)
    image = np.zeros((1000, 1000) if model_px < 20 else (250, 250), np.uint8)
    ((found),) = scaled(network, model_px=model_px).maps_of([image], [None])
    assert (len(network.calls), found.scale, found.maps.shape[:2]) == (calls, scale, image.shape)


def test_many_together_are_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [drawn(diameter, side=300, count=8, seed=diameter)[0] for diameter in (9, 16, 30, 60, 30)]
    images.append(np.zeros((100, 70, 3), np.uint8))
    diameters = [None, 20.0, None, None, 90.0, None]
    alone = [scaled(Perfect()).maps_of([image], [given])[0] for image, given in zip(images, diameters, strict=True)]

    def assert_same() -> None:
        together = scaled(Perfect()).maps_of(images, diameters)
        for one, other in zip(together, alone, strict=True):
            assert (one.scale, one.diameter_px) == (other.scale, other.diameter_px)
            np.testing.assert_array_equal(one.maps, other.maps)

    assert_same()
    monkeypatch.setattr("nucseg_ray.model.tiled_network.PIXELS_HELD", 150_000)
    assert_same()
    assert scaled(Perfect()).maps_of([], []) == []


def test_few_pixels_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen enlarged images together would take gigabytes of maps."""
    monkeypatch.setattr("nucseg_ray.model.tiled_network.PIXELS_HELD", 200_000)
    network = Perfect()
    images = [drawn(30, side=200, count=3, seed=seed)[0] for seed in range(6)]
    scaled(network).maps_of(images, [30.0] * 6)
    assert [call[0] for call in network.calls] == [5, 1]
