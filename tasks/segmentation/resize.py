"""Resize logits from the network's input to the original image, by the placement between them."""

from collections.abc import Sequence

import tensorflow as tf


def resize_logits(
    logits: tf.Tensor, placement: tf.Tensor, size: Sequence[int | tf.Tensor]
) -> tf.Tensor:
    """Interpolate logits linearly at the centre of each pixel of the original images.

    Args:
      logits: float32 [b, h, w, classes].
      placement: float32 [b, 4], scale and offset (y, x) of each image in the network's input.
      size: height and width of the result, at least those of the images. Pixels beyond an image have the
        logits of its edge.

    Returns:
      float32 [b, size, classes].
    """
    scale, offset = placement[:, :2], placement[:, 2:]
    for axis, extent in enumerate(size):
        centres = tf.cast(tf.range(extent), tf.float32) + 0.5
        place = centres * scale[:, axis, tf.newaxis] + offset[:, axis, tf.newaxis] - 0.5
        logits = _interpolate(logits, place, axis + 1)
    return logits


def _interpolate(values: tf.Tensor, place: tf.Tensor, axis: int) -> tf.Tensor:
    """Interpolate along an axis at places, float32 [b, n], in pixels from the centre of the first."""
    last = tf.shape(values)[axis] - 1
    place = tf.clip_by_value(place, 0.0, tf.cast(last, tf.float32))
    lower = tf.cast(tf.floor(place), tf.int32)
    upper = tf.minimum(lower + 1, last)
    share = place - tf.floor(place)
    share = (
        share[:, :, tf.newaxis, tf.newaxis] if axis == 1 else share[:, tf.newaxis, :, tf.newaxis]
    )
    below, above = (_gather(values, index, axis) for index in (lower, upper))
    return below + (above - below) * share


def _gather(values: tf.Tensor, index: tf.Tensor, axis: int) -> tf.Tensor:
    """Gather along an axis with indices of each example, int32 [b, n]."""
    return tf.gather(values, index, axis=axis, batch_dims=1)
