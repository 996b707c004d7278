"""The training loss: cross-entropy on every map, and Dice on the nuclei."""

from __future__ import annotations

import tensorflow as tf

NUCLEUS = 0


def maps_loss(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Give the mean loss of a batch, a scalar.

    ``targets`` are ``(N, H, W, M)`` in [0, 1]; ``logits`` likewise, before the sigmoid; map 0 is the nucleus. The
    cross-entropy of a target between 0 and 1, such as a distance, is least where the prediction equals it; its least
    value is taken off, so that a perfect prediction costs 0. Dice loss (Milletari et al. 2016, arXiv:1606.04797)
    counts over the whole batch: a crop without nuclei then does no harm.
    """
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    least = -(tf.math.xlogy(targets, targets) + tf.math.xlogy(1 - targets, 1 - targets))
    predicted = tf.sigmoid(logits[..., NUCLEUS])
    wanted = targets[..., NUCLEUS]
    overlap = 2 * tf.reduce_sum(predicted * wanted) + 1.0
    dice = overlap / (tf.reduce_sum(predicted) + tf.reduce_sum(wanted) + 1.0)
    return tf.reduce_sum(tf.reduce_mean(entropy - least, axis=[0, 1, 2])) + (1 - dice)
