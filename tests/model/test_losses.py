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


def make(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make targets (a nucleus of 0 and 1, two offsets, contacts of 0 and 1, a weight) and logits for them."""
    rng = np.random.default_rng(seed)
    nucleus = rng.integers(0, 2, (2, 8, 8, 1))
    weight = rng.choice([0, 32, 255], (2, 8, 8, 1)) / 255
    contact = rng.integers(0, 2, (2, 8, 8, 1))
    targets = np.concatenate([nucleus, rng.uniform(0.2, 0.8, (2, 8, 8, 2)), contact, weight], axis=-1)
    return targets, rng.normal(0, 2, (2, 8, 8, 3))


def logits_of(targets: np.ndarray) -> np.ndarray:
    certain = np.clip(targets[..., :-2].astype(np.float64), 1e-9, 1 - 1e-9)
    return np.log(certain / (1 - certain))


def test_a_perfect_prediction_costs_nothing(loss: Any) -> None:
    targets, _ = make()
    assert loss(targets, logits_of(targets)) == pytest.approx(0, abs=1e-5)
    empty = np.zeros((1, 8, 8, 5))
    empty[..., 4] = 1
    assert loss(empty, np.full((1, 8, 8, 3), -30.0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_the_worse_a_map_the_higher_its_loss(loss: Any, channel: int) -> None:
    targets, _ = make()
    logits = np.clip(logits_of(targets), -4, 4)
    losses = []
    for share in (1.0, 0.5, 0.0, -0.5, -1.0):  # from right through unsure to the very opposite
        worse = logits.copy()
        worse[..., channel] *= share
        losses.append(loss(targets, worse))
    assert (np.diff(losses) > 0.01).all()


def test_against_plain_loops(loss: Any) -> None:
    targets, logits = make(1)
    predicted = 1 / (1 + np.exp(-logits))
    entropy, overlap, sizes, diameters = [], 0.0, 0.0, 0.0
    n_nucleus = 0
    for place in np.ndindex(2, 8, 8):
        nucleus, dy, dx, contact, weight = targets[place]
        answer, own_dy, own_dx = predicted[place]
        if weight == 0:
            continue
        entropy.append(-np.log(answer if nucleus else 1 - answer) * (5 if contact else 1))
        overlap += answer * nucleus
        sizes += answer + nucleus
        if nucleus:
            n_nucleus += 1
            pixels = (abs(own_dy - dy) + abs(own_dx - dx)) * 255 * 0.5  # a step is half a pixel
            diameters += pixels / (8 / weight) * (3 if contact else 1)
    expected = sum(entropy) / (len(entropy) + 1) + 1 - (2 * overlap + 1) / (sizes + 1) + diameters / (n_nucleus + 1)
    assert loss(targets, logits) == pytest.approx(expected, rel=1e-5)


def test_the_unknown_does_not_count(loss: Any) -> None:
    targets, logits = make(2)
    other = np.where(targets[..., 4:] == 0, 1 - logits, logits)
    assert (other != logits).any()
    changed = targets.copy()
    changed[..., :4] = np.where(targets[..., 4:] == 0, 1 - targets[..., :4], targets[..., :4])
    assert loss(targets, logits) == pytest.approx(loss(changed, other), rel=1e-6)


def test_a_foreground_map_alone_has_no_offsets(loss: Any) -> None:
    targets, logits = make(3)
    alone = loss(targets[..., [0, 3, 4]], logits[..., :1])
    right = np.concatenate([logits[..., :1], logits_of(targets)[..., 1:]], axis=-1)
    assert alone == pytest.approx(loss(targets, right), rel=1e-5)


def test_certainty_and_errors_stay_finite(loss: Any) -> None:
    targets, _ = make(4)
    assert np.isfinite(loss(targets, np.where(targets[..., :3] > 0.5, -500.0, 500.0)))
