"""Losses of a detector, as sums over anchors; the task divides them by the number of positives."""

import math
from typing import Literal, get_args

import tensorflow as tf

from tasks.detection import coding

IouKind = Literal["iou", "giou", "diou", "ciou"]
IOU_KINDS = get_args(IouKind)


def focal(
    logits: tf.Tensor,
    classes: tf.Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 1.5,
    label_smoothing: float = 0.0,
) -> tf.Tensor:
    """Compute the focal loss of every anchor and class (arXiv 1708.02002).

    The smoothed labels enter the cross entropy alone, not the weights, as published. The gradient flows
    through the weights too.

    Args:
      logits: float32 [b, anchors, classes].
      classes: int32 [b, anchors]; a negative number is no class.
      alpha: weight of positives; negatives weigh 1 - alpha.
      gamma: exponent; the published code's 1.5, not the paper's 2.
      label_smoothing: in [0, 1).

    Returns:
      float32 [b, anchors, classes].
    """
    is_class = classes[..., tf.newaxis] == tf.range(logits.shape[-1])
    target = tf.cast(is_class, tf.float32)
    probability = tf.sigmoid(logits)
    wrong = tf.where(is_class, 1.0 - probability, probability)
    weight = tf.where(is_class, alpha, 1.0 - alpha) * tf.pow(wrong, gamma)
    smooth = target * (1.0 - label_smoothing) + 0.5 * label_smoothing
    return weight * tf.nn.sigmoid_cross_entropy_with_logits(smooth, logits)


def huber(codes: tf.Tensor, targets: tf.Tensor, *, delta: float = 0.1) -> tf.Tensor:
    """Compute the Huber loss of every coordinate.

    e^2 / 2 up to `delta`, then delta |e| - delta^2 / 2, without the factor 1 / delta of smooth-L1. As
    published, coordinates whose target is exactly 0 do not count: those of negatives, and those in which a
    box equals its anchor.

    Args:
      codes: float32 [b, anchors, 4], the network's.
      targets: float32 [b, anchors, 4].
      delta: above 0.

    Returns:
      float32 [b, anchors, 4].
    """
    error = tf.abs(codes - targets)
    small = tf.minimum(error, delta)
    loss = small * (error - 0.5 * small)
    return tf.where(targets != 0.0, loss, 0.0)


def iou_loss(predicted: tf.Tensor, target: tf.Tensor, kind: IouKind) -> tf.Tensor:
    """Compute 1 - IoU of every pair of boxes, or of its generalised forms.

    giou: arXiv 1902.09630; diou and ciou: 1911.08287. The weight of ciou's aspect ratio has a gradient.
    Deviation: inside a tf.function the published code's custom gradient treats the aspect ratio as constant
    with respect to the predictions; here it has its gradient everywhere.

    Args:
      predicted: float32 [..., 4] boxes.
      target: the same; a box without area does not count.
      kind: the form.

    Returns:
      float32 [...].
    """
    overlap = coding.iou(predicted, target)
    if kind == "giou":
        both = coding.intersection(predicted, target)
        union = coding.area(predicted) + coding.area(target) - both
        hull = tf.reduce_prod(_hull(predicted, target), axis=-1)
        overlap -= tf.math.divide_no_nan(hull - union, hull)
    elif kind in ("diou", "ciou"):
        shift = (predicted[..., :2] + predicted[..., 2:] - target[..., :2] - target[..., 2:]) / 2
        diagonal = tf.reduce_sum(_hull(predicted, target) ** 2, axis=-1)
        value = overlap - tf.math.divide_no_nan(tf.reduce_sum(shift**2, axis=-1), diagonal)
        if kind == "ciou":
            aspect = 4 / math.pi**2 * (_angle(predicted) - _angle(target)) ** 2
            value -= aspect * tf.math.divide_no_nan(aspect, 1.0 - overlap + aspect)
        overlap = value
    counts = coding.area(target) > 0.0
    return tf.where(counts, 1.0 - overlap, 0.0)


def _hull(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Return height and width of the smallest box around two, float32 [..., 2]."""
    high = tf.maximum(a[..., 2:], b[..., 2:])
    return tf.maximum(high - tf.minimum(a[..., :2], b[..., :2]), 0.0)


def _angle(boxes: tf.Tensor) -> tf.Tensor:
    """Return the angle whose tangent is width / height, float32 [...]."""
    height, width = (tf.maximum(boxes[..., i + 2] - boxes[..., i], 0.0) for i in (0, 1))
    return tf.atan(tf.math.divide_no_nan(width, height))
