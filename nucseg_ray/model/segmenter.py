"""From pixels to maps and labels with one model: normalise, tile, predict, blend, label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.imaging.codecs import Labels, Pixels, as_rgb
from nucseg_ray.imaging.tiling import Tile, blend, plan_tiles
from nucseg_ray.model.architecture import STRIDE
from nucseg_ray.model.bundle import Bundle, read_bundle
from nucseg_ray.model.predictor import Predictor, load_predictor


@dataclass(frozen=True, slots=True)
class Tiling:
    """Images longer than ``tile_px`` are predicted in overlapping tiles; both in pixels, ``tile_px`` in steps of 32.

    A network call takes one tile at a time: its result then cannot depend on what else is in the batch.
    """

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
    def load(cls, folder: str | Path, *, threads: int = 1, tiling: Tiling = Tiling()) -> Segmenter:
        """Load a bundle from a folder.

        Raises
        ------
        MissingInputError, ModelError
            There is no bundle there, or it is not in order.
        """
        bundle = read_bundle(Path(folder))
        return cls(bundle, load_predictor(bundle, threads=threads), tiling=tiling)

    def segment(self, image: Pixels) -> Labels:
        """Give the label image ``(H, W) int32`` of a raw image ``(H, W)`` or ``(H, W, 3)``, uint8 or uint16."""
        return self.bundle.labels.label(self.maps(image))

    def maps(self, image: Pixels) -> NDArray[np.uint8]:
        """Give the predicted maps ``(H, W, M)`` uint8, value/255 in [0, 1], of a raw image."""
        normalised = self.bundle.normalisation.normalise(image)
        shape = (image.shape[0], image.shape[1])
        tiles = plan_tiles(shape, tile_px=self._tiling.tile_px, overlap_px=self._tiling.overlap_px)
        blended = blend(((tile, self._predict(normalised, tile)) for tile in tiles), shape)
        return np.asarray(np.rint(blended * 255), np.uint8)

    def _predict(self, normalised: NDArray[np.float32], tile: Tile) -> NDArray[np.float32]:
        part = normalised[tile.read.slices]
        height, width = part.shape[:2]
        # Mirrored, not zero: a black border would be the strongest edge in the picture.
        padding = [(0, -height % STRIDE), (0, -width % STRIDE)] + [(0, 0)] * (part.ndim - 2)
        padded = as_rgb(np.pad(part, padding, mode="symmetric"))
        return self._predictor.predict(padded[np.newaxis])[0, :height, :width]
