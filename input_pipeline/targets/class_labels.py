"""Any number of classes for each image."""

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from input_pipeline.images.view import View
from input_pipeline.targets.target import Features
from input_pipeline.targets.whole_image import LABELS, WholeImage, outside

NO_LABEL = -1  # pads the labels of an image
DEFAULT_MAX_LABELS = 32


@dataclass(frozen=True)
class ClassLabels(WholeImage):
    """The classes of an image: "label", int32 [max_labels], padded with NO_LABEL.

    A record without the feature is an image of no class: an Example does not distinguish it from an empty
    list.

    Attributes:
      max_labels: largest number of labels of an image.
    """

    max_labels: int = DEFAULT_MAX_LABELS

    def check(
        self, features: Features, *, num_classes: int, label_offset: int
    ) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        """Convert the labels of a record; too many labels, or one outside the classes, is a problem."""
        labels = features[LABELS]
        last = num_classes - 1 + label_offset
        strange = tf.boolean_mask(labels, (labels < label_offset) | (labels > last))
        many = f" labels, more than task.max_labels={self.max_labels}"
        problem = tf.case(
            [
                (
                    tf.size(labels) > self.max_labels,
                    lambda: tf.strings.join([tf.strings.as_string(tf.size(labels)), many]),
                ),
                (tf.size(strange) > 0, lambda: outside(strange[0], label_offset, last)),
            ],
            default=lambda: tf.constant(""),
        )
        classes = tf.cast(labels[: self.max_labels] - label_offset, tf.int32)
        gap = self.max_labels - tf.size(classes)
        padded = tf.pad(classes, [[0, gap]], constant_values=NO_LABEL)
        return {"label": tf.ensure_shape(padded, [self.max_labels])}, problem

    def batch_spec(self, batch_size: int, view: View) -> Mapping[str, tf.TensorSpec]:
        """Return the spec of "label": int32 [batch_size, max_labels]."""
        return {"label": tf.TensorSpec([batch_size, self.max_labels], tf.int32)}

    def shares(self, labels: tf.Tensor, num_classes: int) -> tf.Tensor:
        """Return the labels multi-hot: float32 [b, num_classes]."""
        return multi_hot(labels, num_classes)


def multi_hot(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Set the classes of each image to 1, all others to 0.

    Args:
      labels: int32 [b, k] in [0, num_classes), padded with NO_LABEL; repeated labels count once.
      num_classes: number of classes.

    Returns:
      float32 [b, num_classes].
    """
    # A scatter, because one-hot labels would take k times the memory. The last column is for the padding.
    columns = tf.where(labels < 0, num_classes, labels)
    rows = tf.broadcast_to(tf.range(tf.shape(labels)[0])[:, tf.newaxis], tf.shape(labels))
    empty = tf.zeros([tf.shape(labels)[0], num_classes + 1])
    hot = tf.tensor_scatter_nd_max(
        empty, tf.stack([rows, columns], -1), tf.ones(tf.shape(labels), tf.float32)
    )
    return tf.ensure_shape(hot[:, :num_classes], [labels.shape[0], num_classes])
