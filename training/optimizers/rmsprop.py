"""RMSProp as TensorFlow 1 computes it."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from training.optimizers.optimizer import Slots, decoupled_decay
from training.step.packed import Packed


@dataclasses.dataclass(frozen=True)
class RMSProp:
    """Epsilon inside the root, momentum over the scaled rate, mean square from 1.

    Attributes:
      decay: of the mean square, in [0, 1).
      momentum: of the update, in [0, 1).
      epsilon: added to the mean square.
    """

    decay: float = 0.9
    momentum: float = 0.9
    epsilon: float = 1e-3

    couples_decay = True

    @property
    def initial_slots(self) -> Mapping[str, float]:
        """The mean square starts at 1, as in the reference."""
        return {"rms": 1.0, "momentum": 0.0}

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
        """`rms += (g**2 - rms)(1 - decay); m = momentum m + rate g / sqrt(rms + epsilon); w -= m`."""
        rms = slots["rms"] + (tf.square(gradient) - slots["rms"]) * (1.0 - self.decay)
        step = (rate * gradient) / tf.sqrt(rms + self.epsilon)
        momentum = self.momentum * slots["momentum"] + step
        vector = decoupled_decay(weights, rate, decay) - momentum
        return vector, {"rms": rms, "momentum": momentum}
