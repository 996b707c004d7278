"""The sums behind :mod:`nucseg_ray.imaging.shading`: a smooth polynomial through what sites have in common."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DEGREE = 4
# How many terms a light of the second degree has: a slope, a bowl and a saddle; they are fitted freely. What the third
# and fourth degree add is held back, the stronger the finer it is, or nuclei by chance in a corner would be light.
FREE_DEGREE, STIFFNESS = 2, 1e-3
FOLDS = 4
_POWERS = [(y, x) for y in range(DEGREE + 1) for x in range(DEGREE + 1 - y) if y + x > 0]
_ORDER = np.array([y + x for y, x in _POWERS])
_ROUNDS = 20
_HUBER = 1.5


def log_light(coefficients: Floats, shape: tuple[int, int]) -> Floats:
    """Give the polynomial at every pixel ``(H, W)``, up to a constant."""
    rows, columns = (legvander((np.arange(length) + 0.5) / length * 2 - 1, DEGREE) for length in shape)
    table = np.zeros((DEGREE + 1, DEGREE + 1))
    for (y, x), coefficient in zip(_POWERS, coefficients, strict=True):
        table[y, x] = coefficient
    return np.asarray(rows @ table @ columns.T)


def fit_shape(logs: Floats) -> Floats:
    """Fit the polynomial to logarithms of background ``(sites, regions)``, regions in raster order of a square."""
    terms = _terms_of_regions(logs.shape[1])
    stiff = np.where(_ORDER > FREE_DEGREE, STIFFNESS * _ORDER.astype(float) ** 4, 0.0)
    return np.linalg.solve(terms.T @ terms + np.diag(stiff) * logs.shape[1], terms.T @ common(logs))


def common(logs: Floats) -> Floats:
    """Give what the regions ``(regions,)`` have in common over sites: Tukey's median polish, whose mean is 0.

    A site is as bright as it likes, and up to half of the sites may show anything, a region full of nuclei or debris.
    """
    rest, shared = logs.copy(), np.zeros(logs.shape[1])
    for _ in range(_ROUNDS):
        rest -= np.median(rest, axis=1, keepdims=True)
        step = np.median(rest, axis=0)
        step -= step.mean()
        rest -= step
        shared += step
        if np.abs(step).max() < 1e-6:
            break
    return shared


def held_out_gain(logs: Floats) -> float:
    """Tell how many times more even sites are with the light of the others; about 1 where each has only its own."""
    terms = _terms_of_regions(logs.shape[1])
    fold = np.arange(len(logs)) % FOLDS
    left = corrected = 0.0
    for number in range(FOLDS):
        seen = common(logs[fold == number])
        left += float(np.abs(seen).sum())
        corrected += float(np.abs(seen - terms @ fit_shape(logs[fold != number])).sum())
    return left / corrected if corrected else 1.0


def standard_error(logs: Floats) -> float:
    """Give the standard error of the fitted light, a share of it: the jackknife over parts of the sites."""
    terms = _terms_of_regions(logs.shape[1])
    fold = np.arange(len(logs)) % FOLDS
    fits = np.stack([terms @ fit_shape(logs[fold != number]) for number in range(FOLDS)])
    variance = (FOLDS - 1) / FOLDS * np.square(fits - fits.mean(axis=0)).sum(axis=0)
    return float(np.sqrt(variance.mean()))


def share_of_light(nuclei: Sequence[NDArray[np.float32]], coefficients: Floats) -> tuple[float, float, int, float]:
    """Tell how far nuclei differ for each part that a light does: 1, they are lit like the background; 0, not so.

    By a robust regression (Huber's) of their brightness on the light at their place; ``nuclei`` as in a
    :class:`~nucseg_ray.imaging.shading.SiteLight`, each against the median one of its own site. Gives the share, its
    standard error, the number of nuclei, and the light's standard deviation over them; the error is infinite where
    there are too few.
    """
    sites = [site.astype(np.float64) for site in nuclei if len(site) > 2]
    count = sum(map(len, sites))
    if count < 30:
        return 1.0, float("inf"), count, 0.0
    brightness = np.concatenate([np.log(site[:, 2]) - np.median(np.log(site[:, 2])) for site in sites])
    light = np.exp(_terms_at(np.concatenate([site[:, :2] for site in sites])) @ coefficients)
    light = light / light.mean() - 1
    spread = float(light.std())
    base, share, noise = 0.0, 1.0, float("inf")
    for _ in range(_ROUNDS):
        expected = np.maximum(1 + share * light, 0.1)
        residual = brightness - base - np.log(expected)
        noise = 1.4826 * float(np.median(np.abs(residual))) + 1e-9
        weight = np.minimum(1.0, _HUBER * noise / np.maximum(np.abs(residual), 1e-12))
        slopes = np.stack([np.ones(count), light / expected], axis=1)
        weighted = slopes * weight[:, np.newaxis]
        step, *_ = np.linalg.lstsq(weighted.T @ slopes, weighted.T @ residual, rcond=None)
        base, share = base + float(step[0]), float(np.clip(share + step[1], -2, 10))
    error = noise / np.sqrt(count) / spread if spread > 1e-6 else float("inf")
    return share, float(error), count, spread


@lru_cache(maxsize=2)
def _terms_of_regions(regions: int) -> Floats:
    """Give the terms of the polynomial ``(regions, terms)``, as means over regions in raster order."""
    side, samples = round(regions**0.5), 8
    basis = np.eye(len(_POWERS))
    planes = [log_light(term, (side * samples, side * samples)) for term in basis]
    means = [plane.reshape(side, samples, side, samples).mean(axis=(1, 3)).ravel() for plane in planes]
    return np.stack(means, axis=1)


def _terms_at(places: Floats) -> Floats:
    """Give the terms ``(n, terms)`` at places ``(n, 2)``, y and x as parts of the image's height and width."""
    y, x = (legvander(places[:, axis] * 2 - 1, DEGREE) for axis in (0, 1))
    return np.stack([y[:, a] * x[:, b] for a, b in _POWERS], axis=1)
