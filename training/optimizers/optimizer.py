"""The interface of an optimizer: a pure function on packed weights.

Keras' optimizers start RMSProp's mean square at 0 where the reference starts it at 1 (the first step
comes out six times larger), reduce over the replicas themselves, and clip before that. A pure update
can also be compiled ahead of time for a TPU.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import tensorflow as tf

from training.step.packed import Packed

Slots = Mapping[str, tf.Tensor]


class Optimizer(Protocol):
    """Computes new weights and slots from weights, gradient, slots, rate and decay.

    It sees only the trained weights, as one vector with its layout, from which it can take the boundaries
    of the variables (for norms or rates of each).
    """

    @property
    def couples_decay(self) -> bool:
        """Whether weight decay is a part of the loss by default."""

    @property
    def initial_slots(self) -> Mapping[str, float]:
        """Name of each slot and the value it starts from: a float32 vector like the weights."""

    @property
    def initial_counts(self) -> Mapping[str, float]:
        """Name of each float32 scalar that it keeps, such as a count of updates, and its start."""

    def update(
        self,
        weights: Packed,
        gradient: tf.Tensor,
        slots: Slots,
        rate: tf.Tensor,
        decay: np.ndarray,
    ) -> tuple[tf.Tensor, Slots]:
        """Compute one update.

        Args:
          weights: before the update.
          gradient: float32 [elements], of the whole global batch, clipped.
          slots: slots and counts by name.
          rate: learning rate, float32 [] or, where variables have rates of their own, [elements].
          decay: decoupled weight decay of each variable, float32 [variables]; all 0 where the decay is
            part of the loss.

        Returns:
          New weights, float32 [elements], and the slots after the update.
        """


def decoupled_decay(weights: Packed, rate: tf.Tensor, decay: np.ndarray) -> tf.Tensor:
    """Return the weights after `w -= rate decay w` (arXiv 1711.05101): float32 [elements]."""
    if not decay.any():
        return weights.vector
    return weights.vector * (1.0 - rate * weights.spread(decay))
