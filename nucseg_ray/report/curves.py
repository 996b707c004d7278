"""Curves: how training went, and how the score falls as the demanded overlap rises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from nucseg_ray.errors import UsageError
from nucseg_ray.report.figures import BLUE, FAINT, INK, PALETTE, VERMILION, dress, new_figure, png_bytes

Series = NDArray[np.float64]

_HISTORY_KEYS = ("epoch", "train_loss", "validation_loss", "validation_ap50", "validation_score")


def learning_curves(history: Sequence[Mapping[str, float]]) -> bytes:
    """Draw the course of a training, as PNG bytes.

    One row of ``history`` an epoch, with ``epoch``, ``train_loss``, ``validation_loss``, ``validation_ap50`` and
    ``validation_score`` (other columns are ignored). Left the losses, the gap between them shaded where validation lies
    above train; right the validation scores with the epoch whose weights are kept.

    Raises
    ------
    UsageError
        ``history`` is empty, or a row lacks a column.
    """
    epoch, train, validation, ap50, score = _columns(history)
    best = int(np.nanargmax(score)) if np.isfinite(score).any() else None
    figure = new_figure(width_in=11, height_in=4.2)
    left, right = figure.subplots(1, 2)
    _draw_losses(left, epoch, train, validation)
    dress(left, title="Loss", x_label="epoch", y_label="loss")
    _draw_scores(right, epoch, ap50, score)
    dress(right, title="Validation score", x_label="epoch", y_label="average precision")
    for axes in (left, right):
        axes.set_xlim(epoch[0] - 0.5, epoch[-1] + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if best is not None:
            axes.axvline(epoch[best], color=FAINT, linestyle=":", linewidth=1.2, label=f"best: epoch {epoch[best]:g}")
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return png_bytes(figure)


def ap_curve(thresholds: Sequence[float], ap_of_kind: Mapping[str, Sequence[float]]) -> bytes:
    """Draw average precision against the IoU a match must reach, one line a kind of image, as PNG bytes.

    ``thresholds`` holds T values of IoU; each kind has T values of AP in [0, 1].

    Raises
    ------
    UsageError
        There is no kind, or one has not one value a threshold.
    """
    if not ap_of_kind:
        raise UsageError("ap_curve: expected at least one kind of image, found none; evaluate some images first")
    figure = new_figure(width_in=7, height_in=4.6)
    axes = figure.subplots()
    for index, (kind, values) in enumerate(ap_of_kind.items()):
        if len(values) != len(thresholds):
            raise UsageError(
                f"ap_curve: {kind}: expected {len(thresholds)} values of AP, one a threshold, found {len(values)}"
            )
        # Past the palette the line style tells them apart.
        style = ("-", "--", ":", "-.")[index // len(PALETTE) % 4]
        label = f"{kind}: {values[0]:.2f} at {thresholds[0]:.2f}, mean {np.mean(values):.2f}"
        axes.plot(thresholds, values, style, color=PALETTE[index % len(PALETTE)], marker="o", markersize=4, label=label)
    dress(axes, title="Average precision", x_label="IoU that a match must reach", y_label="AP = TP / (TP + FP + FN)")
    axes.set_ylim(0, 1.02)
    axes.set_xticks(thresholds)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return png_bytes(figure)


def _columns(history: Sequence[Mapping[str, float]]) -> tuple[Series, ...]:
    if not history:
        raise UsageError("learning_curves: expected at least one epoch, found none; train first")
    for number, row in enumerate(history, start=1):
        missing = [key for key in _HISTORY_KEYS if key not in row]
        if missing:
            raise UsageError(f"learning_curves: row {number} of the history lacks {', '.join(missing)}")
    return tuple(np.array([row[key] for row in history], np.float64) for key in _HISTORY_KEYS)


def _draw_losses(axes: Axes, epoch: Series, train: Series, validation: Series) -> None:
    marker = "o" if len(epoch) < 40 else ""
    axes.plot(epoch, train, color=BLUE, marker=marker, markersize=3.5, label="train")
    axes.plot(epoch, validation, color=VERMILION, marker=marker, markersize=3.5, label="validation")
    above = validation > train
    if above.any():
        label = "gap: overfitting"
        axes.fill_between(
            epoch,
            train,
            validation,
            where=above.tolist(),
            interpolate=True,
            alpha=0.15,
            lw=0,
            color=VERMILION,
            label=label,
        )
    gap = validation[-1] - train[-1]
    if np.isfinite(gap):
        axes.annotate(
            "",
            xy=(epoch[-1], train[-1]),
            xytext=(epoch[-1], validation[-1]),
            arrowprops={"arrowstyle": "<->", "color": INK, "linewidth": 1, "shrinkA": 0, "shrinkB": 0},
        )
        axes.annotate(
            f"gap {gap:+.3f}".replace("-", "−"),
            xy=(epoch[-1], (train[-1] + validation[-1]) / 2),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    losses = np.concatenate([train, validation])
    axes.set_ylim(0, 1.08 * max(losses[np.isfinite(losses)], default=1))


def _draw_scores(axes: Axes, epoch: Series, ap50: Series, score: Series) -> None:
    marker = "o" if len(epoch) < 40 else ""
    axes.plot(epoch, ap50, color=BLUE, marker=marker, markersize=3.5, label="AP at IoU 0.50")
    axes.plot(epoch, score, color=PALETTE[2], marker=marker, markersize=3.5, label="mean AP, IoU 0.50 to 0.95")
    axes.set_ylim(0, 1.02)
