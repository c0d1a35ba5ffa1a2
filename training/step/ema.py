"""Exponential moving average of weights and batch statistics, with the ramp of the reference."""

import tensorflow as tf


def ema_decay(step: tf.Tensor, *, decay: float, ramp: bool) -> tf.Tensor:
    """The decay at an update: `decay`, or with `ramp` at most `(1 + step) / (10 + step)`.

    Without the ramp the average stays near the random start for many epochs.

    Args:
      step: int32 [], updates made before this one... see `training.step` for which step counts.
      decay: in [0, 1).
      ramp: whether the average follows quickly at first.

    Returns:
      float32 [].
    """
    if not ramp:
        return tf.constant(decay, tf.float32)
    step = tf.cast(step, tf.float32)
    return tf.minimum(decay, (1.0 + step) / (10.0 + step))


def ema_update(average: tf.Tensor, value: tf.Tensor, decay: tf.Tensor) -> tf.Tensor:
    """`average` moved towards `value` by `1 - decay`."""
    return average - (average - value) * (1.0 - decay)
