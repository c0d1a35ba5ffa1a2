"""Any number of classes for each image: a sigmoid for each class, mean average precision."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow as tf

from efficientnet import ModelSpec
from efficientnet.blocks import Node
from efficientnet.network import network_layers
from input_pipeline.targets.class_labels import NO_LABEL, multi_hot
from tasks.task import Batch, Labels, Measures, Total

# With at most this many classes, evaluation keeps the score of every class of every image: 200 MB for
# 50,000 images and 1,000 classes.
MOST_RANKED_CLASSES = 1000
BINS = 1024  # of the logits, for the pooled precision
LARGEST_LOGIT = 16.0  # bins span both signs; a sigmoid of more is 1 - 1e-7


@dataclasses.dataclass(frozen=True)
class MultiLabel:
    """Binary cross entropy for each class, summed over classes and averaged over examples.

    The sum over classes is that of BiT (arXiv 1912.11370) and big_vision (sigmoid_xent). Deviation: timm's
    BinaryCrossEntropy averages over classes, so its gradient is 1 / num_classes of this one.

    Attributes:
      num_classes: classes of the labels.
      label_smoothing: in [0, 1); the share of the target spread evenly over all classes, as in timm.
    """

    num_classes: int
    label_smoothing: float = 0.1

    metrics = ("cross_entropy", "hit_at_1")
    activation: ClassVar[Literal["sigmoid"]] = "sigmoid"
    outputs = None
    answers: ClassVar[Literal["classes"]] = "classes"
    draws = False

    @classmethod
    def of(cls, labels: Labels, label_smoothing: float) -> "MultiLabel":
        """Build the task of a data set."""
        return cls(labels.num_classes, label_smoothing)

    @property
    def best(self) -> str:
        """The mean average precision, or with many classes the pooled one."""
        return "mean_average_precision" if self._ranks else "pooled_average_precision"

    def layers(self, spec: ModelSpec) -> tuple[Node, ...]:
        """List the layers of the backbone with a classifier."""
        return network_layers(spec, num_classes=self.num_classes, include="logits")

    def prepare(self, batch: Batch) -> Batch:
        """Make padded labels, int32 [b, k], multi-hot, float32 [b, classes]; keep mixed labels."""
        return {**batch, "label": self._targets(batch["label"])}

    def weight(self, batch: Batch) -> float:
        """Return the number of examples."""
        return float(batch["label"].shape[0])

    def loss(
        self, outputs: tf.Tensor, batch: Batch, weight: float | tf.Tensor, total: Total
    ) -> tuple[tf.Tensor, Mapping[str, tf.Tensor]]:
        """Compute the share of the mean cross entropy of float32 [batch, classes] logits, and of hit@1.

        Hit@1 is the share of the images whose best class is one of theirs (arXiv 1609.08675).
        """
        targets = batch["label"]
        entropy = cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)
        share = tf.reduce_sum(entropy) / weight
        best = tf.argmax(outputs, -1, output_type=tf.int32)
        hits = tf.gather(targets, best, batch_dims=1) > 0
        hit_at_1 = tf.reduce_sum(tf.cast(hits, tf.float32)) / weight
        return share, {"cross_entropy": share, "hit_at_1": hit_at_1}

    def measure(self, outputs: tf.Tensor, batch: Batch) -> Measures:
        """Add up the cross entropy, count scores by bins, and keep the scores of few classes.

        Returns:
          sums: int32 "examples", float32 "cross_entropy" (no smoothing), and int32 "histogram"
            [2, BINS], the logits of all classes by bins, rows: not a label, a label.
          rows: with at most MOST_RANKED_CLASSES classes, "scores" [b, classes] (logits), "labels" [b, k]
            padded with NO_LABEL, and "valid" [b]. Average precision does not depend on the order of the
            rows, so they need no index.
        """
        counts, targets = batch["mask"] > 0, self._targets(batch["label"])
        entropy = cross_entropy(outputs, targets, label_smoothing=0.0)
        # A logit that is not a number ranks last. Rows must be finite.
        scores = tf.where(tf.math.is_nan(outputs), -np.inf, outputs)
        scores = tf.clip_by_value(scores, tf.float32.min, tf.float32.max)
        sums = {
            "examples": tf.reduce_sum(tf.cast(counts, tf.int32)),
            "cross_entropy": tf.reduce_sum(tf.where(counts, entropy, 0.0)),
            "histogram": _histogram(scores, targets, counts),
        }
        if not self._ranks:
            return Measures(sums, {})
        valid = batch["mask"]
        rows = {
            "valid": valid,
            "scores": scores * valid[:, tf.newaxis],
            "labels": tf.cast(batch["label"], tf.float32),
        }
        return Measures(sums, rows)

    def score(
        self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """Return the average precisions, in [0, 1], and the mean cross entropy in nats.

        "mean_average_precision" is the mean over the classes that have a label in the split.
        "pooled_average_precision" ranks all pairs of image and class together, by bins of 1/32 of a
        logit ("micro" in scikit-learn).
        """
        absent, present = np.asarray(sums["histogram"], np.float64)[:, ::-1]
        figures = {
            "pooled_average_precision": average_precision(present, absent + present),
            "cross_entropy": float(sums["cross_entropy"] / sums["examples"]),
        }
        if not self._ranks:
            return figures
        valid = rows["valid"] > 0
        return {
            "mean_average_precision": mean_average_precision(
                rows["scores"][valid], rows["labels"][valid].astype(np.int64)
            ),
            **figures,
        }

    def format_score(self, figures: Mapping[str, float]) -> dict[str, str]:
        """Format the precisions in percent and the cross entropy with four digits."""
        shown = {
            "mean average precision": "mean_average_precision",
            "pooled average precision": "pooled_average_precision",
        }
        return {
            **{text: f"{figures[name]:.2%}" for text, name in shown.items() if name in figures},
            "cross entropy": f"{figures['cross_entropy']:.4f}",
        }

    def per_class(
        self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return the number of images and the average precision of every class; empty without rows."""
        if not self._ranks:
            return {}
        valid = rows["valid"] > 0
        labels = rows["labels"][valid].astype(np.int64)
        precisions = np.full(self.num_classes, np.nan)
        for label, precision in average_precisions(rows["scores"][valid], labels).items():
            precisions[label] = precision
        images = np.bincount(labels[labels != NO_LABEL], minlength=self.num_classes)
        return {"images": images, "average precision": precisions}

    def errors(self, outputs: tf.Tensor, batch: Batch) -> tf.Tensor:
        """Return the largest distance between a probability and its target where it is above one half."""
        distance = tf.abs(tf.sigmoid(outputs) - self._targets(batch["label"]))
        largest = tf.reduce_max(distance, -1)
        return tf.where((largest > 0.5) & (batch["mask"] > 0), largest, 0.0)

    def evidence(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return the logit of the best class."""
        return tf.reduce_max(outputs, -1)

    def caption(
        self, output: Any, example: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> str:
        """Name the labels, and the classes above one half: "cat 97%, dog 60%; is cat 97%, bird 4%"."""
        probabilities = tf.sigmoid(output).numpy()
        found = [int(i) for i in np.argsort(-probabilities) if probabilities[i] > 0.5]
        labels = [int(i) for i in example["label"] if i != NO_LABEL]
        named = {i: f"{class_names[i]} {probabilities[i]:.0%}" for i in found + labels}
        said = ", ".join(named[i] for i in found) or "nothing"
        return f"{said}; is {', '.join(named[i] for i in labels) or 'nothing'}"

    def draw(
        self, outputs: Any, batch: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> list[list[np.ndarray]]:
        """Return no pictures: classes have no place in an image."""
        return []

    @property
    def _ranks(self) -> bool:
        return self.num_classes <= MOST_RANKED_CLASSES

    def _targets(self, labels: tf.Tensor) -> tf.Tensor:
        return labels if labels.dtype.is_floating else multi_hot(labels, self.num_classes)


def cross_entropy(logits: tf.Tensor, targets: tf.Tensor, *, label_smoothing: float) -> tf.Tensor:
    """Compute the sum over classes of the binary cross entropy of every example.

    Args:
      logits: float32 [batch, classes].
      targets: float32 [batch, classes] in [0, 1].
      label_smoothing: in [0, 1); the share of the target spread evenly over all classes.

    Returns:
      float32 [batch].
    """
    smooth = targets * (1.0 - label_smoothing) + label_smoothing / logits.shape[-1]
    return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(smooth, logits), -1)


def average_precision(positives: np.ndarray, examples: np.ndarray) -> float:
    """Compute the area under the steps of precision over recall, without interpolation.

    As sklearn.metrics.average_precision_score: the precision at each score is weighted by the recall that
    it adds.

    Args:
      positives: [n] number of positive examples at each distinct score, highest score first.
      examples: [n] number of examples at each score.

    Returns:
      In [0, 1]; 0 without a positive example.
    """
    found, seen = np.cumsum(positives), np.cumsum(examples)
    precision = np.divide(found, seen, out=np.zeros(len(found)), where=seen > 0)
    return float(np.sum(precision * positives) / max(found[-1], 1))


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Compute the mean of the average precision over the classes that have a label.

    Args:
      scores: [n, classes].
      labels: int [n, k], padded with NO_LABEL.

    Returns:
      In [0, 1]; 0 without any label.
    """
    each = average_precisions(scores, labels)
    return float(np.mean(list(each.values()))) if each else 0.0


def average_precisions(scores: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Compute the average precision of each class that has a label; see `mean_average_precision`."""
    row, place = np.nonzero(labels != NO_LABEL)
    classes = labels[row, place]
    each = {}
    for label in np.unique(classes):
        is_positive = np.zeros(len(scores))
        is_positive[row[classes == label]] = 1
        # Ascending in the negative scores: highest score first.
        _, group = np.unique(-scores[:, label], return_inverse=True)
        each[int(label)] = average_precision(np.bincount(group, is_positive), np.bincount(group))
    return each


def _histogram(scores: tf.Tensor, targets: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Count scores by target and bin: int32 [2, BINS]."""
    position = (scores + LARGEST_LOGIT) * (BINS / (2 * LARGEST_LOGIT))
    bins = tf.cast(tf.clip_by_value(position, 0.0, BINS - 1.0), tf.int32)
    cell = bins + BINS * tf.cast(targets > 0, tf.int32)
    weights = tf.broadcast_to(tf.cast(counts, tf.int32)[:, tf.newaxis], tf.shape(cell))
    return tf.reshape(tf.math.unsorted_segment_sum(weights, cell, 2 * BINS), [2, BINS])
