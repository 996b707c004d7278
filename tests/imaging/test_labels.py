"""Labels from maps, and maps from labels."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nucseg_ray.errors import UsageError
from nucseg_ray.imaging.labels import DistanceLabels, ForegroundLabels, labels_from_dict
from nucseg_ray.imaging.metrics import match, pool


def disc(labels: np.ndarray, number: int, centre: tuple[float, float], radius: float) -> None:
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
    labels[inside & (labels == 0)] = number


def touching_grid(radius: int, n: int = 5) -> np.ndarray:
    """Discs that each touch the neighbours at their sides."""
    pitch = 2 * radius
    labels = np.zeros((n * pitch + 3, n * pitch + 3), np.int32)
    for number, (row, column) in enumerate(np.ndindex(n, n), start=1):
        disc(labels, number, (row * pitch + radius + 1, column * pitch + radius + 1), radius)
    return labels


def maps_of(nucleus: np.ndarray, distance: np.ndarray | None = None) -> np.ndarray:
    planes = [nucleus] if distance is None else [nucleus, distance]
    return np.stack(planes, axis=-1).astype(np.uint8)


@pytest.mark.parametrize("radius", [4, 8, 14, 25])
def test_touching_discs_come_back(radius: int) -> None:
    truth = touching_grid(radius)
    variant = DistanceLabels()
    back = variant.label(variant.targets(truth))
    assert match(truth, back).tp[8] == 25  # above an IoU of 0.9
    assert back.max() == 25


@settings(max_examples=40, deadline=None)
@given(
    radii=st.lists(st.integers(6, 18), min_size=2, max_size=2),
    angle=st.floats(0, 2 * np.pi),
    overlap=st.integers(0, 2),
)
def test_a_touching_pair_comes_back_at_any_angle(radii: list[int], angle: float, overlap: int) -> None:
    truth = np.zeros((96, 96), np.int32)
    gap = sum(radii) - overlap
    first = (48 - np.sin(angle) * gap / 2, 48 - np.cos(angle) * gap / 2)
    second = (48 + np.sin(angle) * gap / 2, 48 + np.cos(angle) * gap / 2)
    disc(truth, 1, first, radii[0])
    disc(truth, 2, second, radii[1])
    variant = DistanceLabels()
    assert match(truth, variant.label(variant.targets(truth))).tp[8] == 2


def test_foreground_labels_join_what_touches() -> None:
    truth = touching_grid(8)
    variant = ForegroundLabels()
    assert variant.label(variant.targets(truth)).max() == 1
    apart = np.where(np.isin(truth, [1, 3, 11]), truth, 0)
    np.testing.assert_array_equal(variant.label(variant.targets(apart)) > 0, apart > 0)
    assert variant.label(variant.targets(apart)).max() == 3


def test_noise_on_the_maps_does_not_split_nuclei() -> None:
    rng = np.random.default_rng(7)
    truth = touching_grid(9)
    variant = DistanceLabels()
    noisy = [variant.targets(truth) + rng.normal(0, 0.2 * 255, (*truth.shape, 2)) for _ in range(8)]
    found = pool(match(truth, variant.label(np.clip(maps, 0, 255).astype(np.uint8))) for maps in noisy)
    assert found.ap[0] > 0.97


@pytest.mark.parametrize("seed", range(12))
def test_distance_target_against_brute_force(seed: int) -> None:
    """Equal to the bit: what a library rounds differently from call to call would train another network."""
    rng = np.random.default_rng(seed)
    labels = (np.kron(rng.integers(0, 4, (4, 5)), np.ones((11, 11)))).astype(np.int32)  # touching, some at the border
    target = DistanceLabels().targets(labels)[:, :, 1]
    ringed = np.pad(labels, 1)
    for number in range(1, 4):
        outside = np.argwhere(ringed != number)
        own = np.argwhere(ringed == number)
        squared = ((own[:, np.newaxis] - outside) ** 2).sum(axis=2).min(axis=1)
        expected = np.ceil(np.sqrt(squared * 255**2 / squared.max()))
        np.testing.assert_array_equal(target[own[:, 0] - 1, own[:, 1] - 1], expected)
    assert not target[labels == 0].any()


def test_targets_of_one_pixel_and_of_numbers_with_gaps() -> None:
    labels = np.zeros((6, 6), np.int32)
    labels[0, 0], labels[3:6, 3:6] = 2, 9
    maps = DistanceLabels().targets(labels)
    assert maps.dtype == np.uint8
    assert maps.shape == (6, 6, 2)
    np.testing.assert_array_equal(maps[:, :, 0], np.where(labels > 0, 255, 0))
    assert [maps[0, 0, 1], maps[4, 4, 1], maps[3, 3, 1]] == [255, 255, 128]


def test_nothing_in_gives_nothing_out() -> None:
    empty = np.zeros((7, 5), np.int32)
    for variant in (ForegroundLabels(), DistanceLabels()):
        maps = variant.targets(empty)
        assert not maps.any()
        assert maps.shape == (7, 5, len(variant.map_names))
        found = variant.label(maps)
        assert found.dtype == np.int32
        assert found.shape == (7, 5)
        assert not found.any()


def test_everything_is_one_nucleus() -> None:
    found = ForegroundLabels().label(np.full((9, 11, 1), 255, np.uint8))
    np.testing.assert_array_equal(found, np.ones((9, 11)))


def test_a_component_without_a_seed_is_kept_whole() -> None:
    nucleus = np.zeros((30, 30))
    nucleus[5:20, 5:20] = 255
    found = DistanceLabels().label(maps_of(nucleus, np.zeros((30, 30))))
    np.testing.assert_array_equal(found, nucleus > 0)


def test_a_tiny_peak_is_no_seed() -> None:
    nucleus = np.zeros((30, 30))
    nucleus[3:27, 3:27] = 255
    distance = np.zeros((30, 30))
    distance[5:12, 5:12] = 255
    distance[20:22, 20:23] = 255  # smoothed, two of its pixels still reach the threshold
    np.testing.assert_array_equal(DistanceLabels().label(maps_of(nucleus, distance)), nucleus > 0)
    distance[18:24, 18:24] = 255
    assert DistanceLabels().label(maps_of(nucleus, distance)).max() == 2


def test_seeds_outside_the_foreground_do_not_count() -> None:
    distance = np.full((30, 30), 255)
    assert not DistanceLabels().label(maps_of(np.zeros((30, 30)), distance)).any()


def test_small_ones_go_and_the_rest_is_numbered_in_raster_order() -> None:
    nucleus = np.zeros((20, 40))
    nucleus[10:15, 0:4] = 255  # 20 px: stays, third
    nucleus[2:7, 30:38] = 255  # first
    nucleus[3:9, 5:12] = 255  # second
    nucleus[0:1, 0:19] = 255  # 19 px: goes
    found = ForegroundLabels(min_area_px=20).label(maps_of(nucleus))
    assert [found[3, 33], found[4, 6], found[12, 1], found[0, 3]] == [1, 2, 3, 0]
    assert found.max() == 3


def test_holes_are_filled_unless_several_nuclei_enclose_them() -> None:
    nucleus = np.zeros((40, 40))
    nucleus[5:25, 5:25] = 255
    nucleus[10:14, 10:14] = 0
    np.testing.assert_array_equal(ForegroundLabels().label(maps_of(nucleus)) > 0, ndimage.binary_fill_holes(nucleus))

    left, right = nucleus.copy(), nucleus.copy()
    left[:, 12:], right[:, :12] = 0, 0
    variant = DistanceLabels()
    truth = np.where(left > 0, 1, np.where(right > 0, 2, 0)).astype(np.int32)
    found = variant.label(variant.targets(truth))
    assert set(np.unique(found)) == {0, 1, 2}
    assert not found[10:14, 10:14].any()


def test_a_bay_at_the_image_border_is_no_hole() -> None:
    nucleus = np.full((12, 12), 255)
    nucleus[0:4, 5:8] = 0
    np.testing.assert_array_equal(ForegroundLabels().label(maps_of(nucleus)), nucleus > 0)


def test_corners_do_not_join() -> None:
    nucleus = np.zeros((12, 12))
    nucleus[0:6, 0:6] = nucleus[6:12, 6:12] = 255
    assert ForegroundLabels().label(maps_of(nucleus)).max() == 2


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), blur=st.floats(0.5, 4.0))
def test_any_maps_give_labels_that_hold_the_promises(seed: int, blur: float) -> None:
    rng = np.random.default_rng(seed)
    maps = np.stack([cv2.GaussianBlur(rng.random((48, 60)), (0, 0), blur) for _ in range(2)], axis=-1)
    maps = ((maps - maps.min()) / np.ptp(maps) * 255).astype(np.uint8)
    found = DistanceLabels(min_area_px=10).label(maps)
    numbers, first, areas = np.unique(found[found > 0], return_index=True, return_counts=True)
    np.testing.assert_array_equal(numbers, np.arange(1, numbers.size + 1))
    assert np.all(np.diff(first) > 0)
    assert np.all(areas >= 10)
    assert all(ndimage.label(found == number)[1] == 1 for number in numbers)
    # Only filled holes may lie outside the thresholded foreground.
    assert np.all(ndimage.binary_fill_holes(maps[:, :, 0] > 127.5) | (found == 0))


@pytest.mark.parametrize("variant", [ForegroundLabels(0.4, 7), DistanceLabels(0.6, 0.3, 0)])
def test_settings_survive_json(variant: ForegroundLabels | DistanceLabels) -> None:
    assert labels_from_dict(json.loads(json.dumps(variant.to_dict()))) == variant


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"kind": "distances"}, "must be one of foreground, distance; found 'distances'"),
        ({}, "found None"),
        ({"kind": "distance", "seed_treshold": 0.5}, "did you mean 'seed_threshold'"),
        ({"kind": "foreground", "seed_threshold": 0.5}, "'seed_threshold' is not a setting"),
        ({"kind": "distance", "seed_threshold": 1.5}, "seed_threshold must lie between 0 and 1; found 1.5"),
        ({"kind": "foreground", "min_area_px": -1}, "min_area_px must be 0 or more; found -1"),
    ],
)
def test_wrong_settings_are_refused(written: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        labels_from_dict(written)


@pytest.mark.parametrize("maps", [np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4, 2)), np.zeros((4, 4), np.uint8)])
def test_wrong_maps_are_refused(maps: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"need maps \(H, W, 2\) uint8 \(nucleus, distance\)"):
        DistanceLabels().label(maps)


def test_targets_of_the_bowl_give_its_nuclei_back(realdata: Path) -> None:
    variant = DistanceLabels()
    found = []
    for folder in sorted((realdata / "dsb2018" / "stage1_train").iterdir())[::40]:
        masks = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0 for path in sorted((folder / "masks").glob("*.png"))]
        truth = np.zeros(masks[0].shape, np.int32)
        for number, mask in enumerate(masks, start=1):
            truth[mask] = number
        found.append(match(truth, variant.label(variant.targets(truth))))
    assert pool(found).ap[0] > 0.97


def test_the_same_nucleus_has_the_same_target_wherever_it_lies_in_memory() -> None:
    # Rounded up, the least error is a step of one where the relative depth is a whole part of 255.
    for radius in np.arange(3, 43, 0.25):
        labels = np.zeros((90, 90), np.int32)
        disc(labels, 1, (45, 45), radius)
        squared = np.rint(ndimage.distance_transform_edt(labels) ** 2)
        expected = np.ceil(np.sqrt(squared * 255**2 / squared.max()))
        np.testing.assert_array_equal(DistanceLabels().targets(labels)[:, :, 1], expected)


def test_the_deepest_pixel_of_every_nucleus_is_full() -> None:
    # A rectangle's depth is half its shorter side: 255 / depth * depth rounds to above 255 for some of these.
    for short in range(1, 120):
        labels = np.zeros((short + 2, 2 * short + 3), np.int32)
        labels[1:-1, 1:-1] = 1
        distance = DistanceLabels().targets(labels)[:, :, 1]
        assert distance.max() == 255, short
        assert distance[1 + (short - 1) // 2, 1 + short] == 255, short
