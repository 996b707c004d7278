"""Compare ways to find the light of a plate on synthetic sites under a known light; prints benchmarks/illumination.md.

``python benchmarks/illumination.py > benchmarks/illumination.md``; some minutes on one core. Sites are cut from the
middle of larger ones, so that nothing is special at their borders. BaSiC is written after Peng et al. 2017 and its
authors' programs, without the dark field: the packages that hold it ask for PyTorch or JAX.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

from nucseg_ray.imaging.metrics import match, pool
from nucseg_ray.imaging.shading import find_shading, site_light
from nucseg_ray.imaging.synthetic import SiteLook, render_site
from nucseg_ray.model.segmenter import Segmenter

Images = Sequence[NDArray[np.uint16]]
Field = NDArray[np.float64]
SIDE, MARGIN, SITES, FEW = 512, 64, 96, 24
LOOK = SiteLook(shape_px=(SIDE + 2 * MARGIN,) * 2, nuclei=0, gradient=0.0)
# What the plates hold: nuclei in a site of SIDE, share of empty sites, share with debris.
PLATES = {"dense": (60, 0.0, 0.0), "dense, empty wells, debris": (60, 0.2, 0.1), "sparse": (12, 0.0, 0.0)}
OFFSETS = (0, 1000)


def sites(nuclei: int, empty: float, debris: float) -> Iterator[tuple[NDArray[np.uint16], NDArray[np.int32]]]:
    """Draw evenly lit sites with their label images."""
    for number in range(SITES):
        rng = np.random.default_rng([0, number])
        count = (
            0 if rng.random() < empty else int(rng.integers(nuclei // 2, nuclei * 3 // 2 + 1) * (1 + MARGIN / 256) ** 2)
        )
        image, labels = render_site(dataclasses.replace(LOOK, nuclei=count), rng)
        inside = slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN)
        lit = image[inside].astype(np.float32)
        if rng.random() < debris:
            glow = np.zeros(lit.shape, np.float32)
            cv2.circle(glow, tuple(map(int, rng.integers(0, SIDE, 2))), 60, 30_000.0, -1)
            lit = lit + cv2.GaussianBlur(glow, (0, 0), 15)
        yield np.minimum(lit, 65_535).astype(np.uint16), labels[inside]


def lights() -> dict[str, Field]:
    """Give the lights, of mean 1; all but the last lose 30 % from their brightest to their darkest place."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    fields = {"slope": 1 - 0.15 * (x + 1), "vignette": 1 - 0.15 * (x * x + y * y), "even": np.ones((SIDE, SIDE))}
    return {name: field / field.mean() for name, field in fields.items()}


def lit(images: Images, light: Field, offset: float) -> list[NDArray[np.uint16]]:
    """Put a light on images, and the camera's offset below."""
    return [np.clip(np.rint(image * light + offset), 0, 65_535).astype(np.uint16) for image in images]


def small(images: Images, side: int) -> Field:
    """Shrink images to means over squares."""
    shrunk = [cv2.resize(i.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) for i in images]
    return np.stack(shrunk).astype(np.float64)


def smooth(picture: Field, degree: int) -> Field:
    """Fit a polynomial to a square picture, and draw it for whole images."""
    powers = [(a, b) for a in range(degree + 1) for b in range(degree + 1 - a)]
    low, high = (legvander((np.arange(n) + 0.5) / n * 2 - 1, degree) for n in (len(picture), SIDE))
    terms = np.stack([np.outer(low[:, a], low[:, b]).ravel() for a, b in powers], axis=1)
    fitted = np.linalg.lstsq(terms, picture.ravel(), rcond=None)[0]
    drawn = sum(c * np.outer(high[:, a], high[:, b]) for c, (a, b) in zip(fitted, powers, strict=True))
    return np.asarray(drawn / np.mean(drawn))


def mean_polynomial(images: Images) -> Field:
    """CellProfiler: Regular, all images, fit polynomial."""
    return smooth(small(images, 64).mean(axis=0), 2)


def mean_gaussian(images: Images) -> Field:
    """CellProfiler: Regular, all images, Gaussian."""
    blurred = cv2.GaussianBlur(small(images, 64).mean(axis=0), (0, 0), 10, borderType=cv2.BORDER_REFLECT)
    return cv2.resize(blurred / blurred.mean(), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def background(images: Images) -> Field:
    """CellProfiler: Background, the least of each block, all images."""
    step = SIDE // 16
    least = [image.reshape(16, step, 16, step).min(axis=(1, 3)) for image in images]
    return smooth(np.mean(least, axis=0), 4)


def median(images: Images) -> Field:
    """Take the median of all images, smoothed."""
    return smooth(np.median(small(images, 128), axis=0), 4)


def basic(images: Images) -> Field:
    """BaSiC's flat field: a sparse matrix apart from one of rank 1 whose picture is smooth."""
    stack = np.sort(small(images, 128), axis=0)
    mean = stack.mean(axis=0) / stack.mean()
    smoothness = np.abs(dctn(mean, norm="ortho")).sum() / 800
    norm = np.linalg.norm(stack.reshape(len(stack), -1), 2)
    weight, before = np.ones_like(stack), np.zeros_like(mean)
    for _ in range(10):
        flat, sparse, light = _low_rank(stack, weight, smoothness=smoothness, norm=float(norm))
        if np.abs(flat - before).sum() < 1e-2 * np.abs(before).sum():
            break
        before = flat
        weight = 1 / (np.abs(sparse / light.mean(axis=(1, 2), keepdims=True)) + 0.1)
        weight *= weight.size / weight.sum()
    return cv2.resize(flat, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def _low_rank(stack: Field, weight: Field, *, smoothness: float, norm: float) -> tuple[Field, Field, Field]:
    mu, dual, sparse = 12.5 / norm, np.zeros_like(stack), np.zeros_like(stack)
    spectrum, level = dctn(stack.mean(axis=0), norm="ortho"), np.ones((len(stack), 1, 1))
    for _ in range(500):
        left = stack - idctn(spectrum, norm="ortho") * level - sparse + dual / mu
        spectrum = _shrunk(spectrum + dctn(left.mean(axis=0), norm="ortho"), smoothness / mu)
        flat = idctn(spectrum, norm="ortho")
        sparse = _shrunk(stack - flat * level + dual / mu, weight / mu)
        rest = stack - sparse
        level = np.maximum(rest.mean(axis=(1, 2), keepdims=True) / rest.mean(), 0)
        residual = stack - flat * level - sparse
        dual, mu = dual + mu * residual, min(1.5 * mu, 12.5e7 / norm)
        if np.linalg.norm(residual) < 1e-6 * np.linalg.norm(stack):
            break
    return flat / flat.mean(), sparse, flat * level


def _shrunk(values: Field, by: Field | float) -> Field:
    return np.sign(values) * np.maximum(np.abs(values) - by, 0)


def ours(images: Images) -> Field:
    """Find what ``--illumination estimate`` divides by."""
    found = [light for image in images if (light := site_light(image)) is not None]
    return find_shading(found, shape=(SIDE, SIDE)).illumination().function.astype(np.float64)


def nothing(images: Images) -> Field:
    """Leave the light as it is."""
    return np.ones((SIDE, SIDE))


METHODS: dict[str, Callable[[Images], Field]] = {
    "none": nothing,
    "mean, polynomial": mean_polynomial,
    "mean, Gaussian": mean_gaussian,
    "least of blocks": background,
    "median": median,
    "BaSiC": basic,
    "estimate": ours,
}


def unevenness(light: Field, function: Field) -> float:
    """Give by how many percent the mean of any of 8 x 8 tiles of what is left lies off the mean of all."""
    tiles = (light / function).reshape(8, SIDE // 8, 8, SIDE // 8).mean(axis=(1, 3))
    return 100 * float(np.abs(tiles / tiles.mean() - 1).max())


def by_threshold(image: NDArray[np.uint16]) -> NDArray[np.int32]:
    """Segment without a network: Otsu's threshold, and what hangs together."""
    _, above = cv2.threshold(cv2.GaussianBlur(image, (0, 0), 1), 0, 1, cv2.THRESH_OTSU)
    return np.asarray(cv2.connectedComponents(above.astype(np.uint8), connectivity=4)[1], np.int32)


def precision_table(plate: Sequence[tuple[NDArray[np.uint16], NDArray[np.int32]]]) -> Iterator[str]:
    """Give AP@0.5 and the mean AP under slopes of several depths: as they are, corrected, and evenly lit at first."""
    segmenters = {"Otsu's threshold": by_threshold, "the model that ships": Segmenter.load(threads=1).segment}
    yield "| light lost along the slope | segmented by | as it is | corrected | evenly lit |\n|---|---|---|---|---|"
    x = np.linspace(0, 1, SIDE)[np.newaxis, :] + np.zeros((SIDE, 1))
    for loss in (0.3, 0.6, 0.85):
        light = (1 - loss * x) / (1 - loss / 2)
        images = lit([image for image, _ in plate], light, 0)
        found = [seen for image in images if (seen := site_light(image)) is not None]
        corrected = find_shading(found, shape=(SIDE, SIDE)).illumination()
        pictures = [images[:FEW], [corrected.correct(image) for image in images[:FEW]], [image for image, _ in plate]]
        for name, segment in segmenters.items():
            scores = [
                pool(match(labels, segment(image)) for image, (_, labels) in zip(so, plate[:FEW], strict=False)).ap
                for so in pictures
            ]
            yield f"| {loss:.0%} | {name} | " + " | ".join(f"{ap[0]:.3f}, {np.mean(ap):.3f}" for ap in scores) + " |"


def main() -> None:
    """Print the page."""
    print("# Uneven light: what is left of it, in percent\n")
    print(
        f"Synthetic plates (`benchmarks/illumination.py`), {SIDE} x {SIDE} px, background about 1,400 grey levels,\n"
        "nuclei about 16,000. Largest deviation of 8 x 8 tiles of the light after correction. `offset`: the camera's.\n"
    )
    print(f"| plate | sites | offset | light | {' | '.join(METHODS)} |")
    print("|---" * (4 + len(METHODS)) + "|")
    for name, kind in PLATES.items():
        plate = list(sites(*kind))
        for count in (FEW, SITES):
            for offset in OFFSETS:
                for light_name, light in lights().items():
                    images = lit([image for image, _ in plate[:count]], light, offset)
                    left = [f"{unevenness(light, method(images)):.1f}" for method in METHODS.values()]
                    print(f"| {name} | {count} | {offset} | {light_name} | {' | '.join(left)} |", flush=True)
        if name == "dense":
            table = list(precision_table(plate))
    print(f"\n## AP@0.5, and the mean AP over IoU 0.50 to 0.95, on {FEW} sites of the dense plate\n")
    print("\n".join(table))


if __name__ == "__main__":
    main()
