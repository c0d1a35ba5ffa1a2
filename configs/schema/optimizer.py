"""The sections `optimizer` and `schedule`: the update rule and its rate."""

import itertools
from typing import Literal

from pydantic import model_validator

from configs.durations import UNITS, Duration, PositiveDuration
from configs.schema.fields import BelowOne, ConflictError, Pattern, Positive, Share, ZeroToOne
from configs.sections import Section


class Optimizer(Section):
    """The rule that turns gradients into updates."""

    name: str  # the update rule
    layer_decay: Share = 1.0  # factor on the rate for each stage below the classifier


class RMSProp(Optimizer):
    """RMSProp as published: momentum over the scaled rate, epsilon inside the root."""

    name: Literal["rmsprop"] = "rmsprop"
    decay: BelowOne = 0.9  # of the mean square
    momentum: BelowOne = 0.9  # of the update
    epsilon: Positive = 1e-3  # added to the mean square, inside the root


class SGD(Optimizer):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    momentum: BelowOne = 0.9  # of the gradient
    nesterov: bool = False  # Nesterov's momentum: look one step ahead
    rate_in_velocity: bool = False  # Keras' form: a change of the rate acts on new gradients alone


class AdamW(Optimizer):
    """Adam with bias correction (arXiv 1412.6980); decoupled decay by train.weight_decay_coupled."""

    name: Literal["adamw"] = "adamw"
    beta_1: BelowOne = 0.9  # of the mean gradient
    beta_2: BelowOne = 0.999  # of the mean square
    epsilon: Positive = 1e-8  # added to the root of the mean square


class LARS(Optimizer):
    """Layer-wise rates for large batches (arXiv 1708.03888)."""

    name: Literal["lars"] = "lars"
    momentum: BelowOne = 0.9  # of the scaled gradient
    coefficient: Positive = 0.001  # how far a variable may move, as a share of its norm
    unscaled: Pattern = r".*/(gamma|beta|bias)$"  # paths of the variables with the plain rate


class Schedule(Section):
    """The learning rate over time."""

    name: str  # the curve after the warm-up
    learning_rate: Positive = 0.016  # per 256 examples of the global batch
    warmup: Duration = Duration(5, "epochs")  # linear; overrides the schedule, no delay
    warmup_from: ZeroToOne = 0.0  # where the warm-up starts, as a share of the peak


class Exponential(Schedule):
    """A staircase that falls by the same factor each time."""

    name: Literal["exponential"] = "exponential"
    decay_every: PositiveDuration = Duration(2.4, "epochs")  # length of a stair
    decay_rate: Share = 0.97  # factor from one stair to the next


class Cosine(Schedule):
    """Half a cosine, down to 0 at the end of the training."""

    name: Literal["cosine"] = "cosine"
    ends_before: Duration = Duration(0, "epochs")  # the rest of the training has rate 0


class Polynomial(Schedule):
    """A power of the time left: 1 is a straight line."""

    name: Literal["polynomial"] = "polynomial"
    power: Positive = 1.0  # exponent of the share of the training that is left
    end_share: ZeroToOne = 0.0  # rate at the end, as a share of the peak


class Stepwise(Schedule):
    """Constant between boundaries."""

    name: Literal["stepwise"] = "stepwise"
    boundaries: tuple[PositiveDuration, ...] = ()  # where the next factor takes over
    factors: tuple[ZeroToOne, ...] = (1.0,)  # of the peak: before, between and after them

    @property
    def unsorted_boundaries(self) -> tuple[Duration, Duration] | None:
        """The first two boundaries of one unit that do not increase."""
        for unit in UNITS:  # how two units compare depends on the data and the batch
            of_unit = (each for each in self.boundaries if each.unit == unit)
            for earlier, later in itertools.pairwise(of_unit):
                if earlier.amount >= later.amount:
                    return earlier, later
        return None

    @model_validator(mode="after")
    def _check_factors(self) -> "Stepwise":
        if len(self.factors) != len(self.boundaries) + 1:
            raise ConflictError(
                f"schedule.factors has {len(self.factors)} entries for {len(self.boundaries)} boundaries;"
                " expected one more than boundaries",
                "schedule.factors",
                "schedule.boundaries",
            )
        return self


class Constant(Schedule):
    """The same rate at every step."""

    name: Literal["constant"] = "constant"
