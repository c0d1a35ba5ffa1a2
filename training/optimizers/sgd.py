"""Stochastic gradient descent with momentum."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from training.optimizers.optimizer import Slots, decoupled_decay
from training.step.packed import Packed


@dataclasses.dataclass(frozen=True)
class SGD:
    """`m = momentum m + g; w -= rate m`, or with the rate inside the velocity as in Keras.

    The two differ while the rate changes: TensorFlow 1 applies the present rate to all of the velocity,
    Keras (`v = momentum v - rate g; w += v`) to the newest gradient alone.

    Attributes:
      momentum: in [0, 1).
      nesterov: look ahead along the velocity (as tf.compat.v1.train.MomentumOptimizer does).
      rate_in_velocity: Keras' form.
    """

    momentum: float = 0.9
    nesterov: bool = False
    rate_in_velocity: bool = False

    couples_decay = True

    @property
    def initial_slots(self) -> Mapping[str, float]:
        """The velocity starts at 0."""
        return {"momentum": 0.0}

    @property
    def initial_counts(self) -> Mapping[str, float]:
        """None."""
        return {}

    def update(
        self,
        weights: Packed,
        gradient: tf.Tensor,
        slots: Slots,
        rate: tf.Tensor,
        decay: np.ndarray,
    ) -> tuple[tf.Tensor, Slots]:
        """Take one step along the velocity, or with Nesterov one look ahead of it."""
        if self.rate_in_velocity:
            gradient, rate_of_step = rate * gradient, tf.constant(1.0)
        else:
            rate_of_step = rate
        velocity = self.momentum * slots["momentum"] + gradient
        direction = gradient + self.momentum * velocity if self.nesterov else velocity
        vector = decoupled_decay(weights, rate, decay) - rate_of_step * direction
        return vector, {"momentum": velocity}
