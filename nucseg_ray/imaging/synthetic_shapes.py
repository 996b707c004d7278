"""Shapes and places of synthetic nuclei: outlines, touching clusters, and the light of a single nucleus."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from nucseg_ray.errors import UsageError
from nucseg_ray.imaging.codecs import Labels

# Free pixels kept between nuclei that are not meant to touch.
GAP_PX = 2
# Share of nuclei that divide or die.
CONDENSED_SHARE = 0.04
# Directions tried to put one nucleus against another.
RAYS = 8
# Places tried at random for one nucleus before all are looked at.
TRIES = 40


@dataclasses.dataclass(frozen=True, slots=True)
class Nucleus:
    """One nucleus: its mask (h, w) of 0 and 1, the place of the mask's corner in the picture, and its mean radius.

    The mask is odd-sized with the centre in the middle pixel, and may reach over the border of the picture. A condensed
    nucleus (dividing or dying) is small, smooth and bright.
    """

    mask: NDArray[np.uint8]
    y0: int
    x0: int
    radius_px: float
    condensed: bool


def place_nuclei(
    *,
    shape_px: tuple[int, int],
    count: int,
    radius_px: tuple[float, float],
    touching_fraction: float,
    irregularity: float,
    rng: np.random.Generator,
) -> tuple[list[Nucleus], Labels]:
    """Place ``count`` nuclei, ``touching_fraction`` of them against an earlier one, none overlapping.

    Returns
    -------
    nuclei : list of Nucleus, in the order of their labels
    labels : (H, W) int32, 1..count. Every centre is inside the picture, so every nucleus shows and is one piece.

    Raises
    ------
    UsageError
        No room was found for a nucleus.
    """
    labels = np.zeros(shape_px, np.int32)
    # 1 where a nucleus that should stand alone may not be.
    crowded = np.zeros(shape_px, np.uint8)
    nuclei: list[Nucleus] = []
    ring = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * GAP_PX + 1, 2 * GAP_PX + 1))
    for number in range(1, count + 1):
        condensed = bool(rng.random() < CONDENSED_SHARE)
        radius = radius_px[0] + (0.0 if condensed else rng.beta(3.0, 3.0)) * (radius_px[1] - radius_px[0])
        touching = bool(nuclei) and bool(rng.random() < touching_fraction)
        nucleus = None
        while nucleus is None and radius >= radius_px[0]:
            mask = draw_outline(radius, irregularity=irregularity, rng=rng)
            place = _against_another(mask, nuclei, labels, rng) if touching else None
            place = place or _somewhere(mask, crowded, rng)
            if place is not None:
                nucleus = Nucleus(mask=mask, y0=place[0], x0=place[1], radius_px=radius, condensed=condensed)
            # Where there is no room for this one there may be for a smaller one, down to the smallest allowed.
            radius = max(radius_px[0], 0.9 * radius) if radius > radius_px[0] else 0.0
        if nucleus is None:
            raise UsageError(
                f"No room for nucleus {number} of {count} in a picture of {shape_px[0]} x {shape_px[1]} px: "
                "ask for fewer or smaller nuclei, or a larger picture."
            )
        nuclei.append(nucleus)
        window, part = overlap(nucleus.mask, nucleus.y0, nucleus.x0, shape_px)
        labels[window][nucleus.mask[part] > 0] = number
        grown = cv2.dilate(np.pad(nucleus.mask, GAP_PX), ring)
        window, part = overlap(grown, nucleus.y0 - GAP_PX, nucleus.x0 - GAP_PX, shape_px)
        crowded[window] |= grown[part]
    return nuclei, labels


def draw_outline(radius_px: float, *, irregularity: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one nucleus alone: an ellipse with a smooth uneven outline, now and then dented like a bean.

    Returns (h, w) uint8 of 0 and 1. The outline is a radius over the angle, so a mask is one piece, and stays one where
    the border of the picture cuts it beside its centre.
    """
    angle = np.linspace(0.0, 2 * math.pi, 72, endpoint=False)
    aspect = rng.uniform(0.55, 0.95)
    outline = 1.0 / np.hypot(np.cos(angle) * math.sqrt(aspect), np.sin(angle) / math.sqrt(aspect))
    for harmonic in range(2, 7):
        wave = np.cos(harmonic * angle + rng.uniform(0, 2 * math.pi))
        outline *= 1.0 + 2 * irregularity / harmonic**2 * rng.normal() * wave
    if rng.random() < 0.15:
        towards = np.angle(np.exp(1j * (angle - rng.uniform(0, 2 * math.pi))))
        outline *= 1.0 - rng.uniform(0.15, 0.4) * np.exp(-((towards / 0.5) ** 2))
    outline = np.clip(outline, 0.4, 1.8) * radius_px
    half = math.ceil(float(outline.max())) + 1
    turned = angle + rng.uniform(0, 2 * math.pi)
    points = np.stack([half + outline * np.cos(turned), half + outline * np.sin(turned)], axis=1)
    mask = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    cv2.fillPoly(mask, [np.rint(points * 16).astype(np.int32)], 1, shift=4)
    return mask


def draw_nucleus(
    layer: NDArray[np.float32],
    nucleus: Nucleus,
    chromatin: NDArray[np.float32],
    *,
    brightness_spread: float,
    rng: np.random.Generator,
) -> None:
    """Add one nucleus's light to ``layer`` (H, W); ``chromatin`` (H, W) is the whole picture's texture, about 1."""
    brightness = float(np.exp(rng.normal(0.0, brightness_spread)))
    # A nucleus is thinner at its rim, by how far the rim reaches in.
    depth = cv2.distanceTransform(nucleus.mask, cv2.DIST_L2, 3) / nucleus.radius_px
    light = nucleus.mask * (0.6 + 0.4 * np.clip(depth / 0.4, 0.0, 1.0))
    window, part = overlap(nucleus.mask, nucleus.y0, nucleus.x0, layer.shape)
    if nucleus.condensed:
        layer[window] += light[part] * (1.2 + brightness)
        return
    light *= _nucleoli(nucleus, rng) * brightness
    layer[window] += light[part] * np.maximum(chromatin[window], 0.2)


def _nucleoli(nucleus: Nucleus, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return what the nucleoli leave of the light, (h, w), 1 beside them."""
    rest = np.ones(nucleus.mask.shape, np.float32)
    centre = nucleus.mask.shape[0] // 2
    axis = np.arange(nucleus.mask.shape[0], dtype=np.float32)
    for _ in range(rng.integers(0, 5)):
        away, angle = 0.6 * nucleus.radius_px * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
        size = nucleus.radius_px * rng.uniform(0.08, 0.18)
        y = np.exp(-(((axis - centre - away * math.sin(angle)) / size) ** 2) / 2)
        x = np.exp(-(((axis - centre - away * math.cos(angle)) / size) ** 2) / 2)
        rest *= 1.0 - np.float32(rng.uniform(0.15, 0.4)) * np.outer(y, x)
    return rest


def overlap(
    mask: NDArray[np.uint8], y0: int, x0: int, shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where a mask whose corner is at (y0, x0) lies in the picture, and which part of the mask that is."""
    y1, x1 = min(y0 + mask.shape[0], shape[0]), min(x0 + mask.shape[1], shape[1])
    top, left = max(y0, 0), max(x0, 0)
    return (slice(top, y1), slice(left, x1)), (slice(top - y0, y1 - y0), slice(left - x0, x1 - x0))


def _somewhere(mask: NDArray[np.uint8], crowded: NDArray[np.uint8], rng: np.random.Generator) -> tuple[int, int] | None:
    """Return a random corner where the mask meets nothing, its centre in the picture; None where there is none."""
    half = mask.shape[0] // 2
    for y, x in zip(rng.integers(0, crowded.shape[0], TRIES), rng.integers(0, crowded.shape[1], TRIES), strict=True):
        if not _meets(mask, int(y) - half, int(x) - half, crowded):
            return int(y) - half, int(x) - half
    # Chance found nothing: look at every place there is, which takes longer.
    ys, xs = np.nonzero(cv2.dilate(crowded, mask) == 0)
    if ys.size == 0:
        return None
    chosen = rng.integers(ys.size)
    return int(ys[chosen]) - half, int(xs[chosen]) - half


def _against_another(
    mask: NDArray[np.uint8], nuclei: list[Nucleus], labels: Labels, rng: np.random.Generator
) -> tuple[int, int] | None:
    """Return the nearest free corner on a ray from an earlier nucleus, so that they touch; None if no ray ends so."""
    half = mask.shape[0] // 2
    for _ in range(RAYS):
        other = nuclei[rng.integers(len(nuclei))]
        other_half = other.mask.shape[0] // 2
        angle = rng.uniform(0, 2 * math.pi)
        for away in range(2 * (half + other_half)):
            y = other.y0 + other_half + round(away * math.sin(angle))
            x = other.x0 + other_half + round(away * math.cos(angle))
            if not (0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]):
                break
            # One step before, the mask lay on something: here it touches that (or just beside the picture's border).
            if not _meets(mask, y - half, x - half, labels):
                return y - half, x - half
    return None


def _meets(mask: NDArray[np.uint8], y0: int, x0: int, taken: NDArray[np.generic]) -> bool:
    """Tell whether the mask at this corner lies on anything in ``taken`` (H, W) that is not 0."""
    window, part = overlap(mask, y0, x0, taken.shape)
    return bool(taken[window][mask[part] > 0].any())
