"""Gradient clipping, between the all-reduce and the optimizer."""

import tensorflow as tf

from training.step.packed import Packed


def clip_by_norm(gradient: tf.Tensor, norm: tf.Tensor, limit: float | None) -> tf.Tensor:
    """Scale `gradient`, of this float32 [] `norm`, so that its norm is at most `limit` (None: leave it).

    For the gradient of all weights after the all-reduce: replicas that clip their own shares do not add
    up to a clipped sum.
    """
    return gradient if limit is None else gradient * (limit / tf.maximum(norm, limit))


def clip_each(gradient: Packed, limit: float | None) -> tf.Tensor:
    """Scale the gradient of each variable so that its norm is at most `limit` (None: leave it)."""
    if limit is None:
        return gradient.vector
    return gradient.vector * gradient.spread(limit / tf.maximum(gradient.norms(), limit))


def clip(
    gradient: Packed, norm: tf.Tensor, *, each: float | None, whole: float | None
) -> tf.Tensor:
    """Clip the gradient of each variable, and then all of it: the order of the published detection code.

    Args:
      gradient: of the trained weights.
      norm: of all of it, float32 [].
      each: limit of the norm of each variable's gradient; None: none.
      whole: limit of the norm of all of it; None: none.
    """
    if each is None:
        return clip_by_norm(gradient.vector, norm, whole)
    vector = clip_each(gradient, each)
    return clip_by_norm(vector, tf.norm(vector), whole)
