"""Exact evaluation: every image once, on any number of replicas."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from system.errors import UserError
from tasks.task import Measures, Task


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a model scores on a split.

    Attributes:
      figures: the task's score by name, for logs and checkpoints.
      shown: the same as people read it.
      num_examples: examples that were measured.
      sums: what the task added up over them.
    """

    figures: Mapping[str, float]
    shown: Mapping[str, str]
    num_examples: int
    sums: Mapping[str, np.ndarray]

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value}" for name, value in self.shown.items())
        return f"{figures} on {self.num_examples:,} images"


class EvaluationStopped(Exception):  # noqa: N818 - nothing is wrong
    """An evaluation that was told to end before its time."""


class IncompleteEvaluationError(UserError):
    """An evaluation that saw more or fewer images than there are: its figures mean nothing."""


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
    """Add up `num_steps` results of `eval_step` over `batches`, and score them.

    Raises:
      IncompleteEvaluationError: when the images seen are not `num_examples`, or more than `max_missing`
        broken ones were left out.
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
    figures = task.score(sums, {name: np.concatenate(parts) for name, parts in rows.items()})
    return Evaluation(figures, task.format_score(figures), seen, sums)


def _wide(value: np.ndarray) -> np.ndarray:
    """The value in 64 bits: sums of 50,000 float32 losses lose digits otherwise."""
    return value.astype(np.int64 if value.dtype == np.int32 else np.float64)
