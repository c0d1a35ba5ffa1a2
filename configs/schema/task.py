"""The section `task`: what the network learns."""

from typing import Literal

from configs.schema.fields import Count
from configs.sections import Section


class Task(Section):
    """What the network learns."""

    name: str  # how labels become a loss and a score


class Classification(Task):
    """One class for each image: softmax."""

    name: Literal["classification"] = "classification"


class MultiLabel(Task):
    """Any number of classes for each image: a sigmoid for each class."""

    name: Literal["multi_label"] = "multi_label"
    max_labels: Count = 32  # largest number of labels of an image
