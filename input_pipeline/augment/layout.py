"""How an image lies in memory, and what of an operation is known before it runs.

A function in a dataset inside a dataset runs as it is written: TensorFlow folds no constants there. So
shapes are numbers wherever they are known, and what follows from numbers alone is computed beforehand.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import tensorflow as tf

Scalar: TypeAlias = tf.Tensor | float
Size: TypeAlias = tf.Tensor | int


def when_known(compute: Callable[..., tf.Tensor], *arguments: Scalar) -> tf.Tensor | np.ndarray:
    """`compute(*arguments)`: at once, by the same kernels, if all are numbers; else in the graph."""
    if any(tf.is_tensor(argument) for argument in arguments):
        return compute(*arguments)
    with tf.init_scope(), tf.device("CPU"):
        return compute(*arguments).numpy()


def size_of(image: tf.Tensor) -> tuple[Size, Size]:
    """Height and width of [H, W, ...]: numbers if both are known, else int32 tensors."""
    height, width = image.shape[:2]
    if height is None or width is None:
        height, width = tf.unstack(tf.shape(image)[:2])
    return height, width


def rows_of(image: tf.Tensor) -> tf.Tensor:
    """[H, W, 3] as [H, W*3]: many operations are slow along a channel axis of 3."""
    height, width = size_of(image)
    return tf.reshape(image, [height, width * 3])


def like(image: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """As many values as the image [H, W, 3] has, in its shape."""
    return tf.reshape(values, [*size_of(image), 3])


def in_groups(values: tf.Tensor, size: int) -> tf.Tensor:
    """All values in groups of so many, the last one filled with zeros: [-1, size]."""
    count = values.shape.num_elements()
    if count is None or count % size:
        missing = -(tf.size(values) if count is None else count) % size
        values = tf.pad(tf.reshape(values, [-1]), [[0, missing]])
    return tf.reshape(values, [-1, size])


def out_of_groups(image: tf.Tensor, groups: tf.Tensor) -> tf.Tensor:
    """As many of the values as the image [H, W, 3] has, in its shape: the way back from `in_groups`."""
    height, width = size_of(image)
    count = height * width * 3
    if groups.shape.num_elements() != count:
        groups = tf.reshape(groups, [-1])[:count]
    return like(image, groups)
