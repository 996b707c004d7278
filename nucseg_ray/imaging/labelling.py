"""Which nuclei of a label image a run keeps, beyond what its model does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nucseg_ray.imaging.labels import Labels, LabelVariant, Maps


@dataclass(frozen=True, slots=True)
class Labelling:
    """A model's way from maps to labels, and what a run makes otherwise.

    ``min_area_px``, in the image's own pixels, stands for the variant's least area, which is in the network's; with
    ``drop_border``, nuclei that touch the border of the image are left out.
    """

    variant: LabelVariant
    min_area_px: int | None = None
    drop_border: bool = False

    def label(self, maps: Maps, *, scale: float) -> Labels:
        """Turn maps into a label image (H, W) int32, consecutive in raster order; ``scale`` as for the variant."""
        labels = self.variant.label(maps, scale=scale, min_area_px=self.min_area_px)
        return without_border(labels) if self.drop_border else labels


def without_border(labels: Labels) -> Labels:
    """Give a label image (H, W) int32 without the nuclei that have a pixel in its first or last row or column.

    The others are numbered from 1 in the order of their numbers.

    Examples
    --------
    >>> without_border(np.array([[1, 0, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]], np.int32)).tolist()
    [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    """
    kept = np.zeros(int(labels.max(initial=0)) + 1, np.bool_)
    kept[np.unique(labels)] = True
    kept[0] = False
    for side in (labels[:1], labels[-1:], labels[:, :1], labels[:, -1:]):
        kept[side] = False
    number = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return number[labels]
