"""A network that looks at an image turned and mirrored."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nucseg_ray.imaging.labels import CentreLabels, ForegroundLabels
from nucseg_ray.model.turned import TurnedPredictor


class LeansRight:
    """Answers with the image itself, shifted by a pixel to the right: what a network of uneven kernels may do."""

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the first channel for the nucleus, and let every pixel point to the lower left."""
        maps = np.full((*images.shape[:3], 3), [0, 192 / 255, 64 / 255], np.float32)
        maps[..., 0] = np.roll(images[..., 0], 1, axis=2)
        return maps


def test_what_leans_to_one_side_is_evened_out() -> None:
    images = np.zeros((2, 32, 64, 3), np.float32)
    images[:, 10:20, 30:41] = 1
    found = TurnedPredictor(LeansRight(), CentreLabels()).predict(images)
    # In two of eight views right is still right, in two each it is left, down and up.
    expected = np.mean([np.roll(images[0, ..., 0], by, axis) for axis in (0, 1) for by in (-1, 1)], axis=0)
    np.testing.assert_allclose(found[0, ..., 0], expected, atol=1e-6)
    # Pointing to every side in as many of the views, nothing of it is left.
    np.testing.assert_allclose(found[..., 1:], 128 / 255, atol=1e-6)
    assert found.dtype == np.float32


def test_offsets_as_long_as_they_get_stay_within_the_maps() -> None:
    maps = np.zeros((1, 2, 2, 3), np.float32)  # 64 pixels up and to the left, the other way at most 63.5
    turned = CentreLabels().mirrored(CentreLabels().mirrored(maps, axis=1), axis=2)
    np.testing.assert_array_equal(turned[..., 1:], 1)


def test_an_even_network_stays_what_it_is() -> None:
    class Even:
        def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            return images[..., :1] ** 2

    images = np.random.default_rng(1).random((1, 32, 32, 3), np.float32)
    found = TurnedPredictor(Even(), ForegroundLabels()).predict(images)
    assert found == pytest.approx(images[..., :1] ** 2, rel=1e-5)
