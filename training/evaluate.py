"""Exact evaluation: every image once, on any number of replicas."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from system.errors import UserError
from tasks.task import Measures, Task


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of evaluating a model on a split.

    Attributes:
      figures: the task's metrics by name, for logs and checkpoints.
      shown: the same metrics, formatted.
      num_examples: number of examples evaluated.
      sums: the task's sums over these examples.
      rows: the task's rows of these examples.
    """

    figures: Mapping[str, float]
    shown: Mapping[str, str]
    num_examples: int
    sums: Mapping[str, np.ndarray]
    rows: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value}" for name, value in self.shown.items())
        return f"{figures} on {self.num_examples:,} images"


class EvaluationStopped(Exception):  # noqa: N818 - nothing is wrong
    """An evaluation was stopped before its end."""


class IncompleteEvaluationError(UserError):
    """An evaluation saw more or fewer images than the split has, so its metrics are invalid."""


def evaluate(
    eval_step: Callable[[Any], Measures],
    batches: Iterable[Any],
    task: Task,
    *,
    num_steps: int,
    num_examples: int,
    max_missing: int = 0,
    on_step: Callable[[int], None] = lambda step: None,
) -> Evaluation:
    """Add up `num_steps` results of `eval_step` over `batches` and compute the metrics.

    Raises:
      IncompleteEvaluationError: the number of images seen is above `num_examples`, or more than
        `max_missing` below it.
    """
    iterator = iter(batches)
    sums: dict[str, np.ndarray] = {}
    rows: dict[str, list[np.ndarray]] = {}
    for step in range(num_steps):
        measured = eval_step(iterator)
        for name, value in measured.sums.items():
            sums[name] = sums.get(name, 0) + _wide(value.numpy())
        for name, value in measured.rows.items():
            rows.setdefault(name, []).append(value.numpy())
        on_step(step + 1)
    seen = int(sums["examples"])
    if not num_examples - max_missing <= seen <= num_examples:
        raise IncompleteEvaluationError(f"evaluation saw {seen} images of {num_examples}")
    all_rows = {name: np.concatenate(parts) for name, parts in rows.items()}
    figures = task.score(sums, all_rows)
    return Evaluation(figures, task.format_score(figures), seen, sums, all_rows)


def _wide(value: np.ndarray) -> np.ndarray:
    """Convert to 64 bits: a float32 sum of 50,000 losses loses digits."""
    return value.astype(np.int64 if value.dtype == np.int32 else np.float64)
