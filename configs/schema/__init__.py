"""The schema of an experiment: every field with its unit, range and default.

The defaults are the published EfficientNet recipe (AutoAugment, 350 epochs), so a YAML file needs only
the differences. Everything is frozen and validated; an unknown key is an error. The comment of a field is
its line in docs/experiments.md; if the default is None, it has the source of the real value. Some
sections come in kinds (see configs.sections): the class that they extend has the fields that all of them
share.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from configs.schema.augment import AutoAugment, Cutout, NoAugment, RandAugment
from configs.schema.data import (
    COCO,
    CSV,
    TFDS,
    VOC,
    YOLO,
    Digits,
    DigitScenes,
    ImageFolder,
    MaskFolder,
    Synthetic,
    Textures,
    TFRecord,
    VOCBoxes,
)
from configs.schema.fields import ConflictError, FileName, Text
from configs.schema.model import BatchNorm, Init, Model
from configs.schema.optimizer import (
    LARS,
    SGD,
    AdamW,
    Constant,
    Cosine,
    Exponential,
    Polynomial,
    RMSProp,
    Stepwise,
)
from configs.schema.results import CenterCrop, Checkpoint, Export, Letterbox, Squash
from configs.schema.stages import Progressive, StageOverlay
from configs.schema.task import Classification, Detection, MultiLabel, Segmentation
from configs.schema.train import Benchmark, Ema, LearningRateRange, Train
from configs.sections import By, Kinds, Section, kinds_of


class Experiment(Section):
    """A whole experiment: the network, the data, the training, and what to keep."""

    name: FileName = "experiment"  # what the run is called
    model_dir: Text | None = None  # checkpoints, curves, exports; --model_dir; None: runs/NAME
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0  # of every random choice
    model: Model = Model()
    task: Annotated[Classification | MultiLabel | Segmentation | Detection, By("name")] = (
        Classification()
    )
    data: Annotated[
        TFRecord
        | ImageFolder
        | CSV
        | MaskFolder
        | VOC
        | COCO
        | VOCBoxes
        | YOLO
        | Digits
        | DigitScenes
        | Textures
        | Synthetic
        | TFDS,
        By("source"),
    ] = TFRecord()
    augment: Annotated[AutoAugment | RandAugment | Cutout | NoAugment, By("policy")] = AutoAugment()
    train: Train = Train()
    optimizer: Annotated[RMSProp | SGD | AdamW | LARS, By("name")] = RMSProp()
    schedule: Annotated[Exponential | Cosine | Constant | Polynomial | Stepwise, By("name")] = (
        Exponential()
    )
    ema: Ema = Ema()
    batch_norm: BatchNorm = BatchNorm()
    eval: Annotated[CenterCrop | Squash | Letterbox, By("framing")] = CenterCrop()
    checkpoint: Checkpoint = Checkpoint()
    init: Init = Init()
    export: Export = Export()
    lr_range: LearningRateRange = LearningRateRange()
    benchmark: Benchmark = Benchmark()
    stages: tuple[StageOverlay, ...] = ()  # parts of the training, in order; none: one of all
    progressive: Progressive | None = None  # instead of `stages`, which it becomes when it is read

    @model_validator(mode="after")
    def _check_task(self) -> "Experiment":
        for key in self.task.ignores:
            name, _, field = key.partition(".")
            section = getattr(self, name)
            value, default = getattr(section, field), type(section).model_fields[field].default
            if value != default:
                raise ConflictError(
                    f"{key}={value} has no effect with task.name={self.task.name}: leave it out",
                    key,
                    "task.name",
                )
        if self.task.scores_whole_images and self.eval.framing == "center_crop":
            raise ConflictError(
                f"task.name={self.task.name} counts every object of an image, and eval.framing=center_crop"
                " cuts some off: set eval.framing=letterbox or squash",
                "task.name",
                "eval.framing",
            )
        if self.task.of_whole_batch and self.train.accumulation_steps > 1:
            raise ConflictError(
                f"task.{self.task.of_whole_batch} is a ratio of sums over the whole batch, and"
                f" train.accumulation_steps={self.train.accumulation_steps} computes it in parts: set it to"
                " 1, or take cross_entropy or focal",
                f"task.{self.task.of_whole_batch}",
                "train.accumulation_steps",
            )
        return self

    @model_validator(mode="after")
    def _check_lars_decay(self) -> "Experiment":
        if self.optimizer.name == "lars" and self.train.weight_decay_coupled:
            raise ConflictError(
                "optimizer.name=lars takes the weight decay into its trust ratio, not into the loss: leave"
                " train.weight_decay_coupled out",
                "optimizer.name",
                "train.weight_decay_coupled",
            )
        return self

    @model_validator(mode="after")
    def _check_balance(self) -> "Experiment":
        weights = getattr(self.task, "class_weights", "none")
        if weights == "balanced" and getattr(self.data, "sampling", "uniform") == "balanced":
            raise ConflictError(
                "task.class_weights=balanced and data.sampling=balanced both make up for uneven classes: give"
                " one of the two",
                "task.class_weights",
                "data.sampling",
            )
        return self

    @model_validator(mode="after")
    def _check_average_is_kept(self) -> "Experiment":
        for key, chosen in (
            ("eval.weights", self.eval.weights),
            ("export.weights", self.export.weights),
        ):
            if chosen == "ema" and not self.ema.decay:
                raise ConflictError(
                    f"{key}=ema needs a moving average, and ema.decay=0 keeps none: leave {key} out,"
                    " set it to raw, or raise ema.decay",
                    key,
                    "ema.decay",
                )
        return self


# The sections that come in kinds.
KINDS: Mapping[str, Kinds] = {
    name: kinds for name, field in Experiment.model_fields.items() if (kinds := kinds_of(field))
}


def section_classes() -> dict[str, tuple[type[Section], ...]]:
    """Return the possible classes of each section of an experiment."""
    classes: dict[str, tuple[type[Section], ...]] = {}
    for name, field in Experiment.model_fields.items():
        if name in KINDS:
            classes[name] = tuple(KINDS[name].classes.values())
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            classes[name] = (field.annotation,)
    return classes
