"""`stages` and `progressive`: parts of the training with settings of their own."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.durations import StageLength
from configs.schema.fields import ConflictError, Growth, SideRange, StageSettings
from configs.sections import Section

# What a stage may set; a section stands for all of its fields. The rest is fixed when a run begins: it
# decides which variables there are, or which images.
STAGE_KEYS = (
    "model.image_size",
    "model.dropout",
    "model.survival_probability",
    "augment",
    "train.global_batch_size",
    "train.accumulation_steps",
    "train.steps_per_call",
    "train.label_smoothing",
    "train.weight_decay",
    "train.gradient_clip_norm",
    "train.gradient_clip_each",
    "train.trainable",
    "train.freeze_batch_norm",
    "optimizer.layer_decay",
    "schedule",
    "eval.every",
    "checkpoint.every",
)


class StageOverlay(Section):
    """A part of the training with settings of its own."""

    duration: StageLength | None = None  # a share of train.duration, or a duration; None: the rest
    set: StageSettings = Field(default_factory=dict)  # values of this stage by key


class Progressive(Section):
    """Progressive learning: stages of one length whose images and regularisation grow."""

    stages: Annotated[int, Field(ge=2, le=8)] = 4  # number of stages
    rule: Literal["code", "paper"] = "code"  # how sizes grow: as the published code or the paper
    image_size: SideRange | None = None  # [first, last]; None: constant; by code, stage 1 is larger
    magnitude: Growth | None = None  # of RandAugment, [first stage, last stage]; None: constant
    mixup_alpha: Growth | None = None  # [first stage, last stage]; None: constant
    cutmix_alpha: Growth | None = None  # [first stage, last stage]; None: constant
    dropout: Growth | None = None  # [first stage, last stage]; None: constant

    @model_validator(mode="after")
    def _check_effect(self) -> "Progressive":
        growing = [name for name in Progressive.model_fields if name not in ("stages", "rule")]
        if all(getattr(self, name) is None for name in growing):
            raise ConflictError(
                f"progressive has no effect without one of {', '.join(growing)}",
                "progressive",
            )
        if self.rule != "code" and self.image_size is None:
            raise ConflictError(
                f"progressive.rule={self.rule} has no effect without progressive.image_size, which it is for",
                "progressive.rule",
                "progressive.image_size",
            )
        return self
