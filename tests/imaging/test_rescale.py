"""At which size the network sees an image, and the way there and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucseg_ray.imaging.rescale import (
    LARGEST_SCALE,
    MOST_PIXELS,
    SMALLEST_SCALE,
    STEPS_PER_OCTAVE,
    affordable,
    brought_back,
    rescaled,
    scale_for,
)


@given(diameter=st.floats(0.5, 2000), model=st.floats(8, 100))
def test_nuclei_come_to_the_diameter_of_the_model(diameter: float, model: float) -> None:
    scale = scale_for(diameter, model)
    assert SMALLEST_SCALE <= scale <= LARGEST_SCALE
    if SMALLEST_SCALE < scale < LARGEST_SCALE:
        assert abs(math.log2(diameter * scale / model)) <= 0.5 / STEPS_PER_OCTAVE + 1e-9


def test_the_steps_are_whole_parts_of_an_octave() -> None:
    scales = {scale_for(diameter, 30) for diameter in np.geomspace(1, 1000, 5000)}
    steps = [math.log2(scale) * STEPS_PER_OCTAVE for scale in sorted(scales)]
    assert steps == pytest.approx(list(range(-3 * STEPS_PER_OCTAVE, 2 * STEPS_PER_OCTAVE + 1)))


def test_no_image_is_enlarged_beyond_what_fits() -> None:
    assert affordable(4.0, (640, 640)) == 4.0
    assert affordable(0.2, (90_000, 90_000)) == 0.2
    assert affordable(2.0, (90_000, 90_000)) == 1.0
    assert 2048**2 * affordable(4.0, (2048, 2048, 3)) ** 2 == pytest.approx(MOST_PIXELS)


@pytest.mark.parametrize("scale", [0.125, 0.7, 1.3, 4.0])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_there_and_back(scale: float, channels: tuple[int, ...]) -> None:
    y, x = np.mgrid[:150, :203].astype(np.float32)
    image = (y / 150 + x / 406 + 0.1).astype(np.float32)
    if channels:
        image = np.stack([image] * 3, axis=-1)
    seen = rescaled(image, scale)
    assert seen.dtype == np.float32 and seen.shape == (round(150 * scale), round(203 * scale), *channels)
    maps = seen if channels else seen[..., np.newaxis]
    back = brought_back(maps, (150, 203))
    assert back.dtype == np.float32 and back.shape == (150, 203, 3 if channels else 1)
    inner = np.s_[9:-9, 9:-9, 0]  # half a pixel of the network's at the sides is what lies at the side itself
    # A pixel keeps its place: a slope comes back as it was.
    assert np.abs(back[inner] - np.atleast_3d(image)[inner]).max() < 0.01


def test_nothing_happens_at_scale_1() -> None:
    image = np.random.default_rng(0).random((5, 7), np.float32)
    assert rescaled(image, 1.0) is image
    maps = image[..., np.newaxis]
    assert brought_back(maps, (5, 7)) is maps
    assert rescaled(image[:1, :1], 0.125).shape == (1, 1)
