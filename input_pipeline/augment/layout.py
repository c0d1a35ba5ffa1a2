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


def flat_of(values: tf.Tensor, multiple: int) -> tf.Tensor:
    """All values in a row, followed by zeros up to a multiple of so many."""
    flat = tf.reshape(values, [-1])
    size = flat.shape[0]
    if size is not None and size % multiple == 0:
        return flat
    return tf.pad(flat, [[0, -(tf.size(flat) if size is None else size) % multiple]])


def without_padding(image: tf.Tensor, flat: tf.Tensor) -> tf.Tensor:
    """As many of the values as the image [H, W, 3] has, in its shape: the way back from `flat_of`."""
    height, width = size_of(image)
    size = height * width * 3
    return like(image, flat if flat.shape[0] == size else flat[:size])
