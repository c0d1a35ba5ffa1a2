"""What the training loop needs of a task: the only code that knows what a label is."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

Batch = Mapping[str, tf.Tensor]
Total = Callable[[tf.Tensor], tf.Tensor]  # sums over all replicas, without a gradient


class Measures(NamedTuple):
    """What one replica's evaluation batch contributes.

    Attributes:
      sums: int32 or float32 tensors that add up over batches and replicas; "examples" is one of them.
      rows: float32 [batch, ...] tensors, one row an example, for scores that do not add up; padding is 0.
    """

    sums: Mapping[str, tf.Tensor]
    rows: Mapping[str, tf.Tensor]


class Task(Protocol):
    """A loss and a score. It never owns the step: replicas, micro-batches and precision are the step's."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what `loss` returns beside the loss, logged at every step."""

    @property
    def best(self) -> str:
        """The figure of `score` that compares checkpoints: higher is better."""

    def prepare(self, batch: Batch) -> Batch:
        """Bring a batch from the input into the form that `loss` takes: on the device, without a gradient."""

    def weight(self, batch: Batch) -> float | tf.Tensor:
        """What the loss of this (micro-)batch is divided by, added up over the global batch.

        A Python number where it does not depend on the examples: then it costs no reduction.
        """

    def loss(
        self, outputs: Any, batch: Batch, weight: float | tf.Tensor, total: Total
    ) -> tuple[tf.Tensor, Mapping[str, tf.Tensor]]:
        """Compute this batch's share of the loss and of each of `metrics`: float32 [] that add up.

        Args:
          outputs: of the network.
          batch: from `prepare`.
          weight: of the global batch.
          total: sums over the replicas, for losses that need more than their share.
        """

    def measure(self, outputs: Any, batch: Batch) -> Measures:
        """Compare the outputs with the truth; examples whose "mask" is 0 are padding and do not count."""

    def score(
        self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """Turn the added sums and the joined rows of all examples into figures, on the host."""

    def format_score(self, figures: Mapping[str, float]) -> dict[str, str]:
        """Names and values of the `score` as people read them: `{"top-1": "98.59%"}`."""
