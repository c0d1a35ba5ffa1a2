"""Tasks: loss, measurement and score, one file or folder each. A new task is one file and one row in TASKS.

`TASKS["multi_label"].task(num_classes, label_smoothing)` is a task; what it needs to know about the data
is its target: `TASKS["multi_label"].target(max_labels=32)`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from input_pipeline.targets.class_label import ClassLabel
from input_pipeline.targets.class_labels import ClassLabels
from input_pipeline.targets.target import Target
from tasks.classification import Classification
from tasks.multi_label import MultiLabel
from tasks.task import Task

__all__ = ["TASKS", "Target", "Task", "TaskKind"]


class TaskKind(NamedTuple):
    """A task, and what it reads beside the images.

    Attributes:
      task: takes the number of classes and the label smoothing.
      target: takes the settings of the task's own.
    """

    task: Callable[[int, float], Task]
    target: Callable[..., Target]


TASKS: Mapping[str, TaskKind] = {
    "classification": TaskKind(Classification, ClassLabel),
    "multi_label": TaskKind(MultiLabel, ClassLabels),
}
