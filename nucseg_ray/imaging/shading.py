"""Find out how unevenly a plate is lit, from images of its sites alone.

A method of our own; ``benchmarks/illumination.md`` compares it with CellProfiler's CorrectIlluminationCalculate (Singh
et al. 2014, doi:10.1111/jmi.12178) and BaSiC (Peng et al. 2017, doi:10.1038/ncomms14836), which like it ask nothing but
the images. It has two witnesses. The background of many sites tells the light's shape, precisely. Yet what glimmers in
the background need not be lit like the nuclei: it holds the camera's offset, and on a dark plate stray light and little
else. So the nuclei, which are too few to tell the shape, are asked how far they follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from nucseg_ray.imaging.codecs import Pixels
from nucseg_ray.imaging.illumination import Illumination
from nucseg_ray.imaging.shading_fit import fit_shape, held_out_gain, log_light, share_of_light, standard_error

# An image is told by so many regions along each side, each of so many samples along its side. Where nuclei fill less
# than three quarters of a region, its lower quartile is background.
REGIONS, SAMPLES, QUARTILE = 12, 16, 0.25
# A site whose background is below so many grey levels tells nothing of the light: zeros, a camera that was off, or what
# rounding and stray light leave of a dark background. In single regions of other sites, it is no less than the floor.
LEAST_LEVEL, FLOOR = 3.0, 0.5
# Nuclei are looked for in images of at most so many pixels a side; smaller than this many pixels they are specks, and
# larger than this part of the image debris.
WORKING_PX, LEAST_PX, LARGEST_PART = 1024, 12, 0.1
# Over so many regions the background of one site is smoothed, to be the measure of its nuclei's brightness.
SMOOTH_REGIONS = 2.0
# What is called a nucleus is brighter than the background by at least so many standard deviations of its noise.
NOISES = 6.0
# Fewer sites than this tell their own nuclei and haze rather than the light.
LEAST_SITES = 16
# Sites that were left out must be so many times more even with the light of the others than without.
LEAST_GAIN = 1.1
# Up to this standard error, a part of it, and of a light that differs by at least this much, the nuclei's share is
# believed.
TELLING_ERROR, TELLING_SPREAD = 0.15, 0.02
# Below the first share the background is not lit like the nuclei. Up to the second it is taken for 1: debris and
# clusters move it by as much; above it the background holds an offset.
LEAST_SHARE, MOST_SHARE = 0.75, 1.3

# No pixel gets less than this part of the light; noise is all that would be brightened there.
LEAST_LIGHT = 0.05

Verdict = Literal["uneven", "even", "unconfirmed", "unknown"]


@dataclass(frozen=True, slots=True, eq=False)
class SiteLight:
    """What one image tells: ``levels (REGIONS**2,)`` float32, its background by region in raster order, and nuclei.

    ``nuclei (n, 3)`` float32: y and x of the centre as parts of the image's height and width, and how much brighter
    than the background around it, in grey levels.
    """

    shape: tuple[int, int]
    levels: NDArray[np.float32]
    nuclei: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shading:
    """How unevenly a plate is lit: the logarithm of the light as a polynomial, and what speaks for it.

    ``verdict``: "uneven", it is to be corrected; "even", what the background shows does not hold for sites that were
    left out; "unconfirmed", the nuclei do not follow it; "unknown", too few sites tell anything. ``error`` is the
    standard error of the light, a share of it; ``share`` how far the nuclei differ for each part that the background
    does (None: they cannot tell); ``offset`` in grey levels.
    """

    shape: tuple[int, int]
    verdict: Verdict
    sites: int
    coefficients: tuple[float, ...] = ()
    offset: float = 0.0
    error: float = 0.0
    nuclei: int = 0
    share: float | None = None

    def illumination(self) -> Illumination:
        """Draw the function; 1 everywhere where nothing is to be corrected."""
        if self.verdict != "uneven":
            return Illumination(np.ones(self.shape, np.float32))
        light = np.exp(log_light(np.asarray(self.coefficients), self.shape))
        if self.offset and self.share:  # the background differs by less than the light does
            light = 1 + (light / light.mean() - 1) * self.share
        light = np.maximum(light / light.mean(), LEAST_LIGHT)
        return Illumination((light / light.mean()).astype(np.float32), self.offset)


def site_light(image: Pixels) -> SiteLight | None:
    """Look at one grey image ``(H, W)``; None where it is dark throughout."""
    side = REGIONS * SAMPLES
    grey = image.astype(np.float32)  # OpenCV would round means of whole numbers, and few grey levels are the light
    sampled = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
    by_region = sampled.reshape(REGIONS, SAMPLES, REGIONS, SAMPLES).transpose(0, 2, 1, 3).reshape(REGIONS**2, -1)
    levels = np.quantile(by_region, QUARTILE, axis=1).astype(np.float32)
    if np.median(levels) < LEAST_LEVEL:
        return None
    return SiteLight((image.shape[0], image.shape[1]), levels, _nuclei(grey, levels.reshape(REGIONS, REGIONS)))


def find_shading(sites: Sequence[SiteLight], *, shape: tuple[int, int]) -> Shading:
    """Find the light that sites of one plate share, whose images are of this shape; more sites make it better.

    The same sites in the same order give the same.
    """
    if len(sites) < LEAST_SITES:
        return Shading(shape, "unknown", len(sites))
    levels = np.maximum(np.stack([site.levels for site in sites]), FLOOR).astype(np.float64)
    logs = np.log(levels)
    coefficients = fit_shape(logs)
    error = standard_error(logs)
    share, share_error, n_nuclei, spread = share_of_light([site.nuclei for site in sites], coefficients)
    can_tell = share_error <= TELLING_ERROR * max(share, 1.0) and spread >= TELLING_SPREAD
    verdict: Verdict = "uneven"
    offset = 0.0
    if held_out_gain(logs) < LEAST_GAIN:
        verdict = "even"
    elif can_tell and share < LEAST_SHARE:
        verdict = "unconfirmed"
    elif can_tell and share > MOST_SHARE:
        offset = float(np.median(levels)) * (1 - 1 / share)
    return Shading(
        shape=shape,
        verdict=verdict,
        coefficients=tuple(map(float, coefficients)),
        offset=round(offset, 2),
        sites=len(sites),
        error=error,
        nuclei=n_nuclei,
        share=share if can_tell else None,
    )


def _nuclei(image: NDArray[np.float32], levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Find bright spots, each by its middle and its brightness above the background; not each is a nucleus."""
    scale = min(1.0, WORKING_PX / max(image.shape))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = small.shape
    contrast = cv2.GaussianBlur(small, (0, 0), 1) - cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR)
    # One threshold for all would find the bright ones only where there is little light: it goes with the background.
    level = np.maximum(cv2.GaussianBlur(levels, (0, 0), SMOOTH_REGIONS), FLOOR)
    evened = contrast / cv2.resize(level / np.median(level), (width, height), interpolation=cv2.INTER_LINEAR)
    threshold = max(_otsu(evened), NOISES * 1.4826 * float(np.median(np.abs(evened))))
    count, labels, stats, centres = cv2.connectedComponentsWithStats((evened > threshold).astype(np.uint8))
    area = stats[:, cv2.CC_STAT_AREA]
    brightness = _above_half(contrast.ravel(), labels.ravel(), count)
    is_nucleus = (area >= LEAST_PX) & (area <= LARGEST_PART * small.size)
    is_nucleus[0] = False
    places = (centres[:, ::-1] + 0.5) / (height, width)
    return np.column_stack([places, brightness])[is_nucleus].astype(np.float32)


def _above_half(values: NDArray[np.float32], labels: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    """Give the mean of each label's pixels above half of its brightest: a threshold that cuts dim ones cannot tell."""
    brightest = np.zeros(count, np.float32)
    np.maximum.at(brightest, labels, values)
    is_above = values > brightest[labels] / 2
    total = np.bincount(labels[is_above], values[is_above], minlength=count)
    return np.asarray(total / np.maximum(np.bincount(labels[is_above], minlength=count), 1))


def _otsu(contrast: NDArray[np.float32]) -> float:
    """Give Otsu's threshold; the brightest thousandth does not widen its steps."""
    low, high = np.quantile(contrast, [0.001, 0.999])
    if high <= low:
        return float("inf")
    steps = (np.clip((contrast - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    threshold, _ = cv2.threshold(steps, 0, 255, cv2.THRESH_OTSU)
    return float(low + threshold / 255 * (high - low))
