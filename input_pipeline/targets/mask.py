"""A class for each pixel."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.images.label_map import (
    IGNORED,
    decode_label_map,
    pad_label_map,
    sample_label_map,
)
from input_pipeline.images.overlay import overlay_classes
from input_pipeline.images.placement import height_width
from input_pipeline.images.view import Seen, View
from input_pipeline.targets.target import Features

MASK = "image/segmentation/class/encoded"  # the PNG of an image's classes; DeepLab's key
MOST_CLASSES = 255
MASK_FEATURES: Mapping[str, Any] = {MASK: tf.io.FixedLenFeature([], tf.string, "")}


@dataclass(frozen=True)
class Mask:
    """The classes of an image's pixels: "label", uint8 [H, W], IGNORED where pixels do not count.

    Labels follow every operation that moves pixels; padding and pixels from outside the image are IGNORED.
    If the view keeps the size of the originals, "label" has that size, padded to `view.original`, and
    "placement", float32 [4], is the scale and the offset (y, x) of the image in the network's input.

    Attributes:
      first_value: the value of class 0 in masks; lower values are IGNORED.
      ignore_value: another value that is IGNORED.
    """

    first_value: int = 0
    ignore_value: int = IGNORED

    features = MASK_FEATURES

    def check(
        self, features: Features, *, num_classes: int, label_offset: int
    ) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        """Return the encoded mask and the number of classes; `place` checks the values."""
        if num_classes > MOST_CLASSES:
            raise DatasetError(f"masks hold at most {MOST_CLASSES} classes, not {num_classes}")
        encoded = features[MASK]
        problem = tf.where(tf.strings.length(encoded) == 0, f"feature {MASK} is missing", "")
        return {"encoded": encoded, "num_classes": tf.constant(num_classes)}, problem

    def place(
        self, value: Mapping[str, tf.Tensor], seen: Seen
    ) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        """Decode the mask and move it as the image was moved; see `Target.place`."""
        placement, original = seen.placement, seen.view.original
        values, problem = decode_label_map(value["encoded"])
        labels, _ = self.classes(values, value["num_classes"])
        found = tf.shape(labels)
        problem = tf.cond(
            problem == "",
            lambda: self.problem_of(values, placement.source_size, value["num_classes"]),
            lambda: problem,
        )
        if original is None:
            row = tf.cond(
                problem == "",
                lambda: pad_label_map(
                    seen.move(sample_label_map(labels, placement)), placement.corner, seen.view.size
                ),
                lambda: tf.fill(height_width(seen.view.size), tf.constant(IGNORED, tf.uint8)),
            )
            return {"label": row}, problem
        fits = tf.reduce_all(found <= height_width(original))
        problem = tf.cond(
            (problem == "") & ~fits,
            lambda: _sizes("the image is ", found, ", larger than eval.max_size=", original),
            lambda: problem,
        )
        row = tf.cond(
            problem == "",
            lambda: pad_label_map(labels, tf.zeros([2], tf.int32), original),
            lambda: tf.fill(height_width(original), tf.constant(IGNORED, tf.uint8)),
        )
        return {
            "label": row,
            "placement": tf.concat([placement.scale, placement.offset], axis=0),
        }, problem

    def labels(self, features: Features) -> list[int]:
        """List the classes of the mask, from 0."""
        values = np.unique(decode_label_map(features[MASK])[0].numpy())
        counted = [int(v) for v in values if v >= self.first_value and v != self.ignore_value]
        return [value - self.first_value for value in counted]

    def draw(
        self, image: np.ndarray, row: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> np.ndarray:
        """Blend the colours of the classes into the image."""
        return overlay_classes(image, row["label"])

    def batch_spec(self, batch_size: int, view: View) -> Mapping[str, tf.TensorSpec]:
        """Return the spec of "label" and, if the view keeps the originals' size, of "placement"."""
        size = height_width(view.original or view.size)
        label = {"label": tf.TensorSpec([batch_size, *size], tf.uint8)}
        if view.original is None:
            return label
        return {**label, "placement": tf.TensorSpec([batch_size, 4], tf.float32)}

    def shares(self, labels: tf.Tensor, num_classes: int) -> tf.Tensor:
        """Refuse to mix."""
        raise DatasetError(
            "images with masks cannot be mixed: set augment.mixup_alpha=0 and augment.cutmix_alpha=0"
        )

    def problem_of(self, values: tf.Tensor, size: tf.Tensor, num_classes: tf.Tensor) -> tf.Tensor:
        """Return the problem with a decoded mask of an image of `size`, int32 [2]; "" if there is none."""
        _, outside = self.classes(values, num_classes)
        return _first(
            (
                tf.reduce_any(tf.shape(values) != size),
                lambda: _sizes("the mask is ", tf.shape(values), ", the image ", size),
            ),
            (tf.size(outside) > 0, lambda: self._describe(outside[0], num_classes)),
        )

    def classes(self, values: tf.Tensor, num_classes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the class of each value, uint8, and the values that are no class, int32 [n]."""
        numbers = tf.cast(values, tf.int32)
        ignored = (numbers == self.ignore_value) | (numbers < self.first_value)
        classes = numbers - self.first_value
        outside = tf.boolean_mask(numbers, ~ignored & (classes >= num_classes))
        return tf.cast(tf.where(ignored, IGNORED, classes), tf.uint8), outside

    def _describe(self, value: tf.Tensor, num_classes: tf.Tensor) -> tf.Tensor:
        last = num_classes - 1 + self.first_value
        return tf.strings.join(
            [
                "mask value ",
                tf.strings.as_string(value),
                f" is outside {self.first_value}..",
                tf.strings.as_string(last),
                f" ({self.ignore_value} is ignored: task.ignore_value)",
            ]
        )


def _first(*cases: tuple[tf.Tensor, Callable[[], tf.Tensor]]) -> tf.Tensor:
    """Return the text of the first condition that holds, or ""."""
    return tf.case(list(cases), default=lambda: tf.constant(""))


def _sizes(before: str, one: tf.Tensor, between: str, other: object) -> tf.Tensor:
    """Join two sizes, height x width, with words before each."""
    texts = [
        tf.strings.reduce_join(tf.strings.as_string(tf.convert_to_tensor(size)), separator=" x ")
        for size in (one, other)
    ]
    return tf.strings.join([before, texts[0], between, texts[1]])
