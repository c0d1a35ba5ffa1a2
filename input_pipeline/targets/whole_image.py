"""Shared parts of targets whose labels have no place in the image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from input_pipeline.images.view import Seen
from input_pipeline.targets.target import Features

LABELS = "image/class/label"  # int64 [n], the classes of an image; ImageNet's key
LABEL_FEATURES: Mapping[str, Any] = {
    LABELS: tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True)
}


class WholeImage:
    """The parts of a target that do not depend on how many classes an image has."""

    features = LABEL_FEATURES

    def place(
        self, value: Mapping[str, tf.Tensor], seen: Seen
    ) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        """Return the value: it holds for every part of the image."""
        return value, tf.constant("")

    def labels(self, features: Features) -> list[int]:
        """Return the labels as written."""
        return [int(label) for label in features[LABELS]]

    def draw(
        self, image: np.ndarray, row: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> np.ndarray:
        """Return the image unchanged: its labels have no place in it."""
        return image


def outside(label: tf.Tensor, first: int, last: int) -> tf.Tensor:
    """Describe a label outside the classes: string []."""
    return tf.strings.join(["label ", tf.strings.as_string(label), f" is outside {first}..{last}"])
