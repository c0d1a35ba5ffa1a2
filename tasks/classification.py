"""One class for each image: softmax, cross entropy with label smoothing, top-1, top-5 and mean per class."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow as tf

from efficientnet import ModelSpec
from efficientnet.blocks import Node
from efficientnet.network import network_layers
from input_pipeline.targets.class_labels import multi_hot
from system.errors import UsageError
from tasks.task import Batch, Labels, Measures, Total

MOST_CONFUSION_CLASSES = 100  # with at most this many classes, evaluation counts a confusion matrix

BestFigure = Literal["top_1", "mean_per_class"]


@dataclasses.dataclass(frozen=True)
class Classification:
    """Classification with the loss of the published recipe.

    Attributes:
      num_classes: classes of the labels.
      label_smoothing: in [0, 1); the share of the target spread evenly over all classes.
      class_weights: factor on the loss of the images of each class; None: 1.
      best: figure that compares checkpoints.
    """

    num_classes: int
    label_smoothing: float = 0.1
    class_weights: tuple[float, ...] | None = None
    best: BestFigure = "top_1"

    metrics = ("cross_entropy", "top_1")
    activation: ClassVar[Literal["softmax"]] = "softmax"
    outputs = None
    answers: ClassVar[Literal["classes"]] = "classes"
    draws = False

    def layers(self, spec: ModelSpec) -> tuple[Node, ...]:
        """List the layers of the backbone with a classifier."""
        return network_layers(spec, num_classes=self.num_classes, include="logits")

    @classmethod
    def of(
        cls,
        labels: Labels,
        label_smoothing: float,
        *,
        class_weights: str | Sequence[float],
        best: BestFigure,
    ) -> "Classification":
        """Build the task of a data set; `class_weights` is "none", "balanced", or one factor a class.

        Raises:
          UsageError: another number of factors than classes, or no known counts to balance.
        """
        weights = _class_weights(class_weights, labels)
        return cls(labels.num_classes, label_smoothing, weights, best)

    def prepare(self, batch: Batch) -> Batch:
        """Return the batch as it is."""
        return batch

    def weight(self, batch: Batch) -> float:
        """Return the number of examples."""
        return float(batch["label"].shape[0])

    def loss(
        self, outputs: tf.Tensor, batch: Batch, weight: float | tf.Tensor, total: Total
    ) -> tuple[tf.Tensor, Mapping[str, tf.Tensor]]:
        """Compute the share of the mean cross entropy of float32 [batch, classes] logits, and of top-1.

        With class weights the sum of weighted losses is divided by the number of examples, as in Keras,
        not by the sum of their weights, as in PyTorch: the loss of an image does not depend on the others.
        """
        labels = batch["label"]
        entropy = self._weighted_cross_entropy(outputs, labels)
        share = tf.reduce_sum(entropy) / weight
        classes = labels if labels.shape.rank == 1 else tf.argmax(labels, -1, output_type=tf.int32)
        top_1 = tf.reduce_sum(tf.cast(in_top(outputs, classes, 1), tf.float32)) / weight
        return share, {"cross_entropy": share, "top_1": top_1}

    def measure(self, outputs: tf.Tensor, batch: Batch) -> Measures:
        """Add up the counts and the cross entropy of a batch.

        With several right labels, int32 [b, k] padded with NO_LABEL, a prediction is right if it is one of
        them, as in ReaL (arXiv 2006.07159), and the cross entropy is that of their total probability.

        Returns:
          int32 "examples", "top_1" and "top_5" (correct ones), int32 [classes] "class_examples" and
          "class_top_1", the same by true class, float32 "cross_entropy" (no smoothing, no class weights),
          and with at most MOST_CONFUSION_CLASSES classes int32 "confusion" [classes, classes], rows true,
          columns predicted. Several right labels have no sums by class.
        """
        labels, counts = batch["label"], batch["mask"] > 0
        several = labels.shape.rank == 2
        if several:
            labels, entropy = _best_of(outputs, multi_hot(labels, self.num_classes) > 0)
        else:
            entropy = cross_entropy(outputs, labels, label_smoothing=0.0)
        correct = counts & in_top(outputs, labels, 1)
        sums = {
            "examples": _count(counts),
            "cross_entropy": tf.reduce_sum(tf.where(counts, entropy, 0.0)),
            "top_1": _count(correct),
            "top_5": _count(counts & in_top(outputs, labels, min(5, self.num_classes))),
        }
        if several:
            return Measures(sums, {})
        sums["class_examples"] = _count_each(counts, labels, self.num_classes)
        sums["class_top_1"] = _count_each(correct, labels, self.num_classes)
        if self.num_classes <= MOST_CONFUSION_CLASSES:
            sums["confusion"] = self._confusion(outputs, labels, counts)
        return Measures(sums, {})

    def score(
        self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """Return top-1 and top-5 as shares of the images, and the mean cross entropy in nats.

        "mean_per_class" is the mean of each class's top-1, over the classes that have an image; images with
        several right labels have none. The figure that compares checkpoints comes first.
        """
        names = ("top_1", "top_5", "cross_entropy")
        figures = {name: float(sums[name] / sums["examples"]) for name in names}
        if "class_examples" in sums:
            figures["mean_per_class"] = mean_per_class(sums["class_top_1"], sums["class_examples"])
        return dict(sorted(figures.items(), key=lambda figure: figure[0] != self.best))

    def format_score(self, figures: Mapping[str, float]) -> dict[str, str]:
        """Format the shares in percent and the cross entropy with four digits.

        The mean per class is shown where it compares checkpoints; it is logged in any case.
        """
        shown = {"top-1": "top_1", "top-5": "top_5"}
        if self.best == "mean_per_class":
            shown = {"mean per class": "mean_per_class", **shown}
        return {
            **{text: f"{figures[name]:.2%}" for text, name in shown.items() if name in figures},
            "cross entropy": f"{figures['cross_entropy']:.4f}",
        }

    def per_class(
        self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return images and recall of every class, and with a confusion matrix the precision."""
        if "class_examples" not in sums:
            return {}
        images, correct = sums["class_examples"], sums["class_top_1"]
        figures = {"images": images, "recall": _share(correct, images)}
        if "confusion" in sums:
            figures["precision"] = _share(correct, sums["confusion"].sum(axis=0))
        return figures

    def errors(self, outputs: tf.Tensor, batch: Batch) -> tf.Tensor:
        """Return the probability of the best class where that is not the label."""
        wrong = tf.argmax(outputs, -1, output_type=tf.int32) != tf.cast(batch["label"], tf.int32)
        probability = tf.reduce_max(tf.nn.softmax(outputs), -1)
        return tf.where(wrong & (batch["mask"] > 0), probability, 0.0)

    def evidence(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return the logit of the best class."""
        return tf.reduce_max(outputs, -1)

    def caption(
        self, output: Any, example: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> str:
        """Name the best class and the label, with their probabilities: "eight 98%, is three 1%"."""
        probabilities = tf.nn.softmax(output).numpy()
        best, label = int(probabilities.argmax()), int(example["label"])
        return (
            f"{class_names[best]} {probabilities[best]:.0%}, is {class_names[label]} "
            f"{probabilities[label]:.0%}"
        )

    def draw(
        self, outputs: Any, batch: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> list[list[np.ndarray]]:
        """Return no pictures: classes have no place in an image."""
        return []

    def _weighted_cross_entropy(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Compute the cross entropy of every example times the weight of its class: float32 [batch]."""
        if self.class_weights is None:
            return cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        of_class = tf.constant(self.class_weights, tf.float32)
        if labels.shape.rank == 1:
            entropy = cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            return entropy * tf.gather(of_class, labels)
        # Each share of a mixed image has the weight of its own class.
        weighted = labels * of_class
        weights = tf.reduce_sum(weighted, -1)
        shares = tf.math.divide_no_nan(weighted, weights[:, tf.newaxis])
        return weights * cross_entropy(logits, shares, label_smoothing=self.label_smoothing)

    def _confusion(self, logits: tf.Tensor, labels: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        n = self.num_classes
        predicted = tf.argmax(logits, -1, output_type=tf.int32)
        return tf.reshape(_count_each(counts, labels * n + predicted, n * n), [n, n])


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


def mean_per_class(correct: np.ndarray, examples: np.ndarray) -> float:
    """Compute the mean of each class's accuracy.

    Args:
      correct: int [classes], correct images by their class.
      examples: int [classes], images of each class; a class without one does not count.

    Returns:
      In [0, 1].
    """
    present = np.asarray(examples) > 0
    return float(np.mean(np.asarray(correct)[present] / np.asarray(examples)[present]))


def balanced_weights(class_counts: Sequence[int]) -> tuple[float, ...]:
    """Return weights that make all classes count the same: inverse to the number of their images.

    As "balanced" in scikit-learn: the mean over the images is 1. Classes without images have weight 0.
    """
    total, present = sum(class_counts), sum(count > 0 for count in class_counts)
    return tuple(total / (present * count) if count else 0.0 for count in class_counts)


def _class_weights(given: str | Sequence[float], labels: Labels) -> tuple[float, ...] | None:
    if given == "none":
        return None
    if isinstance(given, str):
        if labels.class_counts is None:
            raise UsageError(
                "task.class_weights=balanced needs the number of training images of each class, which this"
                " data source does not know; give the weights as a list, or take records of"
                " input_pipeline.prepare"
            )
        return balanced_weights(labels.class_counts)
    if len(given) != labels.num_classes:
        raise UsageError(
            f"task.class_weights has {len(given)} numbers for {labels.num_classes} classes; expected one"
            " for each class, in the order of the labels"
        )
    return tuple(given)


def _best_of(logits: tf.Tensor, right: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the right class with the largest logit, and the cross entropy of the right classes together.

    Args:
      logits: float32 [batch, classes].
      right: bool [batch, classes].

    Returns:
      int32 [batch] and float32 [batch].
    """
    of_right = tf.where(right, logits, -np.inf)
    entropy = tf.reduce_logsumexp(logits, -1) - tf.reduce_logsumexp(of_right, -1)
    return tf.argmax(of_right, -1, output_type=tf.int32), entropy


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide counts; NaN where `whole` is 0."""
    nothing = np.full(len(whole), np.nan)
    return np.divide(part, whole, out=nothing, where=np.asarray(whole) > 0)


def _count(flags: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(flags, tf.int32))


def _count_each(flags: tf.Tensor, groups: tf.Tensor, num_groups: int) -> tf.Tensor:
    """Count the flags that are set in each group: int32 [num_groups]."""
    return tf.math.unsorted_segment_sum(tf.cast(flags, tf.int32), groups, num_groups)
