"""From pixels to maps and labels with one model: normalise, tile, predict, blend, label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.imaging.codecs import Labels, Pixels
from nucseg_ray.imaging.tiling import Tile, blend, plan_tiles
from nucseg_ray.model.architecture import STRIDE
from nucseg_ray.model.bundle import Bundle, read_bundle
from nucseg_ray.model.predictor import Predictor, choose_form, load_predictor

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

    Examples
    --------
    >>> segmenter = Segmenter.load("model/")  # doctest: +SKIP
    >>> labels = segmenter.segment(image)  # doctest: +SKIP
    """

    def __init__(self, bundle: Bundle, predictor: Predictor, *, tiling: Tiling = Tiling()) -> None:
        """Join a bundle and its running network."""
        self.bundle = bundle
        self._predictor = predictor
        self._tiling = tiling

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        form: str | None = None,
        threads: int = 1,
        tiling: Tiling = Tiling(),
    ) -> Segmenter:
        """Load a bundle from a folder; unless a form of its network is named, the one that is best on CPUs runs.

        Raises
        ------
        MissingInputError, ModelError
            There is no bundle there, or it is not in order.
        """
        bundle = read_bundle(Path(folder))
        form = form or choose_form(bundle, runtime="auto", use_gpu=False)
        return cls(bundle, load_predictor(bundle, form=form, threads=threads), tiling=tiling)

    def segment(self, image: Pixels) -> Labels:
        """Give the label image ``(H, W) int32`` of a raw image ``(H, W)`` or ``(H, W, 3)``, uint8 or uint16."""
        return self.bundle.labels.label(self.maps(image))

    def maps(self, image: Pixels) -> NDArray[np.uint8]:
        """Give the predicted maps ``(H, W, M)`` uint8, value/255 in [0, 1], of a raw image."""
        return self.maps_of([image])[0]

    def maps_of(self, images: Sequence[Pixels]) -> list[NDArray[np.uint8]]:
        """Give what :meth:`maps` gives for each image; tiles of one shape go to the network together."""
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
                predicted.update(zip(chunk, self._predictor.predict(batch), strict=True))
        return [
            _blend(tiles, [predicted[number, position] for position in range(len(tiles))], image)
            for number, (tiles, image) in enumerate(zip(plans, images, strict=True))
        ]


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
