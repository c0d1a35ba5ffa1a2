"""The sections `train` and `ema`: the training loop, and the average of the weights."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.durations import Duration, PositiveDuration
from configs.schema.fields import (
    NOT_BATCH_NORM,
    BelowOne,
    ConflictError,
    Count,
    Natural,
    NotNegative,
    Pattern,
    Positive,
    Steps,
    Text,
)
from configs.sections import Section


class Train(Section):
    """The training loop: its length, its batches and its loss."""

    global_batch_size: Count = 4096  # examples per update, over all replicas and accumulation steps
    duration: PositiveDuration = Duration(350, "epochs")  # of the whole training
    patience: Count | None = None  # evaluations in a row without a better one end it; None: never
    accumulation_steps: Count = 1  # micro-batches per update on each replica
    steps_per_call: Count = 100  # steps between two returns to Python
    label_smoothing: BelowOne = 0.1  # share of the target spread evenly over all classes
    weight_decay: NotNegative = 1e-5  # of the variables in weight_decay_pattern
    weight_decay_coupled: bool | None = None  # L2 in the loss, or apart; None: by the optimizer
    weight_decay_pattern: Pattern = NOT_BATCH_NORM  # paths of the variables that decay
    gradient_clip_norm: Positive | None = None  # of the whole gradient, after the all-reduce
    gradient_clip_each: Positive | None = None  # of the gradient of each variable
    trainable: Text | tuple[Text, ...] = "all"  # all, head, stages>=N, blocks>=N, path patterns
    freeze_batch_norm: bool = False  # normalise by the moving statistics, and keep them
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"  # by device
    on_nonfinite: Literal["stop", "skip"] = "stop"  # at a loss or gradient that is not finite
    max_skipped_steps: Natural | None = None  # for on_nonfinite=skip: more stop the run; None: 10
    profile_steps: Steps | None = None  # whose calls are profiled for TensorBoard; None: no profile

    @model_validator(mode="after")
    def _check_skipped_steps(self) -> "Train":
        if self.max_skipped_steps is not None and self.on_nonfinite != "skip":
            raise ConflictError(
                f"train.max_skipped_steps={self.max_skipped_steps} has no effect with"
                f" train.on_nonfinite={self.on_nonfinite}: it is for skip",
                "train.max_skipped_steps",
                "train.on_nonfinite",
            )
        return self

    @model_validator(mode="after")
    def _check_micro_batches(self) -> "Train":
        if self.global_batch_size % self.accumulation_steps:
            raise ConflictError(
                f"train.accumulation_steps={self.accumulation_steps} must divide"
                f" train.global_batch_size={self.global_batch_size}",
                "train.accumulation_steps",
                "train.global_batch_size",
            )
        return self


class Ema(Section):
    """The moving average of the weights that is evaluated and exported."""

    decay: BelowOne = 0.9999  # 0: no averaging
    ramp: bool = True  # min(decay, (1 + t) / (10 + t)): useful from the first epoch on
    ramp_start: Annotated[int, Field(ge=0, le=1)] = 1  # t at the first update; the detector's: 0
    statistics: bool = True  # average batch norm's statistics too; false: take them as they are

    @model_validator(mode="after")
    def _check_effect(self) -> "Ema":
        if self.ramp_start != 1 and not (self.ramp and self.decay):
            raise ConflictError(
                f"ema.ramp_start={self.ramp_start} has no effect without a ramp: it needs ema.ramp=true"
                " and ema.decay above 0",
                "ema.ramp_start",
                "ema.ramp",
                "ema.decay",
            )
        if not self.ramp and not self.decay:
            raise ConflictError(
                "ema.ramp=false has no effect with ema.decay=0, which keeps no average",
                "ema.ramp",
                "ema.decay",
            )
        if not self.statistics and not self.decay:
            raise ConflictError(
                "ema.statistics=false has no effect with ema.decay=0, which keeps no average",
                "ema.statistics",
                "ema.decay",
            )
        return self


class LearningRateRange(Section):
    """The learning rates that --mode=lr_range tries, rising exponentially."""

    steps: Annotated[int, Field(ge=20)] = 200  # number of updates
    lowest: Positive = 1e-5  # first rate, as schedule.learning_rate
    highest: Positive = 10.0  # last rate; the test ends before it when the loss diverges

    @model_validator(mode="after")
    def _check_order(self) -> "LearningRateRange":
        if self.lowest >= self.highest:
            raise ConflictError(
                f"lr_range.lowest={self.lowest:g} must be below lr_range.highest={self.highest:g}",
                "lr_range.lowest",
                "lr_range.highest",
            )
        return self


class Benchmark(Section):
    """What --mode=benchmark measures of each stage."""

    warmup_steps: Count = 20  # updates before the measured ones
    steps: Count = 100  # measured updates
