"""Synthetic sites: believable pictures of DAPI-stained nuclei together with their exact label image.

A site is drawn the way a microscope makes it: nuclei with an irregular outline, chromatin texture and dark nucleoli;
a light halo around them and some nuclei out of focus; uneven illumination; then photon noise and read noise.
"""

from __future__ import annotations

import dataclasses
import io
import math

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from nucseg_ray.errors import UsageError
from nucseg_ray.imaging.codecs import Labels, Pixels
from nucseg_ray.imaging.synthetic_shapes import GAP_PX, Nucleus, draw_nucleus, place_nuclei

# Above this share of the picture random placement finds no room for the last nuclei any more.
MAX_COVERAGE = 0.4


@dataclasses.dataclass(frozen=True, slots=True)
class SiteLook:
    """How a synthetic site looks.

    ``brightness`` and ``background`` are shares of the full scale of the image's type; ``gradient`` is the share of
    light lost at the darkest corner; ``haze`` is the share of a nucleus's light that the optics spread around it;
    ``photons`` come from one pixel of a typical nucleus (fewer is noisier); ``read_noise`` is counted in photons too.
    """

    shape_px: tuple[int, int] = (512, 512)
    nuclei: int = 80
    radius_px: tuple[float, float] = (10.0, 20.0)
    touching_fraction: float = 0.3
    irregularity: float = 0.12
    texture: float = 0.13
    brightness: float = 0.25
    brightness_spread: float = 0.3
    background: float = 0.02
    gradient: float = 0.3
    haze: float = 0.1
    blur_px: float = 1.0
    defocused_fraction: float = 0.05
    photons: float = 400.0
    read_noise: float = 3.0
    bit_depth: int = 16

    def __post_init__(self) -> None:
        """Check what a caller could get wrong.

        Raises
        ------
        UsageError
            A value that cannot be drawn, or more nuclei than fit.
        """
        if min(self.shape_px) < 16:
            raise UsageError(f"shape_px must be at least 16 x 16, not {self.shape_px}.")
        low, high = self.radius_px
        if not 3 <= low <= high:
            raise UsageError(f"radius_px must be (smallest, largest), the smallest at least 3, not {self.radius_px}.")
        if self.bit_depth not in (8, 16):
            raise UsageError(f"bit_depth must be 8 or 16, not {self.bit_depth}.")
        if not (self.brightness > 0 and self.photons > 0 and self.background >= 0):
            raise UsageError(
                "brightness and photons must be above 0 and background at least 0, not "
                f"{self.brightness}, {self.photons} and {self.background}."
            )
        room = most_nuclei(self.shape_px, self.radius_px)
        if not 0 <= self.nuclei <= room:
            raise UsageError(
                f"nuclei must be 0 to {room} where shape_px is {self.shape_px} and radius_px {self.radius_px}, not "
                f"{self.nuclei}: ask for fewer or smaller nuclei, or a larger picture."
            )


def most_nuclei(shape_px: tuple[int, int], radius_px: tuple[float, float]) -> int:
    """Return how many nuclei of these radii surely find room in a picture of this shape."""
    # The mean area of a disc whose radius is uniform between low and high, its half of the gap to the next included.
    low, high = (radius + GAP_PX / 2 for radius in radius_px)
    area = math.pi * (low * low + low * high + high * high) / 3
    return int(MAX_COVERAGE * shape_px[0] * shape_px[1] / area)


def vary_look(look: SiteLook, rng: np.random.Generator) -> SiteLook:
    """Return a look near ``look``, as another day or microscope would give it: for diverse training images.

    Size, brightness, focus, haze, light and noise change; shape, number of nuclei and bit depth stay. Nuclei only
    become smaller, so that they still fit.
    """
    low, high = look.radius_px
    scale = rng.uniform(0.6, 1.0)
    low = max(3.0, low * scale)
    return dataclasses.replace(
        look,
        radius_px=(low, max(low, high * scale)),
        touching_fraction=min(1.0, look.touching_fraction * rng.uniform(0.3, 1.7)),
        irregularity=look.irregularity * rng.uniform(0.6, 1.4),
        texture=look.texture * rng.uniform(0.4, 1.6),
        brightness=look.brightness * float(np.exp(rng.normal(0.0, 0.5))),
        brightness_spread=look.brightness_spread * rng.uniform(0.5, 1.8),
        background=look.background * float(np.exp(rng.normal(0.0, 0.5))),
        gradient=look.gradient * rng.uniform(0.0, 1.6),
        haze=look.haze * rng.uniform(0.3, 2.5),
        blur_px=look.blur_px * rng.uniform(0.6, 2.0),
        photons=look.photons * float(np.exp(rng.normal(0.0, 0.8))),
    )


def render_site(look: SiteLook, rng: np.random.Generator) -> tuple[Pixels, Labels]:
    """Draw one site.

    Returns
    -------
    image : (H, W) uint8 or uint16, by ``look.bit_depth``
    labels : (H, W) int32, 0 background, 1 to ``look.nuclei``; each nucleus one piece, none overlapping
    """
    nuclei, labels = place_nuclei(
        shape_px=look.shape_px,
        count=look.nuclei,
        radius_px=look.radius_px,
        touching_fraction=look.touching_fraction,
        irregularity=look.irregularity,
        rng=rng,
    )
    light = _draw_nuclei(nuclei, look, rng)
    return expose(light, look, rng), labels


def render_cytoplasm(labels: Labels, look: SiteLook, rng: np.random.Generator) -> Pixels:
    """Draw a second stain of the same site: cell bodies around the nuclei, dimmer inside them.

    ``labels`` are those of :func:`render_site`; the picture has its shape, and uint8 or uint16 by ``look.bit_depth``.
    """
    nuclei = (labels > 0).astype(np.float32)
    reach = look.radius_px[1]
    bodies = np.clip(3.0 * _blur(nuclei, reach), 0.0, 1.0) - 0.3 * _blur(nuclei, 2.0)
    fibres = _texture(labels.shape, fine_px=1.5, coarse_px=reach / 2, rng=rng)
    return expose(np.maximum(bodies * (1.0 + 0.3 * fibres), 0.0), look, rng)


def expose(light: NDArray[np.float32], look: SiteLook, rng: np.random.Generator) -> Pixels:
    """Turn light (H, W), 1 being a typical nucleus, into camera counts: background, uneven light and noise added."""
    drift = 1.0 + 0.08 * _texture(light.shape, fine_px=max(light.shape) / 10, coarse_px=max(light.shape) / 5, rng=rng)
    field = _illumination(light.shape, look.gradient, rng)
    level = (light + look.background / look.brightness * drift) * field
    photons = rng.poisson(np.maximum(level, 0.0) * look.photons).astype(np.float32)
    photons += rng.normal(0.0, look.read_noise, light.shape).astype(np.float32)
    full = 255 if look.bit_depth == 8 else 65535
    counts = np.rint(photons * (look.brightness * full / look.photons))
    return np.clip(counts, 0, full).astype(np.uint8 if look.bit_depth == 8 else np.uint16)


def encode_tiff(image: Pixels) -> bytes:
    """Encode (H, W) uint8 or uint16 as a plain TIFF of one page, the same bytes for the same pixels."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, photometric="minisblack", metadata=None, software="nucseg_ray")
    return buffer.getvalue()


def _draw_nuclei(nuclei: list[Nucleus], look: SiteLook, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the light (H, W) of all nuclei through the optics: sharp ones, defocused ones, and the haze of both."""
    if not nuclei:
        return np.zeros(look.shape_px, np.float32)
    sharp = np.zeros(look.shape_px, np.float32)
    defocused = np.zeros(look.shape_px, np.float32)
    radius = sum(look.radius_px) / 2
    chromatin = _texture(look.shape_px, fine_px=max(0.8, radius / 14), coarse_px=radius / 5, rng=rng)
    for nucleus in nuclei:
        layer = defocused if rng.random() < look.defocused_fraction else sharp
        draw_nucleus(layer, nucleus, 1.0 + look.texture * chromatin, brightness_spread=look.brightness_spread, rng=rng)
    light = _blur(sharp, look.blur_px) + _blur(defocused, look.blur_px + radius / 6)
    return light + look.haze * _blur(sharp + defocused, 1.2 * radius)


def _illumination(shape: tuple[int, ...], gradient: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the light field (H, W), at most 1: brightest at a random place, less with the square of the distance."""
    height, width = shape
    y0, x0 = rng.uniform(0.0, 1.0, 2)
    y = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None] - np.float32(y0)
    x = np.linspace(0.0, 1.0, width, dtype=np.float32)[None, :] - np.float32(x0)
    distance = y * y + x * x
    return 1.0 - np.float32(min(gradient, 0.9)) * distance / distance.max()


def _texture(
    shape: tuple[int, ...], *, fine_px: float, coarse_px: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return smooth noise (H, W) of two grain sizes, mean 0 and standard deviation 1."""
    fine = _standardised(_blur(rng.standard_normal(shape, np.float32), fine_px))
    coarse = _standardised(_blur(rng.standard_normal(shape, np.float32), coarse_px))
    return _standardised(fine + coarse)


def _standardised(noise: NDArray[np.float32]) -> NDArray[np.float32]:
    return (noise - noise.mean()) / max(float(noise.std()), 1e-6)


def _blur(picture: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Blur by a Gaussian; a wide one on a smaller copy, where it costs little and looks the same."""
    shrink = int(sigma_px // 3)
    if shrink < 2:
        return cv2.GaussianBlur(picture, (0, 0), sigma_px)
    height, width = picture.shape
    size = (math.ceil(width / shrink), math.ceil(height / shrink))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(
        cv2.GaussianBlur(small, (0, 0), sigma_px / shrink), (width, height), interpolation=cv2.INTER_CUBIC
    )
