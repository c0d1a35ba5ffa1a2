"""The loss of the recipe: softmax cross entropy with label smoothing, and L2 on the weights."""

from collections.abc import Iterable

import tensorflow as tf


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, *, label_smoothing: float) -> tf.Tensor:
    """Softmax cross entropy of every example.

    Args:
      logits: float32 [batch, classes].
      labels: int32 [batch] class indices, or float32 [batch, classes] (mixup and cutmix give shares).
      label_smoothing: in [0, 1); the share of the target spread evenly over all classes.

    Returns:
      float32 [batch].
    """
    num_classes = logits.shape[-1]
    if labels.shape.rank == 1:
        labels = tf.one_hot(labels, num_classes, dtype=tf.float32)
    targets = labels * (1.0 - label_smoothing) + label_smoothing / num_classes
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def l2_loss(weights: Iterable[tf.Tensor]) -> tf.Tensor:
    """Sum of w**2 / 2 over all elements of `weights`: float32 []."""
    return tf.add_n([tf.nn.l2_loss(w) for w in weights])


def is_decayed(path: str) -> bool:
    """Whether the recipe decays this variable: all but batch norm's gamma and beta; biases too."""
    return path.rsplit("/", 1)[-1] not in ("gamma", "beta")
