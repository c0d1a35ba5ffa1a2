"""The interface of a task: the only code that interprets labels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from efficientnet import ModelSpec
from efficientnet.blocks import Node

Batch = Mapping[str, tf.Tensor]
Total = Callable[[tf.Tensor], tf.Tensor]  # sums over all replicas, without a gradient


class Labels(NamedTuple):
    """The labels of a data set.

    Attributes:
      num_classes: number of classes.
      class_counts: training images of each class; None if that is not known.
    """

    num_classes: int
    class_counts: Sequence[int] | None = None


class Measures(NamedTuple):
    """Contribution of one replica's batch to an evaluation.

    Attributes:
      sums: int32 or float32 tensors that add up over batches and replicas; "examples" is one of them.
      rows: float32 [batch, ...] tensors, one row an example, for scores that do not add up; padding is 0.
    """

    sums: Mapping[str, tf.Tensor]
    rows: Mapping[str, tf.Tensor]


class Task(Protocol):
    """A loss and a score. The training step handles replicas, micro-batches and precision."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that `loss` returns in addition to the loss, logged at every step."""

    @property
    def best(self) -> str:
        """Name of the value of `score` that compares checkpoints; higher is better."""

    @property
    def activation(self) -> Literal["softmax", "sigmoid"]:
        """Function that turns the outputs of the network into the probabilities that are served."""

    @property
    def outputs(self) -> Mapping[str, str] | None:
        """Layer of each output that the task takes, by the name of the output; None: the last layer alone."""

    @property
    def draws(self) -> bool:
        """Whether `draw` returns pictures."""

    def layers(self, spec: ModelSpec) -> tuple[Node, ...]:
        """List the layers of the network on a backbone, in the order in which they are built."""

    @property
    def answers(self) -> Literal["classes", "class_maps", "boxes"]:
        """What exports return: classes of whole images or of their pixels, or boxes of objects."""

    def prepare(self, batch: Batch) -> Batch:
        """Convert an input batch to the form that `loss` takes, on the device and without a gradient."""

    def weight(self, batch: Batch) -> float | tf.Tensor:
        """Return this (micro-)batch's share of the divisor of the loss: float32 [] or a Python number.

        Shares are added up over the global batch. A Python number, for a weight that does not depend
        on the examples, needs no reduction.
        """

    def loss(
        self, outputs: Any, batch: Batch, weight: float | tf.Tensor, total: Total
    ) -> tuple[tf.Tensor, Mapping[str, tf.Tensor]]:
        """Compute this batch's share of the loss and of each of `metrics`: float32 [] that add up.

        Args:
          outputs: outputs of the network.
          batch: batch from `prepare`.
          weight: weight of the global batch.
          total: sums a tensor over the replicas, for losses that need the whole batch.
        """

    def measure(self, outputs: Any, batch: Batch) -> Measures:
        """Compare outputs with labels; examples whose "mask" is 0 are padding and do not count."""

    def score(
        self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """Compute the metrics from the total sums and the rows of all examples, on the host."""

    def format_score(self, figures: Mapping[str, float]) -> dict[str, str]:
        """Format the names and values of `score` for display: `{"top-1": "98.59%"}`."""

    def per_class(
        self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Compute figures of each class from the inputs of `score`, for the report of a run.

        Returns:
          Arrays [classes] by name: int counts, and float shares in [0, 1], NaN for a class without
          examples. Empty if the evaluation keeps nothing by class.
        """

    def errors(self, outputs: Any, batch: Batch) -> tf.Tensor:
        """Compute how wrong the answer to each example is, for the report: float32 [batch].

        0 for a right answer and for padding; larger the surer the network was of a wrong answer.
        """

    def evidence(self, outputs: Any) -> tf.Tensor | None:
        """Return the output that Grad-CAM explains, float32 [batch]; None if there is none."""

    def caption(
        self, output: Any, example: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> str:
        """Describe the prediction for one example and its label: "eight 98%, is three 1%".

        Args:
          output: outputs of the network, without a batch dimension.
          example: columns of the batch, without a batch dimension.
          class_names: one for each class.
        """

    def draw(
        self, outputs: Any, batch: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> list[list[np.ndarray]]:
        """Draw predictions: pictures of each image, uint8 [H, W, 3], side by side.

        Args:
          outputs: arrays of the network.
          batch: "image", uint8 [n, H, W, 3], and the labels of the task.
          class_names: of the data, in their order.
        """
