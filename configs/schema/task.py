"""The section `task`: what the network learns."""

from typing import Literal

from pydantic import model_validator

from configs.schema.fields import ConflictError, Count, MaskValue, NotNegative, Positive
from configs.sections import Section

ClassWeights = Literal["none", "balanced"] | tuple[Positive, ...]


class Task(Section):
    """What the network learns."""

    name: str  # how labels become a loss and a score

    @property
    def ignores(self) -> tuple[str, ...]:
        """Keys of other sections that have no effect with this task."""
        return ("eval.at",)

    @property
    def of_whole_batch(self) -> str | None:
        """A part of the loss that micro-batches cannot be summed to, if there is one."""
        return None


class Classification(Task):
    """One class for each image: softmax."""

    name: Literal["classification"] = "classification"
    class_weights: ClassWeights = "none"  # factors on the loss of a class; balanced: 1 / its images
    best: Literal["top_1", "mean_per_class"] = "top_1"  # accuracy that compares checkpoints


class MultiLabel(Task):
    """Any number of classes for each image: a sigmoid for each class."""

    name: Literal["multi_label"] = "multi_label"
    max_labels: Count = 32  # largest number of labels of an image


class Segmentation(Task):
    """A class for each pixel: a U-Net on the backbone, trained on masks."""

    name: Literal["segmentation"] = "segmentation"
    cross_entropy: NotNegative = 1.0  # weight of the cross entropy in the loss; 0: none
    focal: NotNegative = 0.0  # weight of the focal loss; 0: none
    dice: NotNegative = 0.0  # weight of the dice loss; 0: none
    jaccard: NotNegative = 0.0  # weight of the jaccard loss, 1 - IoU; 0: none
    class_weights: tuple[Positive, ...] | None = None  # of each class in the losses; None: 1
    focal_gamma: NotNegative = 2.0  # exponent of the focal loss
    decoder_filters: tuple[Count, ...] = (256, 128, 64, 32, 16)  # of each block, coarsest first
    skips: Literal["reductions", "expanded"] = "reductions"  # the backbone's maps that it takes
    first_value: MaskValue = 0  # in masks, of the first class; lower values are not counted
    ignore_value: MaskValue = 255  # in masks, of pixels that are not counted

    @property
    def ignores(self) -> tuple[str, ...]:
        """Keys of other sections that have no effect with this task."""
        keys = ("model.dropout", "augment.mixup_alpha", "augment.cutmix_alpha")
        return keys if self.cross_entropy else (*keys, "train.label_smoothing")

    @property
    def of_whole_batch(self) -> str | None:
        """Dice or jaccard: ratios of sums over the batch."""
        return next((name for name in ("dice", "jaccard") if getattr(self, name)), None)

    @model_validator(mode="after")
    def _check_effect(self) -> "Segmentation":
        if not (self.cross_entropy or self.focal or self.dice or self.jaccard):
            raise ConflictError(
                "task.cross_entropy=0 leaves no loss: set it, focal, dice or jaccard above 0",
                "task.cross_entropy",
            )
        if self.focal_gamma != 2.0 and not self.focal:
            raise ConflictError(
                f"task.focal_gamma={self.focal_gamma:g} has no effect with task.focal=0",
                "task.focal_gamma",
                "task.focal",
            )
        return self
