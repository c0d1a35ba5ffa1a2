"""The interface of a target: what a record holds beside its image."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from input_pipeline.images.view import Seen, View

Features = Mapping[str, tf.Tensor]  # values of one record by feature, as written


class Target(Protocol):
    """What a record holds beside its image. Records are checked row by row on the host."""

    @property
    def features(self) -> Mapping[str, Any]:
        """Features to parse from a record, as tf.io.parse_single_example takes them."""

    def check(
        self, features: Features, *, num_classes: int, label_offset: int
    ) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        """Check the features of one record without its image.

        Args:
          features: values as written.
          num_classes: number of classes of the data set.
          label_offset: number of the first class in records.

        Returns:
          What `place` takes, and the problem with the record, string []: "" if there is none. The rest
          of a record with a problem is not used.
        """

    def place(
        self, value: Mapping[str, tf.Tensor], seen: Seen
    ) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        """Convert what `check` returned to the row of a batch, for an image that is shown as `seen`.

        Returns:
          The row, with the names, dtypes and shapes of `batch_spec`, and the problem, string [].
        """

    def labels(self, features: Features) -> list[int]:
        """List the classes of a record, as numbered there, for `inspect`."""

    def draw(
        self, image: np.ndarray, row: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> np.ndarray:
        """Draw a row of a batch into its image: uint8 [H, W, 3]."""

    def batch_spec(self, batch_size: int, view: View) -> Mapping[str, tf.TensorSpec]:
        """Return name, dtype and static shape of each part that the target adds to batches of a view."""

    def shares(self, labels: tf.Tensor, num_classes: int) -> tf.Tensor:
        """Convert a batch's "label" to what mixup and cutmix blend: float32 [b, num_classes].

        Raises:
          DatasetError: images of this target cannot be mixed.
        """
