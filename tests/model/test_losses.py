"""The training loss, against exact numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def loss() -> Any:
    import tensorflow as tf

    from nucseg_ray.model.losses import maps_loss

    return lambda targets, logits: float(maps_loss(tf.constant(targets, tf.float32), tf.constant(logits, tf.float32)))


def maps(seed: int = 0) -> np.ndarray:
    """Make targets: a nucleus of 0 and 1, a distance between them."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, 2, (2, 8, 8)), rng.uniform(0.02, 0.98, (2, 8, 8))], axis=-1).astype(np.float32)


def logits_of(targets: np.ndarray) -> np.ndarray:
    certain = np.clip(targets.astype(np.float64), 1e-9, 1 - 1e-9)
    return np.log(certain / (1 - certain))


def test_a_perfect_prediction_costs_nothing(loss: Any) -> None:
    assert loss(maps(), logits_of(maps())) == pytest.approx(0, abs=1e-5)
    empty = np.zeros((1, 8, 8, 2))
    assert loss(empty, np.full_like(empty, -30.0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("channel", [0, 1])
def test_the_worse_a_map_the_higher_its_loss(loss: Any, channel: int) -> None:
    logits = logits_of(np.clip(maps(), 0.01, 0.99))
    losses = []
    for share in (1.0, 0.5, 0.0, -0.5, -1.0):  # from right through unsure to the very opposite
        worse = logits.copy()
        worse[..., channel] *= share
        losses.append(loss(maps(), worse))
    assert (np.diff(losses) > 0.01).all()


def test_it_is_cross_entropy_above_its_least_and_dice(loss: Any) -> None:
    targets, logits = maps(1).astype(np.float64), np.random.default_rng(2).normal(0, 2, (2, 8, 8, 2))
    predicted = 1 / (1 + np.exp(-logits))
    divergence = np.where(targets > 0, targets * np.log(np.maximum(targets, 1e-300) / predicted), 0) + np.where(
        targets < 1, (1 - targets) * np.log(np.maximum(1 - targets, 1e-300) / (1 - predicted)), 0
    )
    wanted, nucleus = targets[..., 0], predicted[..., 0]
    dice = (2 * (wanted * nucleus).sum() + 1) / (wanted.sum() + nucleus.sum() + 1)
    assert loss(targets, logits) == pytest.approx(divergence.mean(axis=(0, 1, 2)).sum() + 1 - dice, rel=1e-4)


def test_certainty_and_errors_stay_finite(loss: Any) -> None:
    targets = np.tile(np.float32([0, 1]), 64).reshape(1, 8, 8, 2)
    assert np.isfinite(loss(targets, np.where(targets > 0, -500.0, 500.0)))
