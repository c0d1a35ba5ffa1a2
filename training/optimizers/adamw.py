"""Adam with decoupled weight decay (arXiv 1412.6980, 1711.05101)."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from training.optimizers.optimizer import Slots, decoupled_decay
from training.step.packed import Packed


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam as published: bias-corrected moments, epsilon outside the root.

    Attributes:
      beta_1: decay of the mean gradient, in [0, 1).
      beta_2: decay of the mean square, in [0, 1).
      epsilon: added to the root of the mean square.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    couples_decay = False

    @property
    def initial_slots(self) -> Mapping[str, float]:
        """Both moments start at 0."""
        return {"mean": 0.0, "square": 0.0}

    @property
    def initial_counts(self) -> Mapping[str, float]:
        """Updates made: not the step, since steps that are not finite make none."""
        return {"updates": 0.0}

    def update(
        self,
        weights: Packed,
        gradient: tf.Tensor,
        slots: Slots,
        rate: tf.Tensor,
        decay: np.ndarray,
    ) -> tuple[tf.Tensor, Slots]:
        """Follow algorithm 2 of arXiv 1711.05101, with the schedule inside `rate`."""
        updates = slots["updates"] + 1.0
        mean = slots["mean"] + (gradient - slots["mean"]) * (1.0 - self.beta_1)
        square = slots["square"] + (tf.square(gradient) - slots["square"]) * (1.0 - self.beta_2)
        mean_now = mean / (1.0 - tf.pow(self.beta_1, updates))
        square_now = square / (1.0 - tf.pow(self.beta_2, updates))
        step = rate * mean_now / (tf.sqrt(square_now) + self.epsilon)
        vector = decoupled_decay(weights, rate, decay) - step
        return vector, {"mean": mean, "square": square, "updates": updates}
