"""The size at which the network sees an image: by a known diameter of its nuclei, or by one that it finds itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nucseg_ray.imaging.codecs import Pixels
from nucseg_ray.imaging.diameters import believed_diameter
from nucseg_ray.imaging.labels import LabelVariant
from nucseg_ray.imaging.rescale import affordable, scale_for
from nucseg_ray.model.tiled_network import Maps, TiledNetwork

MOST_PASSES = 3
# An estimate stands if the scale that it asks for is within this factor of the one that it was made at.
NEAR = 1.5
# While the size is looked for, nuclei of fewer pixels do not count; no more, whatever labels ask for: the first pass
# may see them much smaller than the network knows them.
LOOKED_AT_PX = 20


@dataclass(frozen=True, slots=True)
class ScaledMaps:
    """Maps ``(H, W, M)`` uint8 of an image, at its own size, by a network that saw it ``scale`` times larger.

    ``diameter_px`` is the diameter of nuclei, in the image's pixels, that the scale was chosen for; None where no
    nuclei were found to choose it by, which leaves it at 1.
    """

    maps: Maps
    scale: float
    diameter_px: float | None


@dataclass(slots=True)
class _Search:
    """The diameter of one image's nuclei, as far as it is known, and the maps that were made on the way, by scale."""

    shape: tuple[int, ...]
    model_diameter_px: float
    diameter_px: float | None = None
    passes: dict[float, Maps] = field(default_factory=dict)
    next_scale: float | None = 1.0

    @property
    def scale(self) -> float:
        """The scale that the diameter asks for."""
        if self.diameter_px is None:
            return 1.0
        return affordable(scale_for(self.diameter_px, self.model_diameter_px), self.shape)

    def learn(self, maps: Maps, variant: LabelVariant) -> None:
        """Take the maps of the pass at ``next_scale``, and say whether there is to be another.

        The last pass is believed, also where it finds nothing: then what the one before had found was no nuclei, or is
        lost at the scale that it asked for.
        """
        seen_at = self.next_scale or 1.0
        self.passes[seen_at] = maps
        labels = variant.label(maps, scale=seen_at)
        self.diameter_px = believed_diameter(labels, model_diameter_px=self.model_diameter_px)
        wanted = self.scale
        is_settled = self.diameter_px is None or wanted in self.passes or 1 / NEAR <= wanted / seen_at <= NEAR
        self.next_scale = None if is_settled or len(self.passes) == MOST_PASSES else wanted


class ScaledNetwork:
    """A network that sees images at the size that its training asks for."""

    def __init__(self, network: TiledNetwork, variant: LabelVariant, *, model_diameter_px: float) -> None:
        self._network = network
        self._variant = replace(variant, min_area_px=min(variant.min_area_px, LOOKED_AT_PX))
        self._model_diameter_px = model_diameter_px

    def diameters_of(self, images: Sequence[Pixels]) -> list[float | None]:
        """Estimate the diameter of each image's nuclei, in its pixels; None where it shows too few."""
        return [search.diameter_px for search in self._searched(images)]

    def maps_of(self, images: Sequence[Pixels], diameters: Sequence[float | None]) -> list[ScaledMaps]:
        """Predict images whose nuclei have these diameters, None where it is to be found."""
        known = [
            _Search(image.shape, self._model_diameter_px, diameter)
            for image, diameter in zip(images, diameters, strict=True)
        ]
        unknown = [number for number, diameter in enumerate(diameters) if diameter is None]
        searches = dict(enumerate(known))
        searches |= dict(zip(unknown, self._searched([images[number] for number in unknown]), strict=True))
        missing = [number for number, search in searches.items() if search.scale not in search.passes]
        scales = [searches[number].scale for number in missing]
        predicted = self._network.maps_of([images[number] for number in missing], scales)
        for number, scale, maps in zip(missing, scales, predicted, strict=True):
            searches[number].passes[scale] = maps
        return [
            ScaledMaps(search.passes[search.scale], search.scale, search.diameter_px) for search in searches.values()
        ]

    def _searched(self, images: Sequence[Pixels]) -> list[_Search]:
        """Look for the diameters of all images together, so that the network gets many tiles at a time."""
        searches = [_Search(image.shape, self._model_diameter_px) for image in images]
        while open_ones := [number for number, search in enumerate(searches) if search.next_scale is not None]:
            scales = [searches[number].next_scale or 1.0 for number in open_ones]
            for number, maps in zip(
                open_ones, self._network.maps_of([images[number] for number in open_ones], scales), strict=True
            ):
                searches[number].learn(maps, self._variant)
        return searches
