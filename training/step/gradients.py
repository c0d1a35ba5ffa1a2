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
