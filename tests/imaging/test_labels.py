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
from nucseg_ray.imaging.diameters import nuclei_of
from nucseg_ray.imaging.labels import CentreLabels, ForegroundLabels, labels_from_dict
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


def maps_of(nucleus: np.ndarray) -> np.ndarray:
    return nucleus[:, :, np.newaxis].astype(np.uint8)


@pytest.mark.parametrize("radius", [4, 8, 14, 25])
def test_touching_discs_come_back(radius: int) -> None:
    truth = touching_grid(radius)
    variant = CentreLabels()
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
    variant = CentreLabels()
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
    variant = CentreLabels()
    targets = variant.targets(truth)
    # A standard deviation of 0.2 on the foreground, of 2 pixels on the offsets.
    noise = (rng.normal(0, [51, 4, 4], targets.shape) for _ in range(8))
    found = pool(match(truth, variant.label(np.clip(targets + each, 0, 255).astype(np.uint8))) for each in noise)
    assert found.ap[0] > 0.97


def test_nuclei_that_the_network_doubts_are_dropped() -> None:
    truth = touching_grid(9)
    maps = CentreLabels().targets(truth)
    doubtful = np.isin(truth, [3, 4, 9])
    maps[doubtful, 0] = round(0.77 * 255)
    sure = CentreLabels().label(CentreLabels().targets(truth))
    np.testing.assert_array_equal(CentreLabels(least_certainty=0.75).label(maps), sure)
    kept = CentreLabels(least_certainty=0.8).label(maps)
    np.testing.assert_array_equal(kept > 0, (truth > 0) & ~doubtful)
    assert kept.max() == truth.max() - 3  # numbered without gaps
    # It is the mean that counts: a nucleus with an unsure rim stays.
    maps[doubtful & (np.random.default_rng(0).random(truth.shape) < 0.5), 0] = 255
    assert CentreLabels(least_certainty=0.8).label(maps).max() == truth.max()


def test_offsets_lead_to_the_centroid_and_stay_in_reach() -> None:
    labels = np.zeros((40, 300), np.int32)
    labels[4:9, 5:15] = 3  # centroid (6, 9.5)
    labels[20:31, 20:290] = 7  # centroid (25, 154.5): farther than 63.5 px from its ends
    maps = CentreLabels().targets(labels)
    assert maps.dtype == np.uint8
    steps = maps[:, :, 1:].astype(int) - 128
    np.testing.assert_array_equal(steps[4:9, 7, 0], [4, 2, 0, -2, -4])
    np.testing.assert_array_equal(steps[5, 5:15, 1], np.arange(9, -11, -2))
    assert (steps[25, 20, 1], steps[25, 289, 1], steps[25, 154, 1]) == (127, -128, 1)
    assert not steps[labels == 0].any()
    twice = CentreLabels(offset_step_px=1.0).targets(labels)[:, :, 1:].astype(int) - 128
    np.testing.assert_array_equal(twice[25, 60:250, 1], np.rint(154.5 - np.arange(60, 250)))


def test_a_nucleus_cut_by_the_border_points_to_the_centre_it_is_told() -> None:
    whole = np.zeros((60, 60), np.int32)
    disc(whole, 1, (30, 12), 10)
    disc(whole, 2, (30, 40), 10)
    cut = whole[:, 10:]
    centres = nuclei_of(whole)[:, :2] - np.float32([0, 10])
    variant = CentreLabels()
    np.testing.assert_array_equal(variant.targets(cut, centres), variant.targets(whole)[:, 10:])
    assert (variant.targets(cut) != variant.targets(whole)[:, 10:]).any()


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.0])
def test_maps_of_an_image_that_the_network_saw_at_another_size(scale: float) -> None:
    truth = touching_grid(round(12 / scale), 4)
    variant = CentreLabels()
    seen = cv2.resize(truth.astype(np.uint8), None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    maps = cv2.resize(variant.targets(seen.astype(np.int32)), truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
    assert match(truth, variant.label(maps, scale=scale)).tp[6] == 16
    # 12 pixels across there: the least area, too, is counted in the network's pixels.
    assert not CentreLabels(min_area_px=600).label(maps, scale=scale).any()


def test_targets_of_one_pixel_and_of_numbers_with_gaps() -> None:
    labels = np.zeros((6, 6), np.int32)
    labels[0, 0], labels[3:6, 3:6] = 2, 9
    maps = CentreLabels().targets(labels)
    assert maps.shape == (6, 6, 3)
    np.testing.assert_array_equal(maps[:, :, 0], np.where(labels > 0, 255, 0))
    assert [maps[0, 0, 1:].tolist(), maps[4, 4, 1:].tolist(), maps[3, 4, 1:].tolist()] == [
        [128, 128],
        [128, 128],
        [130, 128],
    ]


def test_nothing_in_gives_nothing_out() -> None:
    empty = np.zeros((7, 5), np.int32)
    for variant in (ForegroundLabels(), CentreLabels()):
        maps = variant.targets(empty)
        assert not maps[:, :, 0].any()
        assert maps.shape == (7, 5, len(variant.map_names))
        found = variant.label(maps)
        assert found.dtype == np.int32
        assert found.shape == (7, 5)
        assert not found.any()


def test_everything_is_one_nucleus() -> None:
    found = ForegroundLabels().label(np.full((9, 11, 1), 255, np.uint8))
    np.testing.assert_array_equal(found, np.ones((9, 11)))


def test_votes_into_the_void_leave_components_whole() -> None:
    maps = np.full((40, 60, 3), 128, np.uint8)
    maps[:, :, 0] = 0
    maps[5:20, 5:20, 0] = maps[5:20, 30:45, 0] = 255
    rng = np.random.default_rng(3)
    maps[:, :, 1:] = rng.integers(0, 256, (40, 60, 2))  # no two pixels agree
    found = CentreLabels(least_votes=0.9).label(maps)
    assert found.max() == 2
    np.testing.assert_array_equal(found > 0, maps[:, :, 0] > 0)


def test_a_piece_cut_off_goes_to_the_nucleus_it_touches_and_a_lone_one_is_its_own() -> None:
    truth = np.zeros((50, 90), np.int32)
    truth[5:25, 5:25] = 1
    truth[5:25, 25:45] = 2
    maps = CentreLabels().targets(truth)
    # Four pixels of nucleus 2 that vote for nucleus 1, and a component far off that votes for it, too.
    maps[10:12, 40:42, 2] = 128 - 2 * 26
    maps[30:37, 60:67, 0] = 255
    maps[30:37, 60:67, 1:] = 128 - 2 * np.array([19, 49])
    found = CentreLabels().label(maps)
    assert found.max() == 3
    np.testing.assert_array_equal(found[5:25, 5:45], truth[5:25, 5:45])
    assert (found[30:37, 60:67] == 3).all()


def test_small_nuclei_beside_large_ones_come_back() -> None:
    truth = np.zeros((120, 160), np.int32)
    disc(truth, 1, (60, 60), 20)
    for number, (y, x) in enumerate([(32, 60), (60, 87), (74, 87), (74, 101), (88, 60)], start=2):
        disc(truth, number, (y, x), 7)  # a third of its diameter, all touching
    variant = CentreLabels()
    assert match(truth, variant.label(variant.targets(truth))).tp[6] == 6


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
    variant = CentreLabels()
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
    maps = np.stack([cv2.GaussianBlur(rng.random((48, 60)), (0, 0), blur) for _ in range(3)], axis=-1)
    maps = ((maps - maps.min()) / np.ptp(maps) * 255).astype(np.uint8)
    found = CentreLabels(min_area_px=10).label(maps)
    numbers, first, areas = np.unique(found[found > 0], return_index=True, return_counts=True)
    np.testing.assert_array_equal(numbers, np.arange(1, numbers.size + 1))
    assert np.all(np.diff(first) > 0)
    assert np.all(areas >= 10)
    assert all(ndimage.label(found == number)[1] == 1 for number in numbers)
    # Only filled holes may lie outside the thresholded foreground.
    assert np.all(ndimage.binary_fill_holes(maps[:, :, 0] > 127.5) | (found == 0))


@pytest.mark.parametrize("variant", [ForegroundLabels(0.4, 7), CentreLabels(0.6, 0.3, 0.7, 0, 1.0)])
def test_settings_survive_json(variant: ForegroundLabels | CentreLabels) -> None:
    assert labels_from_dict(json.loads(json.dumps(variant.to_dict()))) == variant


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"kind": "distances"}, "must be one of foreground, centres; found 'distances'"),
        ({}, "found None"),
        ({"kind": "centres", "least_vote": 0.5}, "did you mean 'least_votes'"),
        ({"kind": "foreground", "least_votes": 0.5}, "'least_votes' is not a setting"),
        ({"kind": "centres", "least_votes": 1.5}, "least_votes must lie between 0 and 1; found 1.5"),
        ({"kind": "centres", "offset_step_px": 0}, "offset_step_px must be above 0; found 0"),
        ({"kind": "foreground", "min_area_px": -1}, "min_area_px must be 0 or more; found -1"),
    ],
)
def test_wrong_settings_are_refused(written: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        labels_from_dict(written)


@pytest.mark.parametrize("maps", [np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8)])
def test_wrong_maps_are_refused(maps: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"need maps \(H, W, 3\) uint8 \(nucleus, centre_dy, centre_dx\)"):
        CentreLabels().label(maps)


def test_targets_of_the_bowl_give_its_nuclei_back(realdata: Path) -> None:
    variant = CentreLabels()
    found = []
    for folder in sorted((realdata / "dsb2018" / "stage1_train").iterdir())[::40]:
        masks = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0 for path in sorted((folder / "masks").glob("*.png"))]
        truth = np.zeros(masks[0].shape, np.int32)
        for number, mask in enumerate(masks, start=1):
            truth[mask] = number
        found.append(match(truth, variant.label(variant.targets(truth))))
    assert pool(found).ap[0] > 0.97


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("variant", [ForegroundLabels(), CentreLabels()])
def test_maps_of_a_mirrored_image_are_the_mirrored_maps(variant: ForegroundLabels | CentreLabels, axis: int) -> None:
    truth = touching_grid(6, 3)
    truth[5:9, 2:5] = 0  # so that it is not its own mirror image
    maps, expected = (variant.targets(labels) / np.float32(255) for labels in (truth, np.flip(truth, axis - 1)))
    mirrored = variant.mirrored(maps[np.newaxis], axis=axis)[0]
    np.testing.assert_allclose(mirrored * 255, expected * 255, atol=1)  # centroids are rounded towards even steps
    np.testing.assert_allclose(variant.mirrored(mirrored[np.newaxis], axis=axis)[0], maps, atol=1e-6)


@pytest.mark.parametrize("variant", [ForegroundLabels(), CentreLabels()])
def test_maps_of_an_image_whose_rows_and_columns_are_exchanged(variant: ForegroundLabels | CentreLabels) -> None:
    truth = touching_grid(6, 3)
    truth[5:9, 2:5] = 0
    maps, expected = (variant.targets(labels) / np.float32(255) for labels in (truth, truth.T))
    exchanged = variant.exchanged(maps[np.newaxis])
    np.testing.assert_array_equal(exchanged[0], expected)
    np.testing.assert_array_equal(variant.exchanged(exchanged)[0], maps)
