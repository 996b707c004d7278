"""The light of a plate, found from its sites: against the light that was put on them."""

from __future__ import annotations

import dataclasses
from functools import cache

import cv2
import numpy as np
import pytest

from nucseg_ray.imaging.metrics import match, pool
from nucseg_ray.imaging.shading import Shading, find_shading, site_light
from nucseg_ray.imaging.synthetic import SiteLook, render_site

SIDE, MARGIN, SITES = 256, 48, 64
LOOK = SiteLook(
    shape_px=(SIDE + 2 * MARGIN, SIDE + 2 * MARGIN), nuclei=0, radius_px=(5.0, 9.0), gradient=0.0, brightness=0.2
)


@cache
def _sites() -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Sites that are evenly lit, cut from larger ones so that nothing is special at their borders; a tenth is empty."""
    sites = []
    for number in range(SITES):
        rng = np.random.default_rng([1, number])
        nuclei = 0 if number % 10 == 9 else int(rng.integers(20, 60))
        image, labels = render_site(dataclasses.replace(LOOK, nuclei=nuclei), rng)
        inside = slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN)
        sites.append((image[inside], labels[inside]))
    return tuple(sites)


def _field(kind: str, loss: float = 0.3) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    if kind == "linear":
        field = 1 - loss * (x + 1) / 2
    elif kind == "vignette":
        field = 1 - loss * (y * y + x * x) / 2
    else:  # the law of cos^4, about a point beside the middle
        field = (1 + (((1 - loss) ** -0.5 - 1) / 2) * ((y + 0.15) ** 2 + (x - 0.2) ** 2)) ** -2
    return field / field.mean()


def _lit(field: np.ndarray, *, offset: float = 0.0) -> list[np.ndarray]:
    return [np.clip(np.rint(image * field + offset), 0, 65_535).astype(np.uint16) for image, _ in _sites()]


def _found(images: list[np.ndarray]) -> Shading:
    return find_shading([light for image in images if (light := site_light(image))], shape=(SIDE, SIDE))


def _unevenness(picture: np.ndarray) -> float:
    """Give by how much the mean of any of 8 x 8 tiles lies off the mean of all."""
    tiles = picture.reshape(8, SIDE // 8, 8, SIDE // 8).mean(axis=(1, 3))
    return float(np.abs(tiles / tiles.mean() - 1).max())


@pytest.mark.parametrize("kind", ["linear", "vignette", "cos4"])
def test_a_gradient_is_flattened_to_within_2_percent(kind: str) -> None:
    field = _field(kind)
    assert _unevenness(field) > 0.12
    shading = _found(_lit(field))
    assert (shading.verdict, shading.offset, shading.sites) == ("uneven", 0.0, SITES)
    light = shading.illumination()
    assert light.function.mean(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    assert _unevenness(field / light.function) < 0.02
    evenly_stained = np.rint(20_000 * field).astype(np.uint16)
    assert _unevenness(evenly_stained) > 0.12
    assert _unevenness(light.correct(evenly_stained).astype(float)) < 0.02


def test_the_camera_s_offset_is_found_and_not_taken_for_light() -> None:
    field, offset = _field("vignette", 0.4), 1000.0
    shading = _found(_lit(field, offset=offset))
    assert shading.offset == pytest.approx(offset, rel=0.15)
    light = shading.illumination()
    evenly_stained = np.rint(20_000 * field + offset).astype(np.uint16)
    assert _unevenness(light.correct(evenly_stained) - offset) < 0.04
    # By the background alone, far more would stay.
    plain = dataclasses.replace(shading, offset=0.0).illumination()
    assert _unevenness(plain.correct(evenly_stained) - offset) > 0.08


def test_an_even_plate_stays_as_it_is() -> None:
    shading = _found(_lit(np.ones((SIDE, SIDE))))
    assert shading.verdict == "even"
    np.testing.assert_array_equal(shading.illumination().function, np.ones((SIDE, SIDE), np.float32))


def test_stray_light_that_the_nuclei_do_not_see_is_left_alone() -> None:
    """The background alone is uneven: dividing by it would make the nuclei so."""
    haze = 2000 * _field("linear", 0.8)
    shading = _found([np.minimum(image + np.rint(haze), 65_535).astype(np.uint16) for image, _ in _sites()])
    assert shading.verdict == "unconfirmed"
    assert abs(shading.share) < 0.3
    np.testing.assert_array_equal(shading.illumination().function, np.ones((SIDE, SIDE), np.float32))


def test_debris_and_crowded_sites_do_not_show_in_the_light() -> None:
    field = _field("vignette")
    images = _lit(field)
    for number in range(0, SITES, 8):  # always in one corner: worse than chance
        glow = np.zeros((SIDE, SIDE), np.float32)
        cv2.circle(glow, (SIDE // 6, SIDE // 6), SIDE // 8, 40_000.0, -1)
        glow = cv2.GaussianBlur(glow, (0, 0), 6)
        images[number] = np.minimum(images[number] + glow, 65_535).astype(np.uint16)
    shading = _found(images)
    assert (shading.verdict, shading.offset) == ("uneven", 0.0)
    assert _unevenness(field / shading.illumination().function) < 0.03


def test_a_few_sites_tell_nothing_and_dark_ones_do_not_count() -> None:
    images = _lit(_field("linear"))
    few = _found(images[:15])
    assert (few.verdict, few.sites) == ("unknown", 15)
    np.testing.assert_array_equal(few.illumination().function, np.ones((SIDE, SIDE), np.float32))
    assert site_light(np.zeros((40, 50), np.uint8)) is None
    with_dark = _found([*images[:15], np.zeros((SIDE, SIDE), np.uint16)])
    assert with_dark.verdict == "unknown"


def test_the_light_of_eight_bits_is_found_too() -> None:
    field = _field("linear")
    images = [np.rint(image / 257 * 1.5).clip(0, 255).astype(np.uint8) for image in _lit(field)]
    shading = _found(images)
    assert shading.verdict == "uneven"
    assert _unevenness(field / shading.illumination().function) < 0.03


def _by_threshold(image: np.ndarray) -> np.ndarray:
    """Segment as plainly as can be: Otsu's threshold over the image, and what hangs together."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1)
    _, above = cv2.threshold(smooth, 0, 1, cv2.THRESH_OTSU)
    return cv2.connectedComponents(above.astype(np.uint8), connectivity=4)[1].astype(np.int32)


def test_correction_raises_the_average_precision() -> None:
    images = _lit(_field("linear", 0.85))
    light = _found(images).illumination()
    seen = [number for number in range(0, SITES, 3) if _sites()[number][1].any()]
    before, after, ideal = (
        pool(match(_sites()[number][1], _by_threshold(picture(number))) for number in seen).ap[0]
        for picture in (
            lambda number: images[number],
            lambda number: light.correct(images[number]),
            lambda number: _sites()[number][0],
        )
    )
    assert after > before + 0.1
    assert after > ideal - 0.03
