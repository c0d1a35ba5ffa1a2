"""Moving pixels: one affine map per operation, nearest neighbour, grey where nothing was.

`tf.raw_ops.ImageProjectiveTransformV3` evaluates the map for every channel of every pixel in a scalar
loop, 1.9 ms of CPU time for a 224-pixel image. Here the sources are computed once per pixel as vectors
and the pixels gathered three bytes at a time: the same image (a test compares the two) in a quarter of the
time, and in less where the argument is a number: then the sources are an array in the graph, four bytes
for each pixel.
"""

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from input_pipeline.augment.layout import Scalar, Size, like, rows_of, size_of, when_known

FILL = 128  # grey level of whatever comes from outside the image

# The largest float32 below 1/2. floor(x + ALMOST_HALF) rounds as the reference's kernel does wherever
# it matters: ties go up, and -1/2 is outside the image while everything above it is inside.
ALMOST_HALF = float(np.nextafter(np.float32(0.5), np.float32(0.0)))


def rotate(image: tf.Tensor, degrees: Scalar) -> tf.Tensor:
    """uint8 [H, W, 3] turned about its centre; positive degrees turn counter-clockwise."""

    def sources(height: Size, width: Size, degrees: Scalar) -> tuple[tf.Tensor, tf.Tensor]:
        radians = tf.cast(degrees, tf.float32) * (math.pi / 180.0)
        cosine, sine = tf.cos(radians), tf.sin(radians)
        bottom, right = tf.cast(height - 1, tf.float32), tf.cast(width - 1, tf.float32)
        x_offset = (right - _as_written(cosine * right - sine * bottom)) / 2.0
        y_offset = (bottom - _as_written(sine * right + cosine * bottom)) / 2.0
        x, y = _positions(height, width)
        source_x = _as_written(cosine * x - sine * y) + x_offset
        source_y = _as_written(sine * x + cosine * y) + y_offset
        return source_x, source_y

    return _warp(image, sources, degrees)


def shear_x(image: tf.Tensor, level: Scalar) -> tf.Tensor:
    """uint8 [H, W, 3], row y moved left by level * y pixels."""

    def sources(height: Size, width: Size, level: Scalar) -> tuple[tf.Tensor, tf.Tensor]:
        x, y = _positions(height, width)
        return x + tf.cast(level, tf.float32) * y, y

    return _warp(image, sources, level)


def shear_y(image: tf.Tensor, level: Scalar) -> tf.Tensor:
    """uint8 [H, W, 3], column x moved up by level * x pixels."""

    def sources(height: Size, width: Size, level: Scalar) -> tuple[tf.Tensor, tf.Tensor]:
        x, y = _positions(height, width)
        return x, tf.cast(level, tf.float32) * x + y

    return _warp(image, sources, level)


def translate_x(image: tf.Tensor, pixels: Scalar) -> tf.Tensor:
    """uint8 [H, W, 3] moved left by that many pixels."""

    def sources(height: Size, width: Size, pixels: Scalar) -> tuple[tf.Tensor, tf.Tensor]:
        x, y = _positions(height, width)
        return x + tf.cast(pixels, tf.float32), y

    return _warp(image, sources, pixels)


def translate_y(image: tf.Tensor, pixels: Scalar) -> tf.Tensor:
    """uint8 [H, W, 3] moved up by that many pixels."""

    def framed_rows(height: Size, pixels: Scalar) -> tf.Tensor:
        y = tf.range(tf.cast(height, tf.float32))
        row = _nearest(y + tf.cast(pixels, tf.float32), height)
        return tf.cast(row + 1.0, tf.int32)

    # Whole rows move together, which is faster than pixel by pixel.
    height, _ = size_of(image)
    framed = _add_frame(image, columns=0)
    return like(image, tf.gather(framed, when_known(framed_rows, height, pixels)))


def _positions(height: Size, width: Size) -> tuple[tf.Tensor, tf.Tensor]:
    """Columns, float32 [1, W], and rows, float32 [H, 1], of the pixels of the result."""
    x, y = (tf.range(tf.cast(size, tf.float32)) for size in (width, height))
    return x[tf.newaxis, :], y[:, tf.newaxis]


def _as_written(value: tf.Tensor) -> tf.Tensor:
    """Return the value behind an operation across which graph rewriting does not reorder sums.

    TensorFlow may rewrite (a - b) - c as a - (b + c), which rounds differently; a position that
    rounds differently at a tie is another pixel.
    """
    return tf.minimum(value, tf.float32.max)


def _warp(
    image: tf.Tensor, sources: Callable[..., tuple[tf.Tensor, tf.Tensor]], argument: Scalar
) -> tf.Tensor:
    """Each pixel of the result is a copy of the one nearest to its source, or FILL outside the image.

    Args:
      image: uint8 [H, W, 3].
      sources: of (height, width, argument), the column and the row that each pixel comes from: float32
        that broadcast to [H, W].
      argument: decides the sources.

    Returns:
      uint8 [H, W, 3].
    """

    def framed_pixels(height: Size, width: Size, argument: Scalar) -> tf.Tensor:
        source_x, source_y = sources(height, width, argument)
        column, row = _nearest(source_x, width), _nearest(source_y, height)
        # Exact in float32 below 2^24.
        across = tf.cast(width, tf.float32)
        return tf.cast(row * (across + 2.0) + column + (across + 3.0), tf.int32)[..., tf.newaxis]

    if not tf.is_tensor(argument) and argument == 0:
        return image
    height, width = size_of(image)
    framed = tf.reshape(_add_frame(image), [-1, 3])
    return tf.gather_nd(framed, when_known(framed_pixels, height, width, argument))


def _nearest(position: tf.Tensor, size: Size) -> tf.Tensor:
    """Return the pixel nearest to each position, as whole float32; -1 or `size` for outside."""
    return tf.floor(tf.clip_by_value(position, -1.0, tf.cast(size, tf.float32)) + ALMOST_HALF)


def _add_frame(image: tf.Tensor, columns: int = 1) -> tf.Tensor:
    """Pad [H, W, 3] with FILL, which makes every source valid: [H + 2, (W + 2 * columns) * 3].

    In rows of bytes, as padding along a channel axis of 3 is slow.
    """
    frame = [[1, 1], [columns * 3, columns * 3]]
    return tf.pad(rows_of(image), frame, constant_values=tf.constant(FILL, tf.uint8))


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
    shape = images.shape if images.shape.is_fully_defined() else tf.shape(images)
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
