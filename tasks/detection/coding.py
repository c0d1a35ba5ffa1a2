"""Boxes: overlap, and the code in which a detector describes them relative to its anchors.

Boxes are float32 [..., 4], [ymin, xmin, ymax, xmax] in pixels. Codes are [ty, tx, th, tw]: the shift of the
centre in anchor sides, and the logarithms of the sides' ratios.
"""

from typing import NamedTuple

import tensorflow as tf

SMALLEST_SIDE = 1e-8  # of the published code; keeps logarithms finite


class Sides(NamedTuple):
    """Centre and sides of boxes, each float32 [...]."""

    y: tf.Tensor
    x: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor


def encode(boxes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
    """Return the codes of `boxes` relative to `anchors`: float32 [..., 4]."""
    box, anchor = _sides(boxes), _sides(anchors)
    height, width = (tf.maximum(side, SMALLEST_SIDE) for side in (box.height, box.width))
    own_height, own_width = (
        tf.maximum(side, SMALLEST_SIDE) for side in (anchor.height, anchor.width)
    )
    return tf.stack(
        [
            (box.y - anchor.y) / own_height,
            (box.x - anchor.x) / own_width,
            tf.math.log(height / own_height),
            tf.math.log(width / own_width),
        ],
        axis=-1,
    )


def decode(codes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
    """Return the boxes of `codes` relative to `anchors`: float32 [..., 4]."""
    ty, tx, th, tw = tf.unstack(codes, axis=-1)
    anchor = _sides(anchors)
    y, x = ty * anchor.height + anchor.y, tx * anchor.width + anchor.x
    half_height, half_width = tf.exp(th) * anchor.height / 2, tf.exp(tw) * anchor.width / 2
    return tf.stack([y - half_height, x - half_width, y + half_height, x + half_width], axis=-1)


def area(boxes: tf.Tensor) -> tf.Tensor:
    """Return the areas of boxes, float32 [...]; 0 for a box whose ends are swapped."""
    height = tf.maximum(boxes[..., 2] - boxes[..., 0], 0.0)
    return height * tf.maximum(boxes[..., 3] - boxes[..., 1], 0.0)


def intersection(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Return the area that boxes share, float32 [...]; shapes broadcast."""
    low = tf.maximum(a[..., :2], b[..., :2])
    high = tf.minimum(a[..., 2:], b[..., 2:])
    return tf.reduce_prod(tf.maximum(high - low, 0.0), axis=-1)


def iou(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Return intersection over union, float32 [...] in [0, 1]; 0 for two empty boxes. Shapes broadcast."""
    both = intersection(a, b)
    return tf.math.divide_no_nan(both, area(a) + area(b) - both)


def _sides(boxes: tf.Tensor) -> Sides:
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=-1)
    return Sides((ymin + ymax) / 2, (xmin + xmax) / 2, ymax - ymin, xmax - xmin)
