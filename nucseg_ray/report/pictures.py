"""Images with the outlines of their nuclei: one site, or the same images before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from nucseg_ray.errors import UsageError
from nucseg_ray.imaging.codecs import Labels, Pixels
from nucseg_ray.imaging.normalise import Percentile
from nucseg_ray.report.figures import FAINT, INK, ORANGE, SKY, new_figure, png_bytes

Sample = tuple[Pixels, Labels, Labels, Labels]

_COLUMNS = (("input", ""), ("truth", SKY), ("before training", ORANGE), ("after training", ORANGE))
_CELL_IN = 3.0
_CELL_PX = 512
_DARK_FIELD = 0.25
_DARK_FIELD_GAMMA = 0.6


def overlay(image: Pixels, labels: Labels, *, colour: str = ORANGE, width_px: int = 1) -> NDArray[np.uint8]:
    """Draw the outlines of nuclei over an image stretched for the eye.

    ``image`` is (H, W) or (H, W, 3), uint8 or uint16; ``labels`` (H, W). Returns (H, W, 3) uint8 RGB. An outline lies
    inside its nucleus and is ``width_px`` wide, so touching nuclei show a line between them.

    Raises
    ------
    UsageError
        ``labels`` has another height or width than ``image``.
    """
    _check_shapes("overlay", image, labels)
    return _draw(_for_the_eye(image), labels, colour=colour, width_px=width_px)


def before_after_picture(samples: Sequence[Sample]) -> bytes:
    """Show the same images before and after training, as PNG bytes.

    Each sample is ``(image, truth, before, after)``: an image as in :func:`overlay` and three label images of its size.
    One row a sample; the columns are the input, the truth, and what the model found before and after.

    Raises
    ------
    UsageError
        There is no sample, or the arrays of one differ in height or width.
    """
    if not samples:
        raise UsageError("before_after_picture: expected at least one sample, found none; give validation images")
    heights = [_CELL_IN * image.shape[0] / image.shape[1] for image, *_ in samples]
    figure = new_figure(width_in=_CELL_IN * len(_COLUMNS), height_in=sum(heights) + 0.32 * len(samples) + 0.3)
    grid = figure.subplots(len(samples), len(_COLUMNS), squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, (image, *found) in zip(grid, samples, strict=True):
        seen = _at_cell_size(_for_the_eye(image))
        row[0].imshow(seen)
        _caption(row[0], f"{image.shape[0]} × {image.shape[1]} px, {image.dtype}")
        for axes, labels, (_, colour) in zip(row[1:], found, _COLUMNS[1:], strict=True):
            _check_shapes("before_after_picture", image, labels)
            axes.imshow(_draw(seen, _at_cell_size(labels), colour=colour, width_px=2))
            count = np.count_nonzero(np.unique(labels))
            _caption(axes, "1 nucleus" if count == 1 else f"{count} nuclei")
    for axes, (title, _) in zip(grid[0], _COLUMNS, strict=True):
        axes.set_title(title, fontsize=12, fontweight="bold", color=INK)
    return png_bytes(figure)


def _check_shapes(caller: str, image: Pixels, labels: Labels) -> None:
    if image.shape[:2] != labels.shape:
        raise UsageError(
            f"{caller}: expected labels of {image.shape[0]} x {image.shape[1]} like their image, "
            f"found {' x '.join(map(str, labels.shape))}; give the labels of this very image"
        )


def _caption(axes: Axes, text: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_xlabel(text, fontsize=9, color=FAINT, labelpad=3)


def _for_the_eye(image: Pixels) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8, stretched as the network's input is: what is flat there is flat here.

    A dark field is brightened further, or its dim nuclei would be outlines around nothing.
    """
    stretched = Percentile().normalise(image)
    if np.median(stretched) < _DARK_FIELD:
        stretched = stretched**_DARK_FIELD_GAMMA
    eight_bits: NDArray[np.uint8] = np.rint(255 * stretched).astype(np.uint8)
    return eight_bits if eight_bits.ndim == 3 else np.repeat(eight_bits[:, :, np.newaxis], 3, axis=2)


def _draw(seen: NDArray[np.uint8], labels: Labels, *, colour: str, width_px: int) -> NDArray[np.uint8]:
    drawn = seen.copy()
    drawn[_outlines(labels, width_px=width_px)] = np.rint(255 * np.array(to_rgb(colour)))
    return drawn


def _at_cell_size(array: NDArray[Any]) -> NDArray[Any]:
    """Repeat or drop pixels until the longer side is near the size of a cell.

    Outlines are drawn afterwards: drawn on a large image they would vanish when it is shrunk, and on a small one they
    would hide the nuclei.
    """
    longer = max(array.shape[:2])
    if longer > _CELL_PX:
        step = round(longer / _CELL_PX)
        return array[::step, ::step]
    repeats = _CELL_PX // longer
    return array.repeat(repeats, axis=0).repeat(repeats, axis=1)


def _outlines(labels: Labels, *, width_px: int) -> NDArray[np.bool_]:
    """Return (H, W) true where a pixel of a nucleus has another label within ``width_px`` beside, over or under it."""
    edge = np.zeros(labels.shape, bool)
    for shift in range(1, width_px + 1):
        vertical = labels[shift:] != labels[:-shift]
        edge[shift:] |= vertical
        edge[:-shift] |= vertical
        horizontal = labels[:, shift:] != labels[:, :-shift]
        edge[:, shift:] |= horizontal
        edge[:, :-shift] |= horizontal
    return edge & (labels > 0)
