"""Layer-wise adaptive rate scaling for large batches (arXiv 1708.03888)."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from training.optimizers.optimizer import Slots
from training.step.packed import Packed


@dataclasses.dataclass(frozen=True)
class LARS:
    """Momentum whose rate for each variable follows the ratio of its norm to its gradient's.

    `trust = coefficient |w| / (|g| + decay |w|)`, or 1 for the variables of `unscaled` and where a norm
    is 0; `m = momentum m + rate trust (g + decay w); w -= m`. The weight decay is a part of the trust
    ratio, so it must not be a part of the loss.

    Attributes:
      momentum: in [0, 1).
      coefficient: eta in the paper: how far a variable may move, as a share of its norm.
      unscaled: regular expression of the paths that keep the plain rate.
    """

    momentum: float = 0.9
    coefficient: float = 0.001
    unscaled: str = r".*/(gamma|beta|bias)$"

    couples_decay = False

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
        """Follow algorithm 1 of the paper."""
        size, slope = weights.norms(), Packed(gradient, weights.layout).norms()
        ratio = self.coefficient * size / (slope + decay * size)
        scaled = np.array([re.match(self.unscaled, name) is None for name in weights.names])
        adapts = scaled & (size > 0.0) & (slope > 0.0)
        trust = weights.spread(tf.where(adapts, ratio, 1.0))
        direction = gradient + weights.spread(decay) * weights.vector
        momentum = self.momentum * slots["momentum"] + rate * trust * direction
        return weights.vector - momentum, {"momentum": momentum}
