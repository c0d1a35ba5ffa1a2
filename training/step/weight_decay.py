"""Weight decay: its rate and its variables, as a part of the loss or decoupled from it."""

import dataclasses
import re
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

NOT_BATCH_NORM = r"(?!.*/(gamma|beta)$)"  # V1: biases are decayed too


@dataclasses.dataclass(frozen=True)
class WeightDecay:
    """Decay of the variables whose path matches `pattern` from its beginning.

    Attributes:
      rate: factor of `sum(w**2) / 2` in the loss, or of `learning rate * w` in an update.
      coupled: whether it is a term of the loss (L2, as published) or applied by the optimizer.
      pattern: regular expression of the paths that are decayed.
    """

    rate: float = 1e-5
    coupled: bool = True
    pattern: str = NOT_BATCH_NORM

    def applies(self, path: str) -> bool:
        """Return whether the variable of this path is decayed."""
        return re.match(self.pattern, path) is not None

    def loss(self, paths: Sequence[str], weights: Sequence[tf.Tensor]) -> tf.Tensor | float:
        """Return the term of the loss: float32 [], or 0.0 when no decay is coupled to it."""
        decayed = [w for path, w in zip(paths, weights, strict=True) if self.applies(path)]
        if not self.coupled or not decayed:
            return 0.0
        return self.rate * l2_loss(decayed)

    def decoupled_rates(self, paths: Sequence[str]) -> np.ndarray:
        """Return the decay that the optimizer applies to each variable: float32 [variables]."""
        rate = 0.0 if self.coupled else self.rate
        return np.array([rate * self.applies(path) for path in paths], np.float32)


PUBLISHED_DECAY = WeightDecay()


def l2_loss(weights: Iterable[tf.Tensor]) -> tf.Tensor:
    """Sum of w**2 / 2 over all elements of `weights`: float32 []."""
    return tf.add_n([tf.nn.l2_loss(w) for w in weights])
