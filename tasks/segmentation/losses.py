"""Losses of each pixel, and losses of the overlap in the whole batch.

Deviation from segmentation_models (commit 5d24bbf): cross entropy and focal loss are sums over classes, as in
the other tasks, not means, and so larger by the number of classes.
"""

from typing import NamedTuple

import tensorflow as tf

SMOOTH = 1e-5  # of the overlap losses, added to numerator and denominator
LEAST_PROBABILITY = 1e-7  # as Keras clips; the gradient beyond is 0


class Overlaps(NamedTuple):
    """Sums over the valid pixels of a batch, float32 [classes] each.

    Attributes:
      both: of the probability at the pixels of the class.
      predicted: of the probability at all pixels.
      true: number of pixels of the class.
    """

    both: tf.Tensor
    predicted: tf.Tensor
    true: tf.Tensor


def cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, *, label_smoothing: float = 0.0
) -> tf.Tensor:
    """Compute the softmax cross entropy of every pixel.

    Args:
      logits: float32 [..., classes].
      labels: int32 [...] in [0, classes).
      label_smoothing: in [0, 1); the share of the target spread evenly over all classes.

    Returns:
      float32 [...].
    """
    own = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if not label_smoothing:
        return own
    of_all = tf.reduce_logsumexp(logits, -1) - tf.reduce_mean(logits, -1)
    return own * (1.0 - label_smoothing) + of_all * label_smoothing


def focal_loss(
    logits: tf.Tensor, labels: tf.Tensor, *, alpha: float = 0.25, gamma: float = 2.0
) -> tf.Tensor:
    """Compute the focal loss (arXiv 1708.02002) of every pixel: -alpha (1 - p)^gamma log p of its class.

    Args and returns as `cross_entropy`.
    """
    own = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    probability = tf.clip_by_value(tf.exp(-own), LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY)
    return alpha * (1.0 - probability) ** gamma * own


def overlaps(logits: tf.Tensor, labels: tf.Tensor, valid: tf.Tensor) -> Overlaps:
    """Sum probabilities over the pixels of a batch by class.

    Args:
      logits: float32 [b, H, W, classes].
      labels: int32 [b, H, W] in [0, classes), any value where not valid.
      valid: float32 [b, H, W], 1 where the pixel counts, else 0.
    """
    classes = logits.shape[-1]
    rows = tf.reshape(tf.nn.softmax(logits) * valid[..., tf.newaxis], [-1, classes])
    true = tf.reshape(tf.one_hot(labels, classes) * valid[..., tf.newaxis], [-1, classes])
    return Overlaps(tf.reduce_sum(rows * true, 0), tf.reduce_sum(rows, 0), tf.reduce_sum(true, 0))


def dice_loss(sums: Overlaps, class_weights: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Compute 1 minus the mean over classes of weight * F1, as segmentation_models: float32 [].

    A class without pixels scores about 0, unless its probability is 0 everywhere.
    """
    score = (2.0 * sums.both + SMOOTH) / (sums.predicted + sums.true + SMOOTH)
    return 1.0 - tf.reduce_mean(score * class_weights)


def jaccard_loss(sums: Overlaps, class_weights: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Compute 1 minus the mean over classes of weight * IoU; see `dice_loss`."""
    union = sums.predicted + sums.true - sums.both
    score = (sums.both + SMOOTH) / (union + SMOOTH)
    return 1.0 - tf.reduce_mean(score * class_weights)
