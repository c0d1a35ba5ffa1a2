"""Mean intersection over union, from exact counts of pixels."""

import numpy as np
import tensorflow as tf

from input_pipeline.images.label_map import IGNORED


def confusion(labels: tf.Tensor, predicted: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Count pixels by true and predicted class: int32 [classes, classes], rows true.

    Args:
      labels: int32 of any shape, in [0, num_classes), or IGNORED for pixels that do not count.
      predicted: int32 of the same shape, in [0, num_classes).
      num_classes: number of classes.
    """
    counts = labels != IGNORED
    cell = tf.where(counts, labels, 0) * num_classes + predicted
    flat = tf.math.unsorted_segment_sum(
        tf.cast(tf.reshape(counts, [-1]), tf.int32), tf.reshape(cell, [-1]), num_classes**2
    )
    return tf.reshape(flat, [num_classes, num_classes])


def intersection_over_union(counts: np.ndarray) -> np.ndarray:
    """Compute the IoU of each class over all images together.

    Args:
      counts: [classes, classes] pixels, rows true, columns predicted.

    Returns:
      float64 [classes] in [0, 1]; NaN for a class that is neither true nor predicted anywhere.
    """
    counts = np.asarray(counts, np.float64)
    both = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - both
    return np.divide(both, union, out=np.full(len(both), np.nan), where=union > 0)
