"""Moving boxes as operations move pixels: forward, by the inverse of the map that `geometry` samples by."""

import math
from typing import NamedTuple

import tensorflow as tf


class Motion(NamedTuple):
    """How an operation moves places; all 0: not at all. At most one kind of motion is not 0.

    Attributes:
      degrees: of a rotation about the image's centre, counter-clockwise.
      shear_y: rows by which a column moves up for each column before it.
      shear_x: columns by which a row moves left for each row above it.
      up: pixels.
      left: pixels.
      up_share: share of the image's height.
      left_share: share of the image's width.
    """

    degrees: float = 0.0
    shear_y: float = 0.0
    shear_x: float = 0.0
    up: float = 0.0
    left: float = 0.0
    up_share: float = 0.0
    left_share: float = 0.0


def move_boxes(boxes: tf.Tensor, size: tf.Tensor, motions: tf.Tensor) -> tf.Tensor:
    """Move boxes as a number of operations, one after the other, move the pixels of an image.

    The corners of a box are moved by all operations, and the result is their hull. What an operation moves
    out of the image is gone, even if the next one moves the place back.

    Deviation: the published code takes the hull after each operation, which makes boxes larger, and keeps
    boxes that left the image, 5 % of a side wide; here they have no area.

    Args:
      boxes: float32 [n, 4], [ymin, xmin, ymax, xmax] in pixels, inside the image.
      size: int32 [2], height and width of the image.
      motions: float32 [k, fields of Motion], in the order of the operations.

    Returns:
      float32 [n, 4], inside the image.
    """
    sides = tf.cast(size, tf.float32)
    corners, visible = _corners(boxes), boxes
    for motion in tf.unstack(motions):
        corners = _move_points(corners, sides, motion)
        hull, around = _hull(corners), _hull(_move_points(_corners(visible), sides, motion))
        first = tf.maximum(hull[:, :2], around[:, :2])
        last = tf.maximum(tf.minimum(hull[:, 2:], around[:, 2:]), first)
        visible = tf.clip_by_value(tf.concat([first, last], 1), 0.0, tf.tile(sides, [2]))
    return visible


def _move_points(points: tf.Tensor, sides: tf.Tensor, motion: tf.Tensor) -> tf.Tensor:
    """Move points (y, x), float32 [n, 4, 2], of an image with `sides`, float32 [2].

    A pixel at p of the result shows the place fixed + A (p - fixed) + shift, of which this is the inverse.
    """
    degrees, shear_y, shear_x, up, left, up_share, left_share = tf.unstack(motion)
    radians = degrees * (math.pi / 180.0)
    cosine, sine = tf.cos(radians), tf.sin(radians)
    # The first pixel's centre stays where it is when rows or columns are shifted.
    fixed = tf.where(degrees != 0.0, sides / 2.0, 0.5)
    shift = tf.stack([up, left]) + tf.stack([up_share, left_share]) * sides
    y, x = tf.unstack(points - fixed - shift, axis=-1)
    across, along = sine + shear_y, sine - shear_x
    return tf.stack([cosine * y - across * x, along * y + cosine * x], axis=-1) + fixed


def _corners(boxes: tf.Tensor) -> tf.Tensor:
    """Return the corners of boxes: float32 [n, 4, 2]."""
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=1)
    around = tf.stack([ymin, xmin, ymin, xmax, ymax, xmin, ymax, xmax], axis=1)
    return tf.reshape(around, [-1, 4, 2])


def _hull(corners: tf.Tensor) -> tf.Tensor:
    ends = [tf.reduce_min(corners, axis=1), tf.reduce_max(corners, axis=1)]
    return tf.concat(ends, axis=1)
