"""Exponential moving average of weights and batch statistics, with the ramp of the reference."""

import tensorflow as tf


def ema_decay(step: tf.Tensor, *, decay: float, ramp: bool) -> tf.Tensor:
    """Return the decay of an update: `decay`, or with `ramp` at most `(1 + step) / (10 + step)`.

    Without the ramp the average stays near the random initial weights for many epochs.

    Args:
      step: int32 [], number of steps made, this one included.
      decay: decay in [0, 1).
      ramp: whether to limit the decay in the first steps.

    Returns:
      float32 [].
    """
    if not ramp:
        return tf.constant(decay, tf.float32)
    step = tf.cast(step, tf.float32)
    return tf.minimum(decay, (1.0 + step) / (10.0 + step))


def ema_update(average: tf.Tensor, value: tf.Tensor, decay: tf.Tensor) -> tf.Tensor:
    """Move `average` towards `value` by `1 - decay`."""
    return average - (average - value) * (1.0 - decay)
