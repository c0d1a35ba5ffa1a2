"""Exact evaluation: every image once, on any number of replicas."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a model scores on a split."""

    top_1: float  # share of images in [0, 1]
    top_5: float
    cross_entropy: float  # nats, without label smoothing
    num_examples: int
    confusion: np.ndarray | None = None  # [classes, classes] images, rows true, up to 100 classes

    def metrics(self) -> dict[str, float]:
        """The figures, for logs and checkpoints."""
        return {"top_1": self.top_1, "top_5": self.top_5, "cross_entropy": self.cross_entropy}


class EvaluationStopped(Exception):  # noqa: N818 - nothing is wrong
    """An evaluation that was told to end before its time."""


class IncompleteEvaluationError(UserError):
    """An evaluation that saw more or fewer images than there are: its figures mean nothing."""


def evaluate(
    eval_step: Callable[[Any], dict[str, tf.Tensor]],
    batches: Iterable[Any],
    *,
    num_steps: int,
    num_examples: int,
    may_miss: int = 0,
    on_step: Callable[[int], None] = lambda step: None,
) -> Evaluation:
    """Add up `num_steps` results of `eval_step` over `batches`.

    Raises:
      IncompleteEvaluationError: when the images seen are not `num_examples`, or more than `may_miss`
        broken ones were left out.
    """
    iterator = iter(batches)
    totals: dict[str, np.ndarray] = {}
    for step in range(num_steps):
        for name, value in eval_step(iterator).items():
            # float64: sums of 50,000 float32 losses lose digits otherwise.
            totals[name] = totals.get(name, 0.0) + value.numpy().astype(np.float64)
        on_step(step + 1)
    seen = round(float(totals["examples"]))
    if not num_examples - may_miss <= seen <= num_examples:
        raise IncompleteEvaluationError(f"evaluation saw {seen} images of {num_examples}")
    confusion = totals.get("confusion")
    return Evaluation(
        top_1=float(totals["top_1"]) / seen,
        top_5=float(totals["top_5"]) / seen,
        cross_entropy=float(totals["cross_entropy"]) / seen,
        num_examples=seen,
        confusion=None if confusion is None else np.rint(confusion).astype(np.int64),
    )
