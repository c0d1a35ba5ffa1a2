"""Tasks: loss, measurement and score, one file or folder each. A new task is one file and one row in TASKS.

`TASKS["multi_label"].task(Labels(num_classes), label_smoothing)` makes a task, and
`TASKS["multi_label"].target(max_labels=32)` its target, which reads the labels.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from input_pipeline.targets.boxes import Boxes
from input_pipeline.targets.class_label import ClassLabel
from input_pipeline.targets.class_labels import ClassLabels
from input_pipeline.targets.mask import Mask
from input_pipeline.targets.target import Target
from tasks.classification import Classification
from tasks.detection import detection
from tasks.multi_label import MultiLabel
from tasks.segmentation import Segmentation
from tasks.task import Labels, Task

__all__ = ["TASKS", "Labels", "Target", "Task", "TaskKind"]


class TaskKind(NamedTuple):
    """A task, and what it reads beside the images.

    Attributes:
      task: takes the labels of the data, the label smoothing, and the settings of the section `task`
        that the target does not take.
      target: takes `target_settings`.
      target_settings: names of the settings that belong to the target.
    """

    task: Callable[..., Task]
    target: Callable[..., Target]
    target_settings: frozenset[str] = frozenset()


TASKS: Mapping[str, TaskKind] = {
    "classification": TaskKind(Classification.of, ClassLabel),
    "multi_label": TaskKind(MultiLabel.of, ClassLabels, frozenset({"max_labels"})),
    "detection": TaskKind(detection, Boxes, frozenset({"max_boxes"})),
    "segmentation": TaskKind(Segmentation.of, Mask, frozenset({"first_value", "ignore_value"})),
}
