"""How well predicted label images agree with the truth, nucleus by nucleus and pixel by pixel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_ray.errors import InputError

Counts = NDArray[np.int64]
Scores = NDArray[np.float64]

# In twentieths, so that an IoU is compared with a threshold in whole numbers: 3/5 is never above 0.6 by rounding.
_TWENTIETHS = tuple(range(10, 20))
THRESHOLDS: tuple[float, ...] = tuple(twentieths / 20 for twentieths in _TWENTIETHS)


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What one image, or many added up, has in common with its truth.

    ``tp``, ``fp``, ``fn`` (10,) int64 count nuclei at each of ``THRESHOLDS``; ``iou_sum`` (10,) float64 is the sum of
    the IoU of the matched pairs. The three pixel counts are of foreground. Scores of nothing predicted where nothing is
    are 1; of something where nothing is, or nothing where something is, 0.
    """

    tp: Counts
    fp: Counts
    fn: Counts
    iou_sum: Scores
    intersection_px: int
    truth_px: int
    predicted_px: int

    def __add__(self, other: Matches) -> Matches:
        """Pool two images: every nucleus and every pixel counts the same."""
        return Matches(
            tp=self.tp + other.tp,
            fp=self.fp + other.fp,
            fn=self.fn + other.fn,
            iou_sum=self.iou_sum + other.iou_sum,
            intersection_px=self.intersection_px + other.intersection_px,
            truth_px=self.truth_px + other.truth_px,
            predicted_px=self.predicted_px + other.predicted_px,
        )

    @property
    def n_truth(self) -> int:
        """Number of nuclei in the truth."""
        return int(self.tp[0] + self.fn[0])

    @property
    def n_predicted(self) -> int:
        """Number of nuclei in the prediction."""
        return int(self.tp[0] + self.fp[0])

    @property
    def ap(self) -> Scores:
        """Average precision as the Bowl defines it, TP / (TP + FP + FN), at each threshold (10,)."""
        return self._ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> Scores:
        """Share of the predicted nuclei that are right, at each threshold (10,)."""
        return self._ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> Scores:
        """Share of the true nuclei that were found, at each threshold (10,)."""
        return self._ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> Scores:
        """Harmonic mean of precision and recall, at each threshold (10,)."""
        return self._ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def panoptic_quality(self) -> Scores:
        """F1 times the mean IoU of the matched pairs, at each threshold (10,).

        (Kirillov et al. 2019, arXiv:1801.00868.)
        """
        return self._ratio(2 * self.iou_sum, 2 * self.tp + self.fp + self.fn)

    @property
    def dice(self) -> float:
        """Dice coefficient of the foreground."""
        total_px = self.truth_px + self.predicted_px
        return 2 * self.intersection_px / total_px if total_px else 1.0

    @property
    def pixel_iou(self) -> float:
        """Intersection over union of the foreground."""
        union_px = self.truth_px + self.predicted_px - self.intersection_px
        return self.intersection_px / union_px if union_px else 1.0

    def _ratio(self, part: NDArray[Any], whole: Counts) -> Scores:
        nothing_anywhere = self.n_truth == 0 and self.n_predicted == 0
        empty = np.full(len(THRESHOLDS), 1.0 if nothing_anywhere else 0.0)
        ratios: Scores = np.divide(part, whole, out=empty, where=whole > 0)
        return ratios


def match(truth: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]]) -> Matches:
    """Match the nuclei of two label images (H, W) one to one, at every threshold.

    A pair matches where its IoU is **above** the threshold, as in the Bowl. Labels do not overlap, so above one half a
    nucleus has at most one such partner: the matching is unique and the largest there is, and no assignment
    problem is left to solve. Numbers may have gaps.

    Raises
    ------
    InputError
        The two differ in shape, or hold a negative label.

    Examples
    --------
    >>> truth = np.array([[1, 1, 1, 0, 2]])
    >>> predicted = np.array([[1, 1, 0, 0, 2]])
    >>> match(truth, predicted).tp[:5]
    array([2, 2, 2, 2, 1])
    """
    if truth.shape != predicted.shape:
        raise InputError(f"truth and prediction must have one shape; found {truth.shape} and {predicted.shape}")
    if truth.size and min(truth.min(), predicted.min()) < 0:
        raise InputError("a label image holds 0 for background and positive numbers; found a negative one")
    flat_truth, flat_predicted = truth.ravel().astype(np.int64), predicted.ravel().astype(np.int64)
    truth_areas, predicted_areas = np.bincount(flat_truth), np.bincount(flat_predicted)
    both = (flat_truth > 0) & (flat_predicted > 0)
    pairs, intersections = np.unique(flat_truth[both] * predicted_areas.size + flat_predicted[both], return_counts=True)
    of_truth, of_predicted = np.divmod(pairs, max(predicted_areas.size, 1))
    unions = truth_areas[of_truth] + predicted_areas[of_predicted] - intersections

    hits = 20 * intersections > np.array(_TWENTIETHS)[:, np.newaxis] * unions
    tp = hits.sum(axis=1, dtype=np.int64)
    return Matches(
        tp=tp,
        fp=np.count_nonzero(predicted_areas[1:]) - tp,
        fn=np.count_nonzero(truth_areas[1:]) - tp,
        iou_sum=np.where(hits, intersections / unions, 0.0).sum(axis=1),
        intersection_px=int(np.count_nonzero(both)),
        truth_px=int(truth_areas[1:].sum()),
        predicted_px=int(predicted_areas[1:].sum()),
    )


def pool(matches: Iterable[Matches]) -> Matches:
    """Add up the matches of many images; of none, the matches of an empty image."""
    nothing = np.zeros((0, 0), np.int32)
    return sum(matches, start=match(nothing, nothing))


def bowl_score(matches: Sequence[Matches]) -> float:
    """Score a set of images as the 2018 Data Science Bowl did: mean over images of the mean over thresholds of AP.

    (Caicedo et al. 2019, doi:10.1038/s41592-019-0612-7.)

    Raises
    ------
    InputError
        There is no image to score.
    """
    if not matches:
        raise InputError("the Bowl's score needs at least one image; found none")
    return float(np.mean([image.ap.mean() for image in matches]))
