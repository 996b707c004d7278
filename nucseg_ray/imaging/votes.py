"""Nuclei from votes: every pixel points to the centre of its nucleus; those that point to one place belong together.

Centre offsets as in Neven et al. 2019 (arXiv:1906.11109), gathered as in a Hough transform (Ballard 1981). All sizes
here are parts of the nuclei's own diameter, which the lengths of the offsets tell: in a disc, half of them exceed the
diameter divided by the root of 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int32]

# Votes are counted in cells, so many to a diameter: 8 to 16 give the same nuclei, and fewer cells take less time.
CELLS_PER_DIAMETER = 8
SMOOTHING = 0.14
# Of two heaps of votes nearer than this part of a diameter, the higher one is the centre.
CENTRE_RADIUS = 0.3
_LEAST_DIAMETER_PX = 4.0
# So many tell the length of all, spread over the image.
_ENOUGH_VOTES = 20_000


@dataclass(frozen=True, slots=True)
class _Ballot:
    """Votes ``weight`` (how many) and ``reach_px`` (sum of their lengths) in each cell, and where each voter's went."""

    cell_of: NDArray[np.int32]
    weight: NDArray[np.float32]
    reach_px: NDArray[np.float32]
    cell_px: float
    diameter_px: float


def label_votes(
    voters: NDArray[np.int64],
    dy: NDArray[np.float32],
    dx: NDArray[np.float32],
    *,
    shape: tuple[int, int],
    least_votes: float,
) -> Labels:
    """Give each foreground pixel to a nucleus: ``(H, W)`` int32, each nucleus in one piece by its pixels' sides.

    ``voters (N,)`` are the foreground's pixels, as positions in the flattened image, in raster order; none may lie at
    its border. ``dy`` and ``dx`` say how far each one's centre lies below it and to its right, in pixels.
    A heap of votes is a centre if it holds at least ``least_votes`` of what a disc of its own size would cast. Pixels
    that lie apart from the rest of their nucleus go to one that they touch, or become one of their own.
    """
    labels = np.zeros(shape, np.int32)
    if voters.size:
        ballot = _cast(voters, dy, dx, shape)
        nearest, n_centres = _nearest_centre(ballot, least_votes)
        labels.reshape(-1)[voters] = nearest.reshape(-1)[ballot.cell_of] if n_centres else 1
        _in_one_piece(labels, voters, max(n_centres, 1))
    return labels


def _cast(
    voters: NDArray[np.int64], dy: NDArray[np.float32], dx: NDArray[np.float32], shape: tuple[int, ...]
) -> _Ballot:
    reach = np.sqrt(dy * dy + dx * dx)
    some = reach[:: 1 + reach.size // _ENOUGH_VOTES]
    middle = float(np.partition(some, some.size // 2)[some.size // 2])
    diameter_px = max(_LEAST_DIAMETER_PX, middle * float(np.sqrt(8)))
    cell_px = max(1.0, diameter_px / CELLS_PER_DIAMETER)
    rows, columns = (int(np.ceil(length / cell_px)) for length in shape)
    # Dividing whole numbers takes longer than all the rest of this.
    y = np.floor((voters + 0.5) * (1 / shape[1])).astype(np.float32)
    x = (voters - y.astype(np.int64) * shape[1]).astype(np.float32)
    to_row, to_column = (
        np.clip((start + by + np.float32(0.5)) * np.float32(1 / cell_px), 0, count - 1).astype(np.int32)
        for start, by, count in ((y, dy, rows), (x, dx, columns))
    )
    cell_of = to_row * np.int32(columns) + to_column
    weight, reach_px = (
        np.bincount(cell_of, weights=weights, minlength=rows * columns).reshape(rows, columns).astype(np.float32)
        for weights in (None, reach)
    )
    return _Ballot(cell_of, weight, reach_px, cell_px, diameter_px)


def _nearest_centre(ballot: _Ballot, least_votes: float) -> tuple[Labels, int]:
    """Find the centres; gives each cell the number of the nearest, and how many there are."""
    diameter = ballot.diameter_px / ballot.cell_px
    radius = max(1, round(CENTRE_RADIUS * diameter))
    window = 2 * radius + 1, 2 * radius + 1
    near, near_reach = (
        cv2.boxFilter(votes, -1, window, normalize=False, borderType=cv2.BORDER_CONSTANT)
        for votes in (ballot.weight, ballot.reach_px)
    )
    # A disc's votes are a third of its diameter long, on average. A small nucleus must count as much as a large one.
    disc_px = np.pi / 4 * np.square(np.maximum(3 * near_reach / np.maximum(near, 1), _LEAST_DIAMETER_PX))
    heaps = cv2.GaussianBlur(ballot.weight / disc_px, (0, 0), max(0.8, SMOOTHING * diameter))
    highest = cv2.dilate(heaps, np.ones(window, np.uint8))  # a square: it is separable
    is_centre = (heaps >= highest) & (near >= np.maximum(1, least_votes * disc_px))
    count, centres = cv2.connectedComponents(is_centre.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    if count == 1:
        return centres, 0
    _, zeros = cv2.distanceTransformWithLabels(
        (centres == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    number = np.zeros(int(zeros.max()) + 1, np.int32)
    number[zeros[centres > 0]] = centres[centres > 0]
    return number[zeros], count - 1


def _in_one_piece(labels: Labels, voters: NDArray[np.int64], highest: int) -> None:
    """Leave each nucleus its largest piece, and give what is left to the nuclei it touches, in place.

    First pixel by pixel to their own nucleus, where they touch it, then to any; what touches none becomes a nucleus of
    its own. So every nucleus stays in one piece.
    """
    flat, width = labels.reshape(-1), labels.shape[1]
    nucleus_of = flat[voters]
    _, pieces = cv2.connectedComponents(_without_seams(labels), connectivity=4, ltype=cv2.CV_32S)
    piece_of = pieces.reshape(-1)[voters]
    is_loose = ~_largest_pieces(piece_of, nucleus_of, highest)[piece_of]
    loose, own = voters[is_loose], nucleus_of[is_loose]
    flat[loose] = 0
    steps = (-width, -1, 1, width)
    for only_own in (True, False):
        while loose.size:
            before = loose.size
            for step in steps:
                beside = flat[loose + step]
                joins = beside == own if only_own else beside > 0
                flat[loose[joins]] = beside[joins]
                loose, own = loose[~joins], own[~joins]
            if loose.size == before:
                break
    if loose.size:
        alone = np.zeros(labels.shape, np.uint8)
        alone.reshape(-1)[loose] = 1
        _, islands = cv2.connectedComponents(alone, connectivity=4, ltype=cv2.CV_32S)
        flat[loose] = highest + islands.reshape(-1)[loose]


def _without_seams(labels: Labels) -> NDArray[np.uint8]:
    """Give the pixels of nuclei without those that have another nucleus to their right or below: ``(H, W)`` 0 or 1."""
    kept = labels > 0
    for first, second in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        kept[: first.shape[0], : first.shape[1]] &= (first == second) | (second == 0)
    return kept.view(np.uint8)


def _largest_pieces(piece_of: NDArray[np.int32], nucleus_of: NDArray[np.int32], highest: int) -> NDArray[np.bool_]:
    """Tell of each piece, by number, whether it is the largest of its nucleus; piece 0 is none."""
    area = np.bincount(piece_of)
    area[0] = 0
    nucleus = np.zeros(area.size, np.int32)
    starts = np.flatnonzero(np.diff(piece_of, prepend=0))
    nucleus[piece_of[starts]] = nucleus_of[starts]
    nucleus[0] = 0
    by_area = np.argsort(area, kind="stable")
    largest = np.zeros(highest + 1, np.int64)
    largest[nucleus[by_area]] = by_area  # of repeated indices the last one stays
    is_largest = np.zeros(area.size, np.bool_)
    is_largest[largest] = True
    is_largest[0] = False
    return is_largest
