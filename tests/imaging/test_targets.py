"""What a network is to answer for a crop, and how much each pixel counts."""

from __future__ import annotations

import numpy as np

from nucseg_ray.imaging.augment import Crop, Subject, centre_crop
from nucseg_ray.imaging.diameters import nuclei_of
from nucseg_ray.imaging.labels import CentreLabels, ForegroundLabels
from nucseg_ray.imaging.targets import training_targets


def crop_of(labels: np.ndarray, *, crop_px: int) -> Crop:
    image = np.zeros((*labels.shape, 3), np.uint8)
    subject = Subject(image, labels.astype(np.uint16), nuclei_of(labels), 20.0)
    return centre_crop(subject, crop_px=crop_px, diameter_px=20.0)


def test_maps_and_weights() -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[1:4, 1:4] = 1  # smaller than what has full weight
    labels[10:30, 10:30] = 5  # as large as a disc of 22.57 px
    targets = training_targets(crop_of(labels, crop_px=40), CentreLabels())
    assert (targets.shape, targets.dtype) == ((40, 40, 5), np.uint8)
    np.testing.assert_array_equal(targets[..., :3], CentreLabels().targets(labels))
    assert not targets[..., 3].any()
    assert (targets[labels == 1, 4] == 255).all() and (targets[labels == 0, 4] == 255).all()
    assert (targets[labels == 5, 4] == round(255 * 8 / (2 * np.sqrt(400 / np.pi)))).all()


def test_a_nucleus_that_is_cut_points_beyond_the_crop_and_weighs_as_the_whole() -> None:
    labels = np.zeros((64, 64), np.int32)
    labels[20:40, 0:30] = 1
    whole = training_targets(crop_of(labels, crop_px=64), CentreLabels())
    cut = training_targets(crop_of(labels, crop_px=32), CentreLabels())
    np.testing.assert_array_equal(cut, whole[16:48, 16:48])


def test_beyond_the_image_nothing_counts() -> None:
    labels = np.ones((8, 10), np.int32)
    targets = training_targets(crop_of(labels, crop_px=12), ForegroundLabels())
    assert targets.shape == (12, 12, 3)
    known = np.pad(np.ones((8, 10), bool), ((2, 2), (1, 1)))
    np.testing.assert_array_equal(targets[..., 2] > 0, known)
    np.testing.assert_array_equal(targets[..., 0], np.where(known, 255, 0))


def test_a_huge_nucleus_still_counts() -> None:
    labels = np.ones((3000, 3000), np.int32)
    targets = training_targets(crop_of(labels, crop_px=32), CentreLabels())
    assert (targets[..., 4] == 1).all()


def test_where_nuclei_meet() -> None:
    labels = np.zeros((40, 60), np.int32)
    labels[5:20, 5:20] = 2
    labels[5:20, 22:40] = 7  # a gap of two pixels
    labels[30:38, 5:20] = 9  # far from both
    contacts = training_targets(crop_of(labels, crop_px=64), ForegroundLabels())[12:52, 2:62, 1]
    expected = np.zeros_like(labels)
    # Up to three pixels from columns 19 and 22, the last of the one and the first of the other; rows three beyond both.
    expected[2:23, 19:23] = 255
    np.testing.assert_array_equal(contacts, expected)
