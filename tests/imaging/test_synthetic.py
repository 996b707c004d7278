"""Synthetic sites: the truth is exact, the pictures believable, the seed decides everything."""

from __future__ import annotations

import dataclasses
import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nucseg_ray.errors import UsageError
from nucseg_ray.imaging.codecs import decode_image
from nucseg_ray.imaging.synthetic import (
    SiteLook,
    encode_tiff,
    most_nuclei,
    render_cytoplasm,
    render_site,
    vary_look,
)
from nucseg_ray.imaging.synthetic_shapes import draw_outline, place_nuclei


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(40, 160), st.integers(40, 160)),
    smallest=st.floats(3, 10),
    spread=st.floats(1, 2),
    filled=st.floats(0, 1),
    touching=st.floats(0, 1),
)
def test_labels_are_consecutive_whole_pieces(
    seed: int, shape: tuple[int, int], smallest: float, spread: float, filled: float, touching: float
) -> None:
    radius_px = (smallest, smallest * spread)
    count = int(filled * most_nuclei(shape, radius_px))
    nuclei, labels = place_nuclei(
        shape_px=shape, count=count, radius_px=radius_px, touching_fraction=touching, irregularity=0.2, rng=_rng(seed)
    )
    assert len(nuclei) == count
    assert labels.shape == shape and labels.dtype == np.int32
    np.testing.assert_array_equal(np.unique(labels[labels > 0]), np.arange(1, count + 1))
    for label in range(1, count + 1):
        assert ndimage.label(labels == label)[1] == 1
    # Nothing drawn was drawn over: the label image holds every mask in full, as far as it is in the picture.
    for label, nucleus in enumerate(nuclei, start=1):
        ys, xs = np.nonzero(nucleus.mask)
        ys, xs = ys + nucleus.y0, xs + nucleus.x0
        inside = (ys >= 0) & (ys < shape[0]) & (xs >= 0) & (xs < shape[1])
        assert (labels[ys[inside], xs[inside]] == label).all()
        assert inside.sum() == (labels == label).sum()


def _neighbours(labels: np.ndarray) -> set[tuple[int, int]]:
    """Return the pairs of labels that touch, brute force over the 8 neighbours."""
    pairs = set()
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        a = labels[: labels.shape[0] - dy, max(0, -dx) : labels.shape[1] - max(0, dx)]
        b = labels[dy:, max(0, dx) : labels.shape[1] - max(0, -dx)]
        meet = (a != b) & (a > 0) & (b > 0)
        pairs |= {(int(min(p)), int(max(p))) for p in zip(a[meet], b[meet], strict=True)}
    return pairs


def test_touching_fraction_decides_who_touches() -> None:
    look = SiteLook(shape_px=(400, 400), nuclei=50, radius_px=(8, 12), touching_fraction=0.0)
    alone = render_site(look, _rng())[1]
    clustered = render_site(dataclasses.replace(look, touching_fraction=1.0), _rng())[1]
    assert _neighbours(alone) == set()
    # Each but the first is put against an earlier one; a few would touch it just outside the picture only.
    assert len({max(pair) for pair in _neighbours(clustered)}) >= 45


def test_nuclei_have_the_radius_asked_for() -> None:
    rng = _rng()
    radii = [np.sqrt(draw_outline(20.0, irregularity=0.12, rng=rng).sum() / np.pi) for _ in range(200)]
    assert np.mean(radii) == pytest.approx(20.0, rel=0.05)
    assert np.min(radii) > 14 and np.max(radii) < 26


def test_outlines_are_irregular() -> None:
    """Different from each other and from the ellipse that fits them best."""
    rng = _rng(3)
    misfit = []
    for _ in range(50):
        mask = draw_outline(20.0, irregularity=0.12, rng=rng)
        contour = max(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)
        ellipse = cv2.ellipse(np.zeros_like(mask), cv2.fitEllipse(contour), 1, -1)
        misfit.append(1 - np.logical_and(mask, ellipse).sum() / np.logical_or(mask, ellipse).sum())
    assert 0.02 < np.median(misfit) < 0.15


@pytest.mark.parametrize(("bit_depth", "dtype", "full"), [(8, np.uint8, 255), (16, np.uint16, 65535)])
def test_intensities_follow_the_look(bit_depth: int, dtype: type, full: int) -> None:
    look = SiteLook(nuclei=60, gradient=0.0, haze=0.0, bit_depth=bit_depth)
    image, labels = render_site(look, _rng())
    assert image.dtype == dtype and image.shape == look.shape_px
    far_away = cv2.dilate((labels > 0).astype(np.uint8), np.ones((25, 25), np.uint8)) == 0
    assert image[far_away].mean() / full == pytest.approx(look.background, rel=0.2)
    assert image[labels > 0].mean() / full == pytest.approx(look.brightness + look.background, rel=0.3)


def test_every_nucleus_stands_out_and_they_differ() -> None:
    look = SiteLook(nuclei=60, touching_fraction=0.0, gradient=0.0)
    image, labels = render_site(look, _rng(1))
    means = ndimage.mean(image, labels, np.arange(1, 61))
    background = np.median(image[labels == 0])
    assert means.min() > 2 * background
    assert 0.15 < np.std(np.log(means - background)) < 0.8


def test_nuclei_have_texture_beyond_the_noise() -> None:
    look = SiteLook(nuclei=40, radius_px=(16, 20), photons=1e6, read_noise=0.0, defocused_fraction=0.0)
    coarse, labels = render_site(look, _rng(2))
    smooth, _ = render_site(dataclasses.replace(look, texture=0.0), _rng(2))

    def spread(image: np.ndarray) -> float:
        inner = labels * cv2.erode((labels > 0).astype(np.uint8), np.ones((15, 15), np.uint8))
        present = np.unique(inner[inner > 0])
        return float(np.median(ndimage.standard_deviation(image, inner, present) / ndimage.mean(image, inner, present)))

    assert spread(coarse) > 0.06
    assert spread(coarse) > 1.3 * spread(smooth)


def test_the_look_sets_gradient_blur_and_noise() -> None:
    empty = SiteLook(nuclei=0, background=0.1, read_noise=0.0, photons=1e6)

    def uneven(gradient: float) -> float:
        low = cv2.resize(render_site(dataclasses.replace(empty, gradient=gradient), _rng())[0], (4, 4))
        return float(low.min() / low.max())

    assert uneven(0.0) > 0.6 > uneven(0.8)

    sharp, labels = render_site(SiteLook(photons=1e6, blur_px=0.5), _rng())
    blurred, _ = render_site(SiteLook(photons=1e6, blur_px=3.0), _rng())
    steepest = [np.percentile(np.abs(np.diff(i.astype(float), axis=1)), 99) for i in (sharp, blurred)]
    assert steepest[0] > 1.5 * steepest[1]
    assert labels.max() == 80

    # Shot noise: the variance of a flat patch is its photons, read noise adds its own.
    flat = SiteLook(nuclei=0, background=0.1, brightness=0.1, gradient=0.0, photons=100.0, read_noise=10.0)
    photons = render_site(flat, _rng())[0].astype(float) / (0.1 * 65535 / 100.0)
    noise = np.diff(photons, axis=1).var() / 2
    assert noise == pytest.approx(100.0 + 10.0**2, rel=0.05)


def test_an_empty_well_is_background_only() -> None:
    image, labels = render_site(SiteLook(nuclei=0), _rng(5))
    assert labels.dtype == np.int32 and labels.max() == 0
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 4.0)
    assert smooth.max() < 2 * smooth.min()
    assert image.std() > 0


def test_the_seed_decides_everything() -> None:
    first, again, other = (render_site(SiteLook(), _rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).mean() > 0.5


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_varied_looks_can_be_drawn(seed: int) -> None:
    look = SiteLook(shape_px=(96, 96), nuclei=most_nuclei((96, 96), (6, 12)), radius_px=(6, 12))
    varied = vary_look(look, _rng(seed))
    assert varied != look
    assert (varied.shape_px, varied.nuclei, varied.bit_depth) == (look.shape_px, look.nuclei, look.bit_depth)
    image, labels = render_site(varied, _rng(seed))
    assert labels.max() == look.nuclei
    assert image[labels > 0].mean() > 1.2 * np.percentile(image, 5)


def test_cytoplasm_surrounds_the_nuclei() -> None:
    look = SiteLook(nuclei=20, touching_fraction=0.0)
    _, labels = render_site(look, _rng())
    image = render_cytoplasm(labels, look, _rng(1))
    assert image.dtype == np.uint16 and image.shape == labels.shape
    grown = cv2.dilate((labels > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    ring = image[grown & (labels == 0)].mean()
    far_away = cv2.dilate((labels > 0).astype(np.uint8), np.ones((151, 151), np.uint8)) == 0
    assert ring > 2 * image[far_away].mean()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nuclei": 5000}, "nuclei must be 0 to"),
        ({"nuclei": -1}, "nuclei must be 0 to"),
        ({"shape_px": (8, 512)}, "shape_px"),
        ({"radius_px": (20.0, 10.0)}, "radius_px"),
        ({"radius_px": (1.0, 10.0)}, "radius_px"),
        ({"bit_depth": 12}, "bit_depth"),
        ({"brightness": 0.0}, "brightness"),
    ],
)
def test_a_look_that_cannot_be_drawn_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SiteLook(**wrong)  # type: ignore[arg-type]


def test_no_room_is_an_error_not_an_endless_search() -> None:
    with pytest.raises(UsageError, match="No room for nucleus"):
        place_nuclei(
            shape_px=(40, 40),
            count=50,
            radius_px=(8, 8),
            touching_fraction=0.5,
            irregularity=0.1,
            rng=_rng(),
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_comes_back_and_is_the_same_bytes(dtype: type) -> None:
    image = _rng().integers(0, np.iinfo(dtype).max, (20, 31)).astype(dtype)
    assert encode_tiff(image) == encode_tiff(image)
    np.testing.assert_array_equal(decode_image(encode_tiff(image), name="x.tif"), image)


def test_drawing_is_fast() -> None:
    """80 nuclei on 512 x 512 are to take less than 150 ms; here the best of five, with room for a busy machine."""
    took_s = []
    for seed in range(5):
        start = time.perf_counter()
        render_site(SiteLook(), _rng(seed))
        took_s.append(time.perf_counter() - start)
    assert min(took_s) < 0.3
