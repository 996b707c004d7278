"""Curves: what must show in the pictures, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from nucseg_ray.errors import UsageError
from nucseg_ray.imaging.codecs import decode_image
from nucseg_ray.report.curves import ap_curve, learning_curves

THRESHOLDS = np.arange(0.5, 1.0, 0.05).tolist()
BLUE = (0, 114, 178)
VERMILION = (213, 94, 0)
GREEN = (0, 158, 115)
SHADE = (249, 231, 217)  # vermilion at 15 % over white


def _count(png, rgb):
    return int((np.abs(decode_image(png, name="picture").astype(int) - rgb).max(axis=-1) <= 1).sum())


def _history(epochs, *, gap):
    return [
        {
            "epoch": epoch,
            "train_loss": 1 / epoch,
            "validation_loss": 1 / epoch + gap,
            "validation_ap50": 1 - 1 / (epoch + 1),
            "validation_score": 0.5 - 0.5 / epoch,
            "learning_rate": 0.001,
            "seconds": 60.0,
        }
        for epoch in range(1, epochs + 1)
    ]


def test_the_gap_is_shaded_where_validation_lies_above_train():
    overfit = learning_curves(_history(10, gap=0.3))
    narrower = learning_curves(_history(10, gap=0.1))
    below = learning_curves(_history(10, gap=-0.05))
    assert _count(overfit, SHADE) > 1.5 * _count(narrower, SHADE) > 1000
    assert _count(below, SHADE) < 100  # where lines are blended with white


def test_every_line_is_drawn():
    picture = learning_curves(_history(10, gap=0.3))
    for colour in (BLUE, VERMILION, GREEN):
        assert _count(picture, colour) > 300


@pytest.mark.parametrize("epochs", [1, 2, 60])
def test_any_number_of_epochs(epochs):
    assert decode_image(learning_curves(_history(epochs, gap=0.1)), name="curves").shape == (504, 1320, 3)


def test_epochs_without_a_number_leave_a_hole():
    history = _history(5, gap=0.2)
    history[-1] |= {"validation_loss": float("nan"), "validation_score": float("nan"), "validation_ap50": float("nan")}
    assert learning_curves(history) != learning_curves(_history(5, gap=0.2))
    nothing = [row | {"validation_loss": float("nan"), "validation_score": float("nan")} for row in history]
    assert _count(learning_curves(nothing), SHADE) < 100


def test_the_same_history_gives_the_same_bytes():
    assert learning_curves(_history(4, gap=0.1)) == learning_curves(_history(4, gap=0.1))


def test_a_history_that_cannot_be_drawn_is_refused():
    with pytest.raises(UsageError, match="at least one epoch, found none"):
        learning_curves([])
    history = _history(3, gap=0.1)
    del history[1]["validation_loss"]
    with pytest.raises(UsageError, match="row 2 of the history lacks validation_loss"):
        learning_curves(history)


def test_one_line_a_kind():
    falling = np.linspace(0.9, 0.2, 10)
    one = ap_curve(THRESHOLDS, {"all": falling})
    two = ap_curve(THRESHOLDS, {"all": falling, "fluorescence": falling / 2})
    assert _count(one, BLUE) > 300
    assert _count(one, VERMILION) == 0
    assert _count(two, VERMILION) > 300


def test_more_kinds_than_colours():
    many = {f"kind {number}": np.full(10, number / 20) for number in range(16)}
    assert decode_image(ap_curve(THRESHOLDS, many), name="ap").shape == (552, 840, 3)


def test_ap_that_cannot_be_drawn_is_refused():
    with pytest.raises(UsageError, match="at least one kind of image, found none"):
        ap_curve(THRESHOLDS, {})
    with pytest.raises(UsageError, match="histology: expected 10 values of AP, one a threshold, found 9"):
        ap_curve(THRESHOLDS, {"histology": np.zeros(9)})
