"""One training worker's network: steps, shared state, and sums over all workers.

Every method marked *collective* must be called by every worker equally often, or the others wait for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from nucseg_ray.model.architecture import Architecture
from nucseg_ray.model.losses import maps_loss
from nucseg_ray.model.unet import Weights, build_unet, get_weights, set_weights

OPTIMISER_PREFIX = "optimiser/"


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate: a linear warm-up, then half a cosine down to nothing (Loshchilov & Hutter 2017).

    The encoder joins after ``frozen_steps``, at ``encoder_share`` of the rate.
    """

    learning_rate: float
    warmup_steps: int
    total_steps: int
    frozen_steps: int
    encoder_share: float = 1.0


class Replica:
    """The network on this worker, kept equal to those of the other workers by TensorFlow's own strategy."""

    def __init__(
        self,
        architecture: Architecture,
        weights: Weights,
        *,
        schedule: Schedule,
        n_workers: int,
        from_scratch: bool = False,
    ) -> None:
        """Build the network with the weights given; with several workers, join them (*collective*)."""
        self._frozen_steps = schedule.frozen_steps
        self._steps = 0
        # The strategy reads TF_CONFIG, which Ray Train set; it must come before any other use of TensorFlow.
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy() if n_workers > 1 else tf.distribute.get_strategy()
        self._n_workers = n_workers
        with self._strategy.scope():
            self._model = build_unet(architecture, from_scratch=from_scratch)
            encoder = self._model.get_layer("encoder").trainable_variables
            of_encoder = {variable.ref() for variable in encoder}
            decoder = [each for each in self._model.trainable_variables if each.ref() not in of_encoder]
            rate = tf_keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=schedule.learning_rate / 100,
                decay_steps=max(1, schedule.total_steps - schedule.warmup_steps),
                warmup_target=schedule.learning_rate,
                warmup_steps=max(1, schedule.warmup_steps),
            )
            self._parts = [_Part(decoder, rate)]
            if schedule.frozen_steps < schedule.total_steps:
                self._parts.append(
                    _Part(encoder, _Late(rate, after=schedule.frozen_steps, share=schedule.encoder_share))
                )
        set_weights(self._model, weights)
        # Evaluated outside the strategy: there, a look at batch-norm statistics would be a collective.
        self._twin = build_unet(architecture)
        self._forward = tf.function(
            lambda images: self._twin(tf.cast(images, tf.float32) / 255.0, training=False), reduce_retracing=True
        )
        self._distributed_step = tf.function(self._run_step, reduce_retracing=True)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        return float(self._parts[0].optimiser.learning_rate.numpy())

    def train_step(self, images: NDArray[np.uint8], targets: NDArray[np.uint8]) -> tf.Tensor:
        """Take one step on this worker's part of the batch; give its loss, a scalar tensor (*collective*)."""
        joined = 1 if self._steps < self._frozen_steps else len(self._parts)
        self._steps += 1
        return self._distributed_step(tf.convert_to_tensor(images), tf.convert_to_tensor(targets), joined)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Give weights and optimiser state, by name (*collective*)."""
        arrays: dict[str, NDArray[np.generic]] = dict(get_weights(self._model))
        for name, variable in self._optimiser_variables().items():
            arrays[name] = np.asarray(variable.numpy())
        return arrays

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from what :meth:`state` gave."""
        set_weights(self._model, network_weights(state))
        for name, variable in self._optimiser_variables().items():
            variable.assign(state[name])
        self._steps = int(self._parts[0].optimiser.iterations.numpy())

    def show(self, weights: Mapping[str, NDArray[np.generic]]) -> None:
        """Set the weights that :meth:`evaluate` uses."""
        set_weights(self._twin, weights)

    def evaluate(self, images: NDArray[np.uint8], targets: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
        """Predict maps ``(N, H, W, M)`` uint8 and the mean loss, on this worker alone."""
        logits = self._forward(tf.convert_to_tensor(images))
        loss = maps_loss(tf.cast(targets, tf.float32) / 255.0, logits)
        maps = tf.cast(tf.round(tf.sigmoid(logits) * 255.0), tf.uint8)
        return maps.numpy(), float(loss.numpy())

    def sum_over_workers(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add up an array over all workers (*collective*)."""
        if self._n_workers == 1:
            return values
        local = self._strategy.run(tf.identity, args=(tf.constant(values, tf.float64),))
        return np.asarray(self._strategy.reduce(tf.distribute.ReduceOp.SUM, local, axis=None).numpy())

    def _optimiser_variables(self) -> dict[str, tf.Variable]:
        variables = [variable for part in self._parts for variable in part.optimiser.variables]
        return {f"{OPTIMISER_PREFIX}{number:04d}": variable for number, variable in enumerate(variables)}

    def _run_step(self, images: tf.Tensor, targets: tf.Tensor, joined: int) -> tf.Tensor:
        return self._strategy.run(self._step, args=(images, targets, joined))

    def _step(self, images: tf.Tensor, targets: tf.Tensor, joined: int) -> tf.Tensor:
        parts = self._parts[:joined]
        with tf.GradientTape() as tape:
            logits = self._model(tf.cast(images, tf.float32) / 255.0, training=True)
            loss = maps_loss(tf.cast(targets, tf.float32) / 255.0, logits)
            # The optimiser adds up the gradients of all workers: each gives its share of the mean.
            share = loss / self._n_workers
        gradients = tape.gradient(share, [part.variables for part in parts])
        for part, of_part in zip(parts, gradients, strict=True):
            part.optimiser.apply_gradients(zip(of_part, part.variables, strict=True))
        return loss


class _Part:
    """A part of the network with an optimiser of its own."""

    def __init__(self, variables: list[tf.Variable], rate: tf_keras.optimizers.schedules.LearningRateSchedule) -> None:
        self.variables = variables
        self.optimiser = tf_keras.optimizers.Adam(rate, clipnorm=1.0)
        self.optimiser.build(variables)


class _Late(tf_keras.optimizers.schedules.LearningRateSchedule):
    """A share of another schedule, begun in its middle."""

    def __init__(
        self, schedule: tf_keras.optimizers.schedules.LearningRateSchedule, *, after: int, share: float
    ) -> None:
        self._schedule = schedule
        self._after = after
        self._share = share

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return self._schedule(step + self._after) * self._share


def network_weights(state: Mapping[str, NDArray[np.generic]]) -> Weights:
    """Give the weights of the network out of a training state."""
    return {
        name: np.asarray(array, np.float32) for name, array in state.items() if not name.startswith(OPTIMISER_PREFIX)
    }
