"""Choose detections from a detector's outputs: candidates, then non-maximum suppression of static shape."""

import dataclasses
from typing import Literal, NamedTuple

import tensorflow as tf

from tasks.detection import coding

Method = Literal["gaussian", "hard"]
TAKEN = -1.0  # below every score


class Detections(NamedTuple):
    """The detections of a batch, the best first; rows from `count` on are zeros.

    Attributes:
      boxes: float32 [b, k, 4].
      scores: float32 [b, k], in [0, 1].
      classes: int32 [b, k], from 0.
      count: int32 [b].
    """

    boxes: tf.Tensor
    scores: tf.Tensor
    classes: tf.Tensor
    count: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Suppression:
    """How candidates become detections.

    Attributes:
      method: "gaussian" lowers the scores of boxes that overlap a better one (soft-NMS, arXiv 1704.04503),
        "hard" removes them.
      iou: in (0, 1); overlap above which a hard suppression removes a box. The Gaussian has no limit.
      sigma: of the Gaussian: scores are multiplied by exp(-IoU^2 / sigma).
      least_score: detections with this score or less are dropped.
      per_class: whether boxes of other classes are left alone.
      max_candidates: number of the best pairs of anchor and class that are considered; 0 considers every
        anchor, with its best class only.
      max_detections: k.
    """

    method: Method = "gaussian"
    iou: float = 0.5
    sigma: float = 0.5
    least_score: float = 0.001
    per_class: bool = False
    max_candidates: int = 0
    max_detections: int = 100


class Candidates(NamedTuple):
    """Boxes to choose from: boxes [b, n, 4], scores [b, n], classes int32 [b, n]."""

    boxes: tf.Tensor
    scores: tf.Tensor
    classes: tf.Tensor


def candidates(
    logits: tf.Tensor, codes: tf.Tensor, anchors: tf.Tensor, max_candidates: int
) -> Candidates:
    """Decode the boxes that may become detections.

    Args:
      logits: float32 [b, anchors, classes].
      codes: float32 [b, anchors, 4].
      anchors: float32 [anchors, 4].
      max_candidates: see `Suppression`.
    """
    if not max_candidates:
        best = tf.reduce_max(logits, axis=-1)
        classes = tf.argmax(logits, axis=-1, output_type=tf.int32)
        return Candidates(coding.decode(codes, anchors), tf.sigmoid(best), classes)
    num_anchors, num_classes = logits.shape[1], logits.shape[2]
    # The best pairs are among those of the anchors with the best classes; ranking all pairs is slow.
    kept = min(max_candidates, num_anchors)
    _, rows = tf.math.top_k(tf.reduce_max(logits, axis=-1), kept)
    rows = tf.sort(rows, axis=-1)  # equal scores keep their order
    logits = tf.gather(logits, rows, batch_dims=1)
    pairs = tf.reshape(logits, [-1, kept * num_classes])
    scores, places = tf.math.top_k(pairs, min(max_candidates, kept * num_classes))
    rows = tf.gather(rows, places // num_classes, batch_dims=1)
    boxes = coding.decode(tf.gather(codes, rows, batch_dims=1), tf.gather(anchors, rows))
    return Candidates(boxes, tf.sigmoid(scores), places % num_classes)


def suppress(given: Candidates, settings: Suppression) -> Detections:
    """Choose detections: take the best box, lower or remove what overlaps it, and repeat.

    Equals TensorFlow's NonMaxSuppressionV5 and, with `per_class`, one run of it for each class followed by
    the best of all: the scores of picks descend, so one loop over all classes finds the same ones. Shapes
    are static, and all operations exist on TPUs.
    """
    boxes, classes = given.boxes, given.classes
    places, most = tf.range(boxes.shape[1]), settings.max_detections

    def choose(i: tf.Tensor, scores: tf.Tensor, picks: tf.Tensor) -> list[tf.Tensor]:
        best = tf.argmax(scores, axis=1, output_type=tf.int32)
        # One-hot sums: a gather of one row by a computed index is slower on a TPU.
        chosen = places == best[:, tf.newaxis]
        score = tf.reduce_max(scores, axis=1)
        box = tf.reduce_sum(tf.where(chosen[..., tf.newaxis], boxes, 0.0), axis=1)
        label = tf.reduce_sum(tf.where(chosen, classes, 0), axis=1)
        overlap = coding.iou(box[:, tf.newaxis], boxes)
        if settings.method == "gaussian":
            kept = scores * tf.exp(-(overlap**2) / settings.sigma)
        else:
            kept = tf.where(overlap > settings.iou, TAKEN, scores)
        if settings.per_class:
            kept = tf.where(classes == label[:, tf.newaxis], kept, scores)
        kept = tf.where(chosen | (scores < 0.0), TAKEN, kept)
        row = tf.concat(
            [box, score[:, tf.newaxis], tf.cast(label, tf.float32)[:, tf.newaxis]], axis=1
        )
        valid = (score > settings.least_score)[:, tf.newaxis]
        here = (tf.range(most) == i)[:, tf.newaxis, tf.newaxis]
        return [i + 1, kept, tf.where(here, tf.where(valid, row, 0.0), picks)]

    _, _, picks = tf.while_loop(
        lambda i, *_: i < most,
        choose,
        [tf.constant(0), given.scores, tf.zeros(tf.stack([most, tf.shape(boxes)[0], 6]))],
        shape_invariants=[
            tf.TensorShape([]),
            given.scores.shape,
            tf.TensorShape([most, boxes.shape[0], 6]),
        ],
        maximum_iterations=most,
    )
    rows = tf.transpose(picks, [1, 0, 2])
    scores = rows[..., 4]
    return Detections(
        boxes=rows[..., :4],
        scores=scores,
        classes=tf.cast(rows[..., 5], tf.int32),
        count=tf.reduce_sum(tf.cast(scores > 0.0, tf.int32), axis=1),
    )


def clip_boxes(boxes: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Clip boxes to an image, float32 [..., 4]; sides are float32 and broadcast against [..., 1]."""
    limit = tf.stack([height, width, height, width], axis=-1)
    return tf.clip_by_value(boxes, 0.0, limit)
