"""Lists of tensors as one vector, in which the optimizer and the averages work.

B0 has 213 weights and 98 statistics: tensor by tensor, an update is 6,000 small operations a replica,
most of the time to trace a step and much of the time to run it on small images.
"""

from collections.abc import Sequence

import tensorflow as tf


def pack(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """All elements of float32 `tensors`, one tensor after the other: float32 [elements]."""
    return tf.concat([tf.reshape(t, [-1]) for t in tensors], 0)


def unpack(vector: tf.Tensor, like: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Undo `pack`, given tensors or variables of the shapes that were packed."""
    parts = tf.split(vector, [t.shape.num_elements() for t in like])
    return [tf.reshape(part, t.shape) for part, t in zip(parts, like, strict=True)]
