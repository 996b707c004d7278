"""From pixels to maps and labels with one model: normalise, tile, predict, blend, label.

For notebooks, napari and programs of one's own; the runs use the same. Ray is not needed, and TensorFlow only where it
is what runs the network.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.errors import InputError, UsageError
from nucseg_ray.imaging.codecs import Labels, Pixels
from nucseg_ray.imaging.pixels import to_pixels
from nucseg_ray.imaging.tiling import Tile, blend, plan_tiles
from nucseg_ray.model.architecture import STRIDE
from nucseg_ray.model.bundle import Bundle, read_bundle
from nucseg_ray.model.predictor import Predictor, Runtime, choose_form, load_predictor
from nucseg_ray.model.pretrained import PRETRAINED, pretrained_folder

# So many pixels are handed to the network at a time: enough to keep all its requests busy, few enough to hold.
PIXELS_TOGETHER = 4 << 20
# Tiles have sides of whole steps, a multiple of the network's stride: a runtime compiles it for each shape it meets.
SIDE_STEP_PX = 2 * STRIDE


@dataclass(frozen=True, slots=True)
class Tiling:
    """Images longer than ``tile_px`` are predicted in overlapping tiles; both in pixels, ``tile_px`` in steps of 32."""

    tile_px: int = 1024
    overlap_px: int = 128


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

    def __init__(self, bundle: Bundle, predictor: Predictor, *, tiling: Tiling = Tiling()) -> None:
        """Join a bundle and its running network."""
        self.bundle = bundle
        self._predictor = predictor
        self._tiling = tiling
        self._running = Lock()

    @classmethod
    def load(
        cls,
        folder: str | Path = PRETRAINED,
        *,
        runtime: Runtime = "auto",
        threads: int = 2,
        tiling: Tiling = Tiling(),
        form: str | None = None,
    ) -> Segmenter:
        """Load a bundle from a local folder; without one, the model that comes with the package.

        With ``runtime`` ``auto`` the form of the network that is best on CPUs runs; ``tensorflow`` takes a GPU where it
        sees one. ``threads`` are the network's; by default as many as an actor of a run has, so that labels equal a
        run's bit for bit: with more, sums may be rounded otherwise. ``form`` overrides ``runtime``: the one of the
        bundle's forms that a run has decided on.

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
        return cls(bundle, load_predictor(bundle, form=form, threads=threads), tiling=tiling)

    def segment(self, image: Pixels) -> Labels:
        """Give the label image ``(H, W) int32`` of a raw image ``(H, W)`` or ``(H, W, 3)``, uint8 or uint16.

        What else is taken for an image is said by :func:`nucseg_ray.imaging.pixels.to_pixels`.

        Raises
        ------
        InputError
            It is not such an image.
        """
        return self.bundle.labels.label(self.maps(image))

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
        label = self.bundle.labels.label
        waiting: deque[Future[Labels]] = deque()
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="label")
        try:
            for batch in _batches(images):
                labelled = [] if isinstance(batch, Exception) else [pool.submit(label, m) for m in self._maps_of(batch)]
                while waiting:
                    yield waiting.popleft().result()
                if isinstance(batch, Exception):
                    raise batch
                waiting.extend(labelled)
            while waiting:
                yield waiting.popleft().result()
        finally:  # also where the caller stops early
            pool.shutdown(wait=True, cancel_futures=True)

    def maps(self, image: Pixels) -> NDArray[np.uint8]:
        """Give the predicted maps ``(H, W, M)`` uint8, value/255 in [0, 1], of a raw image."""
        return self._maps_of([to_pixels(image)])[0]

    def maps_of(self, images: Sequence[Pixels]) -> list[NDArray[np.uint8]]:
        """Give what :meth:`maps` gives for each image; tiles of one shape go to the network together."""
        return self._maps_of([to_pixels(image, name=f"image {number}") for number, image in enumerate(images)])

    def _maps_of(self, images: Sequence[Pixels]) -> list[NDArray[np.uint8]]:
        tiling = self._tiling
        plans = [
            plan_tiles((image.shape[0], image.shape[1]), tile_px=tiling.tile_px, overlap_px=tiling.overlap_px)
            for image in images
        ]
        inputs = [self.bundle.normalisation.normalise(image) for image in images]
        by_shape: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for number, tiles in enumerate(plans):
            for position, tile in enumerate(tiles):
                by_shape[_network_shape(tile)].append((number, position))
        predicted: dict[tuple[int, int], NDArray[np.float32]] = {}
        for shape, places in by_shape.items():
            together = max(1, PIXELS_TOGETHER // (shape[0] * shape[1]))
            for chunk in (places[start : start + together] for start in range(0, len(places), together)):
                batch = np.empty((len(chunk), *shape, 3), np.float32)
                for filled, (number, position) in zip(batch, chunk, strict=True):
                    _fill(filled, inputs[number][plans[number][position].read.slices])
                with self._running:
                    predicted.update(zip(chunk, self._predictor.predict(batch), strict=True))
        return [
            _blend(tiles, [predicted[number, position] for position in range(len(tiles))], image)
            for number, (tiles, image) in enumerate(zip(plans, images, strict=True))
        ]


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


def _network_shape(tile: Tile) -> tuple[int, int]:
    """Round a tile's sides up, so that images of many sizes need the network in few shapes."""
    height, width = tile.read.shape
    return height + -height % SIDE_STEP_PX, width + -width % SIDE_STEP_PX


def _fill(filled: NDArray[np.float32], part: NDArray[np.float32]) -> None:
    """Write normalised pixels ``(h, w)`` or ``(h, w, 3)`` into ``(H, W, 3)``, mirrored where they do not reach.

    Not filled up with zeros: a black border would be the strongest edge in the picture.
    """
    short = [(0, filled.shape[0] - part.shape[0]), (0, filled.shape[1] - part.shape[1])] + [(0, 0)] * (part.ndim - 2)
    padded = np.pad(part, short, mode="symmetric") if any(after for _, after in short) else part
    filled[:] = padded if padded.ndim == 3 else padded[:, :, np.newaxis]


def _blend(tiles: Sequence[Tile], predicted: Sequence[NDArray[np.float32]], image: Pixels) -> NDArray[np.uint8]:
    shape = image.shape[0], image.shape[1]
    cut = [maps[: tile.read.shape[0], : tile.read.shape[1]] for tile, maps in zip(tiles, predicted, strict=True)]
    # A single tile is the whole image.
    whole = cut[0] if len(cut) == 1 else blend(zip(tiles, cut, strict=True), shape)
    return np.asarray(np.rint(whole * 255), np.uint8)
