"""One class for each image: softmax, cross entropy with label smoothing, top-1 and top-5."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import tensorflow as tf

from tasks.task import Batch, Measures, Total

MOST_CONFUSION_CLASSES = 100  # with at most this many classes, evaluation counts a confusion matrix


@dataclasses.dataclass(frozen=True)
class Classification:
    """Classification with the loss of the published recipe.

    Attributes:
      num_classes: classes of the labels.
      label_smoothing: in [0, 1); the share of the target spread evenly over all classes.
    """

    num_classes: int
    label_smoothing: float = 0.1

    metrics = ("cross_entropy", "top_1")
    best = "top_1"
    activation: ClassVar[Literal["softmax"]] = "softmax"

    def prepare(self, batch: Batch) -> Batch:
        """Return the batch as it is."""
        return batch

    def weight(self, batch: Batch) -> float:
        """Return the number of examples."""
        return float(batch["label"].shape[0])

    def loss(
        self, outputs: tf.Tensor, batch: Batch, weight: float | tf.Tensor, total: Total
    ) -> tuple[tf.Tensor, Mapping[str, tf.Tensor]]:
        """Compute the share of the mean cross entropy of float32 [batch, classes] logits, and of top-1."""
        labels = batch["label"]
        entropy = cross_entropy(outputs, labels, label_smoothing=self.label_smoothing)
        share = tf.reduce_sum(entropy) / weight
        classes = labels if labels.shape.rank == 1 else tf.argmax(labels, -1, output_type=tf.int32)
        top_1 = tf.reduce_sum(tf.cast(in_top(outputs, classes, 1), tf.float32)) / weight
        return share, {"cross_entropy": share, "top_1": top_1}

    def measure(self, outputs: tf.Tensor, batch: Batch) -> Measures:
        """Add up the counts and the cross entropy of a batch.

        Returns:
          int32 "examples", "top_1" and "top_5" (correct ones), float32 "cross_entropy" (no smoothing), and
          up to MOST_CONFUSION_CLASSES int32 "confusion" [classes, classes], rows true, columns predicted.
        """
        labels, counts = batch["label"], batch["mask"] > 0
        entropy = cross_entropy(outputs, labels, label_smoothing=0.0)
        sums = {
            "examples": _count(counts),
            "cross_entropy": tf.reduce_sum(tf.where(counts, entropy, 0.0)),
            "top_1": _count(counts & in_top(outputs, labels, 1)),
            "top_5": _count(counts & in_top(outputs, labels, min(5, self.num_classes))),
        }
        if self.num_classes <= MOST_CONFUSION_CLASSES:
            sums["confusion"] = self._confusion(outputs, labels, counts)
        return Measures(sums, {})

    def score(
        self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """Return top-1 and top-5 as shares of the images, and the mean cross entropy in nats."""
        names = ("top_1", "top_5", "cross_entropy")
        return {name: float(sums[name] / sums["examples"]) for name in names}

    def format_score(self, figures: Mapping[str, float]) -> dict[str, str]:
        """Format the shares in percent and the cross entropy with four digits."""
        return {
            "top-1": f"{figures['top_1']:.2%}",
            "top-5": f"{figures['top_5']:.2%}",
            "cross entropy": f"{figures['cross_entropy']:.4f}",
        }

    def _confusion(self, logits: tf.Tensor, labels: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        n = self.num_classes
        predicted = tf.argmax(logits, -1, output_type=tf.int32)
        flat = tf.math.unsorted_segment_sum(
            tf.cast(counts, tf.int32), labels * n + predicted, num_segments=n * n
        )
        return tf.reshape(flat, [n, n])


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, *, label_smoothing: float) -> tf.Tensor:
    """Compute the softmax cross entropy of every example.

    Args:
      logits: float32 [batch, classes].
      labels: int32 [batch] class indices, or float32 [batch, classes] (mixup and cutmix give shares).
      label_smoothing: in [0, 1); the share of the target spread evenly over all classes.

    Returns:
      float32 [batch].
    """
    num_classes = logits.shape[-1]
    if labels.shape.rank == 1:
        labels = tf.one_hot(labels, num_classes, dtype=tf.float32)
    targets = labels * (1.0 - label_smoothing) + label_smoothing / num_classes
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def in_top(logits: tf.Tensor, labels: tf.Tensor, k: int) -> tf.Tensor:
    """Return whether the label is among the k best classes, never for NaN: bool [batch].

    Equal logits rank by class number, so that a network with constant outputs does not seem perfect.
    """
    own = tf.gather(logits, labels, batch_dims=1)[:, tf.newaxis]
    earlier = tf.range(logits.shape[-1]) < labels[:, tf.newaxis]
    ahead = (logits > own) | ((logits == own) & earlier)
    rank = tf.reduce_sum(tf.cast(ahead, tf.int32), -1)
    return (rank < k) & tf.math.is_finite(own[:, 0])


def _count(flags: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(flags, tf.int32))
