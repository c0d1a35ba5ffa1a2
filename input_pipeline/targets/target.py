"""The interface of a target: what a record holds beside its image."""

from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

Features = Mapping[str, tf.Tensor]  # values of one record by feature, as written


class Target(Protocol):
    """What a record holds beside its image. Records are checked row by row on the host."""

    @property
    def features(self) -> Mapping[str, Any]:
        """Features to parse from a record, as tf.io.parse_single_example takes them."""

    def check(
        self, features: Features, *, num_classes: int, label_offset: int
    ) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        """Convert the features of one record to its row of a batch.

        Args:
          features: values as written.
          num_classes: number of classes of the data set.
          label_offset: number of the first class in records.

        Returns:
          The row, with the names, dtypes and shapes of `batch_spec`, and the problem with the
          record, string []: "" if there is none. The row of a record with a problem is not used.
        """

    def batch_spec(self, batch_size: int) -> Mapping[str, tf.TensorSpec]:
        """Return name, dtype and static shape of each part of a batch that the target adds."""

    def shares(self, labels: tf.Tensor, num_classes: int) -> tf.Tensor:
        """Convert a batch's "label" to what mixup and cutmix blend: float32 [b, num_classes].

        Raises:
          DatasetError: images of this target cannot be mixed.
        """
