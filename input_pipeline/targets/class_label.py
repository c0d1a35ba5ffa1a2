"""One class for each image."""

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from input_pipeline.images.view import View
from input_pipeline.targets.target import Features
from input_pipeline.targets.whole_image import LABELS, WholeImage, outside

MISSING = f"feature {LABELS} is missing"


@dataclass(frozen=True)
class ClassLabel(WholeImage):
    """The one class of an image: "label", int32 [] in [0, num_classes)."""

    def check(
        self, features: Features, *, num_classes: int, label_offset: int
    ) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        """Convert the label of a record; no label, several, or one outside the classes is a problem."""
        labels = features[LABELS]
        label = tf.reduce_max(labels)
        last = num_classes - 1 + label_offset
        several = " labels; expected 1 (task.name=multi_label takes several)"

        def describe() -> tf.Tensor:
            return tf.case(
                [
                    (tf.size(labels) == 0, lambda: tf.constant(MISSING)),
                    (
                        tf.size(labels) > 1,
                        lambda: tf.strings.join([tf.strings.as_string(tf.size(labels)), several]),
                    ),
                ],
                default=lambda: outside(label, label_offset, last),
            )

        # One condition for sound records: a chain of conditions would cost time for each image.
        sound = (tf.size(labels) == 1) & (label >= label_offset) & (label <= last)
        problem = tf.cond(sound, lambda: tf.constant(""), describe)
        return {"label": tf.cast(label - label_offset, tf.int32)}, problem

    def batch_spec(self, batch_size: int, view: View) -> Mapping[str, tf.TensorSpec]:
        """Return the spec of "label": int32 [batch_size]."""
        return {"label": tf.TensorSpec([batch_size], tf.int32)}

    def shares(self, labels: tf.Tensor, num_classes: int) -> tf.Tensor:
        """Return the labels one-hot: float32 [b, num_classes]."""
        return tf.one_hot(labels, num_classes)


CLASS_LABEL = ClassLabel()
