"""Memory layout of images, and constant folding of operations.

TensorFlow does not fold constants in a dataset inside a dataset. So shapes are numbers wherever they
are known, and whatever depends on numbers alone is computed when the graph is built.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import tensorflow as tf

Scalar: TypeAlias = tf.Tensor | float
Size: TypeAlias = tf.Tensor | int


def when_known(compute: Callable[..., tf.Tensor], *arguments: Scalar) -> tf.Tensor | np.ndarray:
    """Call `compute`: now, with the same kernels, if all arguments are numbers; else in the graph."""
    if any(tf.is_tensor(argument) for argument in arguments):
        return compute(*arguments)
    with tf.init_scope(), tf.device("CPU"):
        return compute(*arguments).numpy()


def size_of(image: tf.Tensor) -> tuple[Size, Size]:
    """Return height and width of [H, W, ...]: numbers if both are known, else int32 tensors."""
    height, width = image.shape[:2]
    if height is None or width is None:
        height, width = tf.unstack(tf.shape(image)[:2])
    return height, width


def rows_of(image: tf.Tensor) -> tf.Tensor:
    """Reshape [H, W, 3] to [H, W*3]: many operations are slow along a channel axis of 3."""
    height, width = size_of(image)
    return tf.reshape(image, [height, width * 3])


def like(image: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Reshape as many values as the image [H, W, 3] has to its shape."""
    return tf.reshape(values, [*size_of(image), 3])


def in_groups(values: tf.Tensor, size: int) -> tf.Tensor:
    """Reshape all values to groups of `size`, the last one padded with zeros: [-1, size]."""
    count = values.shape.num_elements()
    if count is None or count % size:
        missing = -(tf.size(values) if count is None else count) % size
        values = tf.pad(tf.reshape(values, [-1]), [[0, missing]])
    return tf.reshape(values, [-1, size])


def out_of_groups(image: tf.Tensor, groups: tf.Tensor) -> tf.Tensor:
    """Undo `in_groups`: drop the padding and reshape to the image's [H, W, 3]."""
    height, width = size_of(image)
    count = height * width * 3
    if groups.shape.num_elements() != count:
        groups = tf.reshape(groups, [-1])[:count]
    return like(image, groups)
