"""The section `task`: what the network learns."""

from typing import Literal

from pydantic import model_validator

from configs.schema.fields import (
    ConflictError,
    Count,
    InsideZeroToOne,
    Level,
    MaskValue,
    Natural,
    NotNegative,
    Positive,
    Scales,
    ZeroToOne,
)
from configs.sections import Section

ClassWeights = Literal["none", "balanced"] | tuple[Positive, ...]
Detector = Literal[
    "efficientdet-d0",
    "efficientdet-d1",
    "efficientdet-d2",
    "efficientdet-d3",
    "efficientdet-d4",
    "efficientdet-d5",
    "efficientdet-d6",
    "efficientdet-d7",
    "efficientdet-d7x",
    "efficientdet-lite0",
    "efficientdet-lite1",
    "efficientdet-lite2",
    "efficientdet-lite3",
    "efficientdet-lite3x",
    "efficientdet-lite4",
]


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

    @property
    def scores_whole_images(self) -> bool:
        """Whether the score counts everything that is in an image, whatever the network was shown."""
        return False


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
    skips: Literal["reductions", "expanded"] = "reductions"  # feature maps of the backbone
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


class Detection(Task):
    """Boxes of objects, each with its class: an EfficientDet on the backbone."""

    name: Literal["detection"] = "detection"
    detector: Detector = "efficientdet-d0"  # the published detector; model.name is the backbone
    filters: Count | None = None  # of the BiFPN and the heads; None: the detector's
    cells: Count | None = None  # of the BiFPN; None: the detector's
    head_repeats: Natural | None = None  # convolutions before a head's last; None: the detector's
    fusion: Literal["fast", "sum"] | None = None  # fast: weighted sums; None: the detector's
    max_level: Level | None = None  # coarsest level, 1 / 2^level of the image; None: the detector's
    anchor_scale: Scales | None = None  # sides in strides, one or by level; None: the detector's
    focal_alpha: ZeroToOne = 0.25  # weight of positives in the focal loss; of negatives: the rest
    focal_gamma: NotNegative = 1.5  # exponent of the focal loss
    huber_delta: Positive = 0.1  # where the box loss becomes linear, in sides of the anchor
    box_loss_weight: NotNegative = 50.0  # weight of the box loss beside the focal loss
    iou_loss: Literal["iou", "giou", "diou", "ciou"] | None = None  # additional loss of the boxes
    iou_loss_weight: Positive = 1.0  # weight of iou_loss
    nms: Literal["gaussian", "hard"] = "gaussian"  # lower scores of overlapping boxes, or drop them
    nms_iou: InsideZeroToOne = 0.5  # of nms=hard: overlap above which a box is dropped
    nms_sigma: Positive = 0.5  # of nms=gaussian: scores are multiplied by exp(-IoU^2 / sigma)
    nms_per_class: bool = True  # leave boxes of other classes alone
    least_score: ZeroToOne = 0.001  # detections with this score or less are dropped
    max_candidates: Natural = 5000  # best pairs of anchor and class; 0: each anchor's best class
    max_detections: Count = 100  # of an image
    max_boxes: Count = 100  # largest number of an image; more is an error

    @property
    def ignores(self) -> tuple[str, ...]:
        """Keys of other sections that have no effect with this task."""
        return ("eval.at", "model.dropout", "augment.mixup_alpha", "augment.cutmix_alpha")

    @property
    def scores_whole_images(self) -> bool:
        """True: an object outside of what the network was shown is missed."""
        return True

    @model_validator(mode="after")
    def _check_effect(self) -> "Detection":
        for key, needed, has_effect in (
            ("nms_iou", "nms=hard", self.nms == "hard"),
            ("nms_sigma", "nms=gaussian", self.nms == "gaussian"),
            ("iou_loss_weight", "iou_loss", self.iou_loss is not None),
        ):
            value = getattr(self, key)
            if value != type(self).model_fields[key].default and not has_effect:
                raise ConflictError(
                    f"task.{key}={value:g} has no effect without task.{needed}: leave it out",
                    f"task.{key}",
                    f"task.{needed.partition('=')[0]}",
                )
        return self
