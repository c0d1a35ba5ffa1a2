"""Exponential moving average of weights and batch statistics, with the ramp of the reference."""

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Averaging:
    """Settings of the moving average of a training.

    Attributes:
      decay: in [0, 1); 0 for no average.
      ramp: whether the decay of the first updates is limited to `(1 + t) / (10 + t)`. Without the ramp the
        average stays near the random initial weights for many epochs.
      ramp_start: t at the first update: 1 in the classifiers' reference, 0 in the detector's.
      statistics: whether batch norm's statistics are averaged too, or kept as they are.
    """

    decay: float = 0.9999
    ramp: bool = True
    ramp_start: int = 1
    statistics: bool = True

    def decay_at(self, step: tf.Tensor) -> tf.Tensor:
        """Return the decay, float32 [], of the update that follows `step` (int32 []) others."""
        if not self.ramp:
            return tf.constant(self.decay, tf.float32)
        t = tf.cast(step + self.ramp_start, tf.float32)
        return tf.minimum(self.decay, (1.0 + t) / (10.0 + t))

    def update(
        self, average: tf.Tensor, weights: tf.Tensor, statistics: tf.Tensor, step: tf.Tensor
    ) -> tf.Tensor:
        """Return the average after an update.

        Args:
          average: float32 [weights + statistics].
          weights: float32 [weights], after the update.
          statistics: float32 [statistics], after the update.
          step: int32 [], number of updates before this one.
        """
        decay = self.decay_at(step)
        if self.statistics:
            return ema_update(average, tf.concat([weights, statistics], 0), decay)
        count = weights.shape.num_elements()
        return tf.concat([ema_update(average[:count], weights, decay), statistics], 0)


PUBLISHED_AVERAGING = Averaging()


def ema_update(average: tf.Tensor, value: tf.Tensor, decay: tf.Tensor) -> tf.Tensor:
    """Move `average` towards `value` by `1 - decay`."""
    return average - (average - value) * (1.0 - decay)
