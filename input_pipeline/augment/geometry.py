"""Moving pixels: one affine map per operation, nearest neighbour, grey where nothing was.

`tf.raw_ops.ImageProjectiveTransformV3` evaluates the map for every channel of every pixel in a scalar
loop, 1.9 ms of CPU time for a 224-pixel image. Here the sources are computed once per pixel as vectors
and the pixels gathered three bytes at a time: the same image (a test compares the two) in a quarter
of the time.
"""

import math
from typing import TypeAlias

import numpy as np
import tensorflow as tf

FILL = 128  # grey level of whatever comes from outside the image

# The largest float32 below 1/2. floor(x + ALMOST_HALF) rounds as the reference's kernel does wherever
# it matters: ties go up, and -1/2 is outside the image while everything above it is inside.
ALMOST_HALF = float(np.nextafter(np.float32(0.5), np.float32(0.0)))

Scalar: TypeAlias = tf.Tensor | float


def rotate(image: tf.Tensor, degrees: Scalar) -> tf.Tensor:
    """uint8 [H, W, 3] turned about its centre; positive degrees turn counter-clockwise."""
    radians = tf.cast(degrees, tf.float32) * (math.pi / 180.0)
    cosine, sine = tf.cos(radians), tf.sin(radians)
    bottom, right = tf.unstack(tf.cast(tf.shape(image)[:2] - 1, tf.float32))
    x_offset = (right - _as_written(cosine * right - sine * bottom)) / 2.0
    y_offset = (bottom - _as_written(sine * right + cosine * bottom)) / 2.0
    x, y = _positions(image)
    source_x = _as_written(cosine * x - sine * y) + x_offset
    source_y = _as_written(sine * x + cosine * y) + y_offset
    return _sample(image, source_x, source_y)


def shear_x(image: tf.Tensor, level: Scalar) -> tf.Tensor:
    """uint8 [H, W, 3], row y moved left by level * y pixels."""
    x, y = _positions(image)
    return _sample(image, x + tf.cast(level, tf.float32) * y, y)


def shear_y(image: tf.Tensor, level: Scalar) -> tf.Tensor:
    """uint8 [H, W, 3], column x moved up by level * x pixels."""
    x, y = _positions(image)
    return _sample(image, x, tf.cast(level, tf.float32) * x + y)


def translate_x(image: tf.Tensor, pixels: Scalar) -> tf.Tensor:
    """uint8 [H, W, 3] moved left by that many pixels."""
    x, y = _positions(image)
    return _sample(image, x + tf.cast(pixels, tf.float32), y)


def translate_y(image: tf.Tensor, pixels: Scalar) -> tf.Tensor:
    """uint8 [H, W, 3] moved up by that many pixels."""
    _, y = _positions(image)
    height = tf.cast(tf.shape(image)[0], tf.float32)
    row = _nearest(y[:, 0] + tf.cast(pixels, tf.float32), height)
    # Whole rows move together, which is faster than pixel by pixel.
    framed = tf.pad(_rows(image), [[1, 1], [0, 0]], constant_values=tf.constant(FILL, tf.uint8))
    return tf.reshape(tf.gather(framed, tf.cast(row + 1.0, tf.int32)), tf.shape(image))


def _positions(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Columns, float32 [1, W], and rows, float32 [H, 1], of the pixels of the result."""
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    return tf.range(width)[tf.newaxis, :], tf.range(height)[:, tf.newaxis]


def _as_written(value: tf.Tensor) -> tf.Tensor:
    """The same value, behind a step that TensorFlow's graph rewriting does not reorder sums across.

    It takes the liberty to turn (a - b) - c into a - (b + c) and the like, which rounds differently;
    and a position that rounds differently at a tie is another pixel.
    """
    return tf.minimum(value, tf.float32.max)


def _sample(image: tf.Tensor, source_x: tf.Tensor, source_y: tf.Tensor) -> tf.Tensor:
    """Each pixel of the result is a copy of the nearest one in the image, or FILL outside it.

    Args:
      image: uint8 [H, W, 3].
      source_x: float32 [H, W], or [1, W] where it is the same in every row.
      source_y: float32 [H, W], or [H, 1] where it is the same in every column.

    Returns:
      uint8 [H, W, 3].
    """
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    column, row = _nearest(source_x, width), _nearest(source_y, height)
    # One frame of filling around the image makes every source valid. Exact in float32 below 2^24.
    index = tf.cast(row * (width + 2.0) + column + (width + 3.0), tf.int32)
    framed = tf.pad(_rows(image), [[1, 1], [3, 3]], constant_values=tf.constant(FILL, tf.uint8))
    moved = tf.gather_nd(tf.reshape(framed, [-1, 3]), index[..., tf.newaxis])
    return tf.reshape(moved, tf.shape(image))


def _nearest(position: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """The pixel nearest to each position, as whole float32; -1 or `size` for outside."""
    return tf.floor(tf.clip_by_value(position, -1.0, size) + ALMOST_HALF)


def _rows(image: tf.Tensor) -> tf.Tensor:
    """[H, W, 3] as [H, W*3]: padding along a channel axis of 3 is slow."""
    shape = tf.shape(image)
    return tf.reshape(image, [shape[0], shape[1] * 3])


def replace_rectangle(
    images: tf.Tensor, patch: tf.Tensor, first: tf.Tensor, last: tf.Tensor
) -> tf.Tensor:
    """Show `patch` inside a rectangle and the image outside it.

    Args:
      images: uint8 [..., H, W, 3].
      patch: uint8, a scalar or an image of the same shape.
      first: int32 [..., 2], the rectangle's first row and column.
      last: int32 [..., 2], one past its last row and column; an empty rectangle is allowed.

    Returns:
      uint8 [..., H, W, 3].
    """
    shape = tf.shape(images)
    height, width = shape[-3], shape[-2]
    rows = _between(tf.range(height), first[..., 0], last[..., 0])[..., :, tf.newaxis]
    columns = _between(tf.range(width * 3) // 3, first[..., 1], last[..., 1])[..., tf.newaxis, :]
    inside = tf.reshape(rows * (columns * 255), shape)
    # Bytes that differ, flipped where the patch shows: selecting bytes with tf.where is far slower.
    difference = tf.bitwise.bitwise_xor(images, patch)
    return tf.bitwise.bitwise_xor(images, tf.bitwise.bitwise_and(difference, inside))


def _between(positions: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
    """uint8 [..., N]: 1 from first up to last, 0 elsewhere."""
    inside = (positions >= first[..., tf.newaxis]) & (positions < last[..., tf.newaxis])
    return tf.cast(inside, tf.uint8)
