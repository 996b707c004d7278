"""The training loss: cross-entropy and Dice on the nuclei, the length of what offsets are wrong by."""

from __future__ import annotations

import tensorflow as tf

NUCLEUS = 0
# Offsets are off by 1 here where they are off by the diameter of a nucleus: a map's range is 255 steps of half a pixel,
# and the weight 1 stands for nuclei of 8 pixels.
DIAMETERS_PER_RANGE = 255 * 0.5 / 8
# So many times more do pixels count where two nuclei meet (as in Ronneberger et al. 2015, arXiv:1505.04597), for the
# nucleus and for the offsets: there it is decided whether they stay two.
CONTACT_NUCLEUS, CONTACT_OFFSETS = 5.0, 3.0


def maps_loss(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Give the mean loss of a batch, a scalar.

    ``targets`` are ``(N, H, W, M + 2)`` in [0, 1]: the maps, where nuclei meet, and a weight; ``logits`` are
    ``(N, H, W, M)``, before the sigmoid. Map 0 is the nucleus, the others are offsets, which count in nuclei only, by
    the weight. Pixels of weight 0 do not count at all. Dice loss (Milletari et al. 2016, arXiv:1606.04797) counts over
    the whole batch: a crop without nuclei then does no harm.
    """
    contact, weight = targets[..., -2], targets[..., -1]
    known = tf.cast(weight > 0, logits.dtype)
    wanted = targets[..., NUCLEUS] * known
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets[..., NUCLEUS], logits=logits[..., NUCLEUS])
    predicted = tf.sigmoid(logits[..., NUCLEUS]) * known
    overlap = 2 * tf.reduce_sum(predicted * wanted) + 1.0
    dice = overlap / (tf.reduce_sum(predicted) + tf.reduce_sum(wanted) + 1.0)
    errors = tf.reduce_sum(tf.abs(tf.sigmoid(logits[..., 1:]) - targets[..., 1:-2]), axis=-1)
    errors *= wanted * weight * (1 + (CONTACT_OFFSETS - 1) * contact)
    offsets = tf.reduce_sum(errors) / (tf.reduce_sum(wanted) + 1.0)
    entropy *= known * (1 + (CONTACT_NUCLEUS - 1) * contact)
    return tf.reduce_sum(entropy) / (tf.reduce_sum(known) + 1.0) + (1 - dice) + DIAMETERS_PER_RANGE * offsets
