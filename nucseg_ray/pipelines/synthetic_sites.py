"""The sites of a synthetic training set or plate: their names, and what each one's files hold.

Nothing here runs in parallel or writes; a site's content depends on the settings and its own key only.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from itertools import product

import cv2
import numpy as np

from nucseg_ray.config_synthesize import SynthesizeSettings
from nucseg_ray.imaging.codecs import Labels, Pixels, encode_image_png, encode_label_png
from nucseg_ray.imaging.synthetic import SiteLook, encode_tiff, render_cytoplasm, render_site, vary_look
from nucseg_ray.plates.keys import SiteKey, Well, counted_well
from nucseg_ray.plates.naming import FileName
from nucseg_ray.plates.schemes import SCHEMES

# How wide each plane is blurred more than the one before, away from the focus.
BLUR_PX = 2.0
PLATES = {24: (4, 6), 96: (8, 12), 384: (16, 24), 1536: (32, 48)}


@dataclasses.dataclass(frozen=True, slots=True)
class SiteJob:
    """One site to draw: its key, its files below the output, and bounds for its number of nuclei.

    Of ``images`` the first ``planes`` show the nuclei, the next another channel, and so on. ``truth`` is a label image
    where it ends in .png, else a folder that takes one mask a nucleus.
    """

    key: str
    images: tuple[str, ...]
    planes: int
    truth: str
    fewest: int
    most: int
    varied: bool


def plan_training(settings: SynthesizeSettings) -> list[SiteJob]:
    """Name the images of a training set; each gets a look of its own, as if from many microscopes."""
    jobs = []
    for number in range(1, settings.images + 1):
        name = f"synthetic-{number:05d}"
        bowl = settings.layout == "bowl"
        jobs.append(
            SiteJob(
                key=f"training/{name}",
                images=(f"{name}/images/{name}.png" if bowl else f"images/{name}.png",),
                planes=1,
                truth=f"{name}/masks" if bowl else f"masks/{name}.png",
                fewest=settings.nuclei[0],
                most=settings.nuclei[1],
                varied=True,
            )
        )
    return jobs


def plan_plate(settings: SynthesizeSettings) -> list[SiteJob]:
    """Name the sites of a plate, its wells in row order; the seed picks the empty ones.

    Raises
    ------
    UsageError
        The scheme cannot name the plate or that many sites.
    """
    scheme = SCHEMES[settings.scheme]
    rows, columns = PLATES[settings.wells]
    if scheme.counts_wells:
        wells = [counted_well(number) for number in range(1, settings.wells + 1)]
    else:
        wells = [Well(row, column).name for row in range(rows) for column in range(1, columns + 1)]
    rng = _generator(settings.seed, f"plate/{settings.plate}")
    empty = {wells[chosen] for chosen in rng.choice(len(wells), settings.empty_wells, replace=False)}
    names = scheme.channels[: settings.channels]
    sites = [str(site) for site in range(1, settings.sites_per_well + 1)]
    times = [str(time) for time in range(1, settings.timepoints + 1)] if settings.timepoints > 1 else [None]
    planes = list(range(1, settings.planes + 1)) if settings.planes > 1 else [None]
    jobs = []
    for well, site, time in product(wells, sites, times):
        images = tuple(
            scheme.format(FileName(settings.plate, well, site, time, plane, name))
            for name, plane in product(names, planes)
        )
        key = plate_key(images[0], settings)
        jobs.append(
            SiteJob(
                key=key.path(""),
                images=images,
                planes=settings.planes,
                truth=f"truth/{key.path('.png')}",
                fewest=0 if well in empty else settings.nuclei[0],
                most=0 if well in empty else settings.nuclei[1],
                varied=False,
            )
        )
    return jobs


def draw_job(job: SiteJob, settings: SynthesizeSettings) -> tuple[int, Iterator[tuple[str, bytes]]]:
    """Draw one site: its number of nuclei, and path and content of each of its files."""
    rng = _generator(settings.seed, job.key)
    look = site_look(settings, nuclei=int(rng.integers(job.fewest, job.most + 1)))
    look = vary_look(look, rng) if job.varied else look
    image, labels = render_site(look, rng)
    others = (render_cytoplasm(labels, look, rng) for _ in range(len(job.images) // job.planes - 1))
    pictures = [plane for picture in (image, *others) for plane in _stack(picture, job.planes)]
    return look.nuclei, _files(job, pictures, labels)


def _stack(picture: Pixels, planes: int) -> Iterator[Pixels]:
    """Give planes of which the middle one is the picture, and the others are out of focus."""
    for plane in range(planes):
        distance = abs(plane - planes // 2)
        yield picture if distance == 0 else cv2.GaussianBlur(picture, (0, 0), BLUR_PX * distance)


def _files(job: SiteJob, pictures: Sequence[Pixels], labels: Labels) -> Iterator[tuple[str, bytes]]:
    for path, picture in zip(job.images, pictures, strict=True):
        yield path, encode_image_png(picture) if path.endswith(".png") else encode_tiff(picture)
    if job.truth.endswith(".png"):
        yield job.truth, encode_label_png(labels)
        return
    for label in range(1, int(labels.max()) + 1):
        mask = (labels == label).astype(np.uint8) * np.uint8(255)
        yield f"{job.truth}/{label:04d}.png", encode_image_png(mask)


def site_look(settings: SynthesizeSettings, *, nuclei: int) -> SiteLook:
    """Return the look that the settings ask for; raises ``UsageError`` where it cannot be drawn."""
    return SiteLook(
        shape_px=settings.shape_px, nuclei=nuclei, radius_px=settings.radius_px, bit_depth=settings.bit_depth
    )


def _generator(seed: int, key: str) -> np.random.Generator:
    """Return the generator of one key: no two keys share one, and neither order nor blocks can change it."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()))


def plate_key(path: str, settings: SynthesizeSettings) -> SiteKey:
    """Return the key that a run on the plate's folder gives to this image."""
    name = SCHEMES[settings.scheme].parse(path)
    if name is None:
        raise RuntimeError(f"the scheme {settings.scheme!r} does not read its own name {path!r}")
    return name.key(settings.plate)
