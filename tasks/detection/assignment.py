"""Assign boxes to anchors, on the device and with static shapes."""

from typing import NamedTuple

import tensorflow as tf

from input_pipeline.targets.boxes import NO_CLASS  # also of an anchor without a box
from tasks.detection import coding

POSITIVE_IOU = 0.5


class Targets(NamedTuple):
    """Targets of the outputs of an image's anchors.

    Attributes:
      classes: int32 [b, anchors], NO_CLASS for negatives.
      codes: float32 [b, anchors, 4], see `coding.encode`; 0 for negatives.
      num_positives: float32 [b], number of anchors with a box.
    """

    classes: tf.Tensor
    codes: tf.Tensor
    num_positives: tf.Tensor


def assign(boxes: tf.Tensor, classes: tf.Tensor, anchors: tf.Tensor) -> Targets:
    """Assign boxes to anchors.

    An anchor gets the box that it overlaps most, if the IoU is at least 0.5. In addition, every box gets
    the anchor that overlaps it most, whatever the IoU: the first of equal anchors, even if no anchor overlaps
    the box. If two boxes have the same anchor, the first box gets it. There are no ignored anchors.

    The boxes are processed in a loop, because the IoU of all boxes with all anchors takes 177 MB per image
    for d7. Each pass keeps the rows of its box, so that nothing is gathered afterwards.

    Args:
      boxes: float32 [b, n, 4] in pixels.
      classes: int32 [b, n] from 0, NO_CLASS for padding.
      anchors: float32 [anchors, 4] in pixels.
    """
    batch, count = boxes.shape[0], boxes.shape[1]
    number = anchors.shape[0]
    places = tf.range(number)

    def consider(
        i: tf.Tensor, best: tf.Tensor, forced: tf.Tensor, rows: tf.Tensor
    ) -> list[tf.Tensor]:
        box, label = boxes[:, i], classes[:, i]
        real = (label != NO_CLASS)[:, tf.newaxis]
        overlap = tf.where(real, coding.iou(box[:, tf.newaxis], anchors), -1.0)
        favourite = tf.argmax(overlap, axis=1, output_type=tf.int32)
        hit = real & (places == favourite[:, tf.newaxis]) & ~forced
        better = (overlap > best) & ~forced
        row = tf.concat([box, tf.cast(label, tf.float32)[:, tf.newaxis]], axis=1)
        rows = tf.where((hit | better)[..., tf.newaxis], row[:, tf.newaxis], rows)
        return [i + 1, tf.where(better, overlap, best), forced | hit, rows]

    _, best, forced, rows = tf.while_loop(
        lambda i, *_: i < count,
        consider,
        [
            tf.constant(0),
            tf.fill([batch, number], -1.0),
            tf.zeros([batch, number], tf.bool),
            tf.zeros([batch, number, 5]),
        ],
        maximum_iterations=count,
    )
    positive = forced | (best >= POSITIVE_IOU)
    codes = coding.encode(rows[..., :4], anchors)
    return Targets(
        classes=tf.where(positive, tf.cast(rows[..., 4], tf.int32), NO_CLASS),
        codes=tf.where(positive[..., tf.newaxis], codes, 0.0),
        num_positives=tf.reduce_sum(tf.cast(positive, tf.float32), axis=1),
    )
