"""The section `task`: what the network learns."""

from typing import Literal

from configs.schema.fields import Count, Positive
from configs.sections import Section

ClassWeights = Literal["none", "balanced"] | tuple[Positive, ...]


class Task(Section):
    """What the network learns."""

    name: str  # how labels become a loss and a score


class Classification(Task):
    """One class for each image: softmax."""

    name: Literal["classification"] = "classification"
    class_weights: ClassWeights = "none"  # factors on the loss of a class; balanced: 1 / its images
    best: Literal["top_1", "mean_per_class"] = "top_1"  # accuracy that compares checkpoints


class MultiLabel(Task):
    """Any number of classes for each image: a sigmoid for each class."""

    name: Literal["multi_label"] = "multi_label"
    max_labels: Count = 32  # largest number of labels of an image
