"""From pixels to maps and labels with one model.

For notebooks, napari and programs of one's own; the runs use the same. Ray is not needed, and TensorFlow only where it
is what runs the network.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.errors import InputError, UsageError
from nucseg_ray.imaging.codecs import Labels, Pixels
from nucseg_ray.imaging.pixels import to_pixels
from nucseg_ray.model.bundle import Bundle, read_bundle
from nucseg_ray.model.predictor import Predictor, Runtime, choose_form, load_predictor
from nucseg_ray.model.pretrained import PRETRAINED, pretrained_folder
from nucseg_ray.model.scaling import ScaledMaps, ScaledNetwork
from nucseg_ray.model.tiled_network import DEFAULT_TILING, PIXELS_TOGETHER, TiledNetwork, Tiling
from nucseg_ray.model.turned import TurnedPredictor


class Segmenter:
    """A loaded model.

    It may be used from several threads at once: each call's results are what they would be alone. The network runs for
    one of them at a time, on its own ``threads``; the rest of the work runs side by side. It cannot be pickled: load
    one in each process.

    Examples
    --------
    >>> from nucseg_ray import Segmenter
    >>> segmenter = Segmenter.load("model")
    >>> labels = segmenter.segment(image)  # (H, W) int32: 0 is background, 1 to n are nuclei
    >>> [nuclei.max() for nuclei in segmenter.segment_many([image, image])] == [labels.max()] * 2
    True
    """

    def __init__(
        self,
        bundle: Bundle,
        predictor: Predictor,
        *,
        tiling: Tiling = DEFAULT_TILING,
        nucleus_diameter_px: float | None = None,
    ) -> None:
        """Join a bundle and its running network."""
        if nucleus_diameter_px is not None and not 0 < nucleus_diameter_px < math.inf:
            raise UsageError(f"nucleus_diameter_px: expected pixels above 0, or None, found {nucleus_diameter_px}")
        self.bundle = bundle
        self.nucleus_diameter_px = nucleus_diameter_px
        network = TiledNetwork(predictor, bundle.normalisation, tiling=tiling)
        self._network = ScaledNetwork(network, bundle.labels, model_diameter_px=bundle.diameter_px)

    @classmethod
    def load(
        cls,
        folder: str | Path = PRETRAINED,
        *,
        runtime: Runtime = "auto",
        threads: int = 2,
        tiling: Tiling = DEFAULT_TILING,
        form: str | None = None,
        nucleus_diameter_px: float | None = None,
        tta: bool = False,
    ) -> Segmenter:
        """Load a bundle from a local folder; without one, the model that comes with the package.

        With ``runtime`` ``auto`` the form of the network that is best on CPUs runs; ``tensorflow`` takes a GPU where it
        sees one. ``threads`` are the network's; by default as many as an actor of a run has, so that labels equal a
        run's bit for bit: with more, sums may be rounded otherwise. ``form`` overrides ``runtime``: the one of the
        bundle's forms that a run has decided on.

        ``nucleus_diameter_px`` is the diameter of the nuclei in every image, in its pixels: the network sees images at
        the size that brings them near those it was trained on, so that small nuclei take longer: their image is
        enlarged, up to four times along each side. By default each image's is found by the network itself, in one to
        three looks, and a last one where none of these was at the right size. With ``tta`` (test-time augmentation) the
        network looks at each image in its four quarter turns, plain and mirrored, and the mean counts: eight times as
        long.

        Raises
        ------
        MissingInputError, ModelError
            There is no bundle there, or it is not in order.
        UsageError
            ``folder`` is a URI, or another argument is not one of those above.
        """
        _refuse_uri(str(folder))
        if runtime not in get_args(Runtime):
            raise UsageError(f"runtime: expected one of {', '.join(get_args(Runtime))}, found {runtime!r}")
        if threads < 1:
            raise UsageError(f"threads: expected at least 1, found {threads}")
        bundle = read_bundle(pretrained_folder() if folder == PRETRAINED else Path(folder))
        form = form or choose_form(bundle, runtime=runtime, use_gpu=False)
        predictor = load_predictor(bundle, form=form, threads=threads)
        if tta:
            predictor = TurnedPredictor(predictor, bundle.labels)
        return cls(bundle, predictor, tiling=tiling, nucleus_diameter_px=nucleus_diameter_px)

    def segment(self, image: Pixels) -> Labels:
        """Give the label image ``(H, W) int32`` of a raw image ``(H, W)`` or ``(H, W, 3)``, uint8 or uint16.

        What else is taken for an image is said by :func:`nucseg_ray.imaging.pixels.to_pixels`.

        Raises
        ------
        InputError
            It is not such an image.
        """
        return self._label(self._maps_of([to_pixels(image)])[0])

    def segment_many(self, images: Iterable[Pixels]) -> Iterator[Labels]:
        """Yield the label image of each image, in their order: what :meth:`segment` gives for it.

        Images of many shapes may be mixed. They are taken from the iterable only as they are needed, some four million
        pixels at a time, and as many results are held at most: a generator of any length works. While the network runs,
        the images before are labelled by another thread.

        Raises
        ------
        InputError
            One of them, named by its number from 0, is no image; the labels of those before it are yielded first.
        """
        if isinstance(images, np.ndarray) and (images.ndim < 3 or images.shape[2:] in ((3,), (4,))):
            raise InputError(f"expected images, found one array of shape {images.shape}; pass one image to segment")
        waiting: deque[Future[Labels]] = deque()
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="label")
        try:
            for batch in _batches(images):
                labelled = (
                    [] if isinstance(batch, Exception) else [pool.submit(self._label, m) for m in self._maps_of(batch)]
                )
                while waiting:
                    yield waiting.popleft().result()
                if isinstance(batch, Exception):
                    raise batch
                waiting.extend(labelled)
            while waiting:
                yield waiting.popleft().result()
        finally:  # also where the caller stops early
            pool.shutdown(wait=True, cancel_futures=True)

    def estimate_diameter(self, image: Pixels) -> float | None:
        """Find the typical diameter of the nuclei in an image, in its pixels; None where it shows too few to tell.

        By area: half of what the nuclei cover belongs to nuclei of at most this diameter. It does not depend on
        ``nucleus_diameter_px``.
        """
        return self._network.diameters_of([to_pixels(image)])[0]

    def estimate_diameters(self, images: Sequence[Pixels]) -> list[float | None]:
        """Find what :meth:`estimate_diameter` finds for each image; their tiles go to the network together."""
        return self._network.diameters_of(
            [to_pixels(image, name=f"image {number}") for number, image in enumerate(images)]
        )

    def maps(self, image: Pixels) -> NDArray[np.uint8]:
        """Give the predicted maps ``(H, W, M)`` uint8, value/255 in [0, 1], of a raw image.

        Their pixels are the image's; what they say in pixels is in the network's, see :meth:`maps_of`.
        """
        return self._maps_of([to_pixels(image)])[0].maps

    def maps_of(
        self, images: Sequence[Pixels], *, diameters_px: Sequence[float | None] | None = None
    ) -> list[ScaledMaps]:
        """Give what :meth:`maps` gives for each image, and its scale; tiles of one shape go to the network together.

        ``bundle.labels.label(found.maps, scale=found.scale)`` makes labels of it. ``diameters_px`` are those of the
        nuclei in each image, None where it is to be found; by default ``nucleus_diameter_px`` for all.
        """
        return self._maps_of(
            [to_pixels(image, name=f"image {number}") for number, image in enumerate(images)], diameters_px
        )

    def _maps_of(
        self, images: Sequence[Pixels], diameters_px: Sequence[float | None] | None = None
    ) -> list[ScaledMaps]:
        return self._network.maps_of(images, diameters_px or [self.nucleus_diameter_px] * len(images))

    def _label(self, found: ScaledMaps) -> Labels:
        return self.bundle.labels.label(found.maps, scale=found.scale)


def _batches(images: Iterable[Any]) -> Iterator[list[Pixels] | Exception]:
    """Cut a stream of images into lists of so many pixels together; an error ends it, and comes as the last item."""
    batch: list[Pixels] = []
    n_pixels = 0
    try:
        for number, image in enumerate(images):
            batch.append(to_pixels(image, name=f"image {number}"))
            n_pixels += batch[-1].shape[0] * batch[-1].shape[1]
            if n_pixels >= PIXELS_TOGETHER:
                yield batch
                batch, n_pixels = [], 0
    except Exception as error:  # the caller's own iterator may raise anything
        yield from ([batch] if batch else [])
        yield error
        return
    yield from ([batch] if batch else [])


def _refuse_uri(folder: str) -> None:
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", folder)
    if found:
        raise UsageError(
            f"{folder}: expected a model bundle in a local folder, found a URI; copy it first: "
            f'fsspec.filesystem("{found[1]}").get("{folder.rstrip("/")}/", "model/", recursive=True), then load "model"'
        )
