"""Dynamic loss scaling for float16, whose small gradients would otherwise round to zero."""

from typing import NamedTuple

import tensorflow as tf

INITIAL_SCALE = 2.0**15
GROWTH_STEPS = 2000  # steps without overflow after which the scale doubles


class LossScale(NamedTuple):
    """The factor on the loss (float32 []) and the finite steps since its last change (int32 [])."""

    scale: tf.Tensor
    good_steps: tf.Tensor


def next_loss_scale(now: LossScale, finite: tf.Tensor) -> LossScale:
    """Halve after an overflow, double after GROWTH_STEPS good steps (arXiv 1710.03740, section 3.2)."""
    grown = now.good_steps + 1 >= GROWTH_STEPS
    doubled = tf.where(grown, now.scale * 2.0, now.scale)
    scale = tf.where(finite, doubled, tf.maximum(now.scale / 2.0, 1.0))
    good_steps = tf.where(finite & ~grown, now.good_steps + 1, 0)
    return LossScale(scale, good_steps)
