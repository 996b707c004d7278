"""A network for raw images of any size: normalise, rescale, tile, predict, blend, and back to the image's size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.imaging.codecs import Pixels
from nucseg_ray.imaging.normalise import Normalisation
from nucseg_ray.imaging.rescale import brought_back, rescaled
from nucseg_ray.imaging.tiling import Tile, blend, plan_tiles
from nucseg_ray.model.architecture import STRIDE
from nucseg_ray.model.predictor import Predictor

Maps = NDArray[np.uint8]

# So many pixels are handed to the network at a time: enough to keep all its requests busy, few enough to hold.
PIXELS_TOGETHER = 4 << 20
# Maps in float32 are held of about so many pixels.
PIXELS_HELD = 16 << 20
# Tiles have sides of whole steps, a multiple of the network's stride: a runtime compiles it for each shape it meets.
SIDE_STEP_PX = 2 * STRIDE


@dataclass(frozen=True, slots=True)
class Tiling:
    """Images longer than ``tile_px`` are predicted in overlapping tiles; both in the network's pixels.

    ``tile_px`` comes in steps of 32. The network's pixels are the image's where it is not rescaled.
    """

    tile_px: int = 1024
    overlap_px: int = 128


DEFAULT_TILING = Tiling()


class TiledNetwork:
    """A running network with its preprocessing. Threads may share it: it runs for one of them at a time."""

    def __init__(self, predictor: Predictor, normalisation: Normalisation, *, tiling: Tiling) -> None:
        self._predictor = predictor
        self._normalisation = normalisation
        self._tiling = tiling
        self._running = Lock()

    def maps_of(self, images: Sequence[Pixels], scales: Sequence[float]) -> list[Maps]:
        """Give the maps ``(H, W, M)`` uint8 of each image, seen by the network so many times larger.

        Tiles of one shape go to the network together; what an image becomes does not depend on the others.
        """
        return [maps for lot in _lots(images, scales) for maps in self._maps_of_lot(*lot)]

    def _maps_of_lot(self, images: Sequence[Pixels], scales: Sequence[float]) -> Iterator[Maps]:
        tiling = self._tiling
        inputs = [
            rescaled(self._normalisation.normalise(image), scale) for image, scale in zip(images, scales, strict=True)
        ]
        plans = [
            plan_tiles((pixels.shape[0], pixels.shape[1]), tile_px=tiling.tile_px, overlap_px=tiling.overlap_px)
            for pixels in inputs
        ]
        predicted = self._predict(inputs, plans)
        for number, image in enumerate(images):
            maps = [predicted.pop((number, position)) for position in range(len(plans[number]))]
            blended = _blend(plans[number], maps, (inputs[number].shape[0], inputs[number].shape[1]))
            yield np.asarray(np.rint(brought_back(blended, (image.shape[0], image.shape[1])) * 255), np.uint8)

    def _predict(
        self, inputs: Sequence[NDArray[np.float32]], plans: Sequence[Sequence[Tile]]
    ) -> dict[tuple[int, int], NDArray[np.float32]]:
        """Give the maps of each tile, by the number of its image and its own."""
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
        return predicted


def _lots(images: Sequence[Pixels], scales: Sequence[float]) -> Iterator[tuple[list[Pixels], list[float]]]:
    """Cut images into lots that give so many of the network's pixels, or of one image."""
    lot: tuple[list[Pixels], list[float]] = [], []
    n_pixels = 0.0
    for image, scale in zip(images, scales, strict=True):
        own = image.shape[0] * image.shape[1] * scale**2
        if lot[0] and n_pixels + own > PIXELS_HELD:
            yield lot
            lot, n_pixels = ([], []), 0.0
        lot[0].append(image)
        lot[1].append(scale)
        n_pixels += own
    if lot[0]:
        yield lot


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


def _blend(
    tiles: Sequence[Tile], predicted: Sequence[NDArray[np.float32]], shape: tuple[int, int]
) -> NDArray[np.float32]:
    cut = [maps[: tile.read.shape[0], : tile.read.shape[1]] for tile, maps in zip(tiles, predicted, strict=True)]
    # A single tile is the whole image.
    return cut[0] if len(cut) == 1 else blend(zip(tiles, cut, strict=True), shape)
