"""Learning rates as functions of the step, with the warm-up of the reference.

The warm-up overrides the schedule instead of delaying it: at its end the rate is that of the schedule
without warm-up, so an exponential schedule drops at once to 0.97**2 of its peak.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from system.errors import UsageError

Schedule = Callable[[tf.Tensor], tf.Tensor]  # int32 [] step -> float32 [] rate


def scaled_rate(rate_per_256: float, global_batch_size: int) -> float:
    """Scale a rate for 256 examples linearly to the global batch."""
    return rate_per_256 * global_batch_size / 256


def exponential(
    *, peak: float, decay_every: float, decay_rate: float, total_steps: float | None = None
) -> Schedule:
    """`peak * decay_rate ** floor(step / decay_every)`; `decay_every` in steps, may be a fraction."""

    def rate(step: tf.Tensor) -> tf.Tensor:
        # The quotient in float64, or a staircase could be a step late; the power in float32, as in the
        # reference (a float64 one is 4e-6 away after 145 decays).
        times = tf.floor(tf.cast(step, tf.float64) / decay_every)
        return peak * tf.pow(tf.constant(decay_rate, tf.float32), tf.cast(times, tf.float32))

    return rate


def cosine(*, peak: float, total_steps: float, ends_before: float = 0.0) -> Schedule:
    """Half a cosine from `peak` at step 0 to 0 at `ends_before` steps before `total_steps`, and 0 from there.

    Raises:
      UsageError: `ends_before` leaves no step.
    """
    if ends_before >= total_steps:
        raise UsageError(
            f"schedule.ends_before: {ends_before:g} steps of a training of {total_steps:g}; expected fewer"
        )
    total_steps -= ends_before

    def rate(step: tf.Tensor) -> tf.Tensor:
        progress = tf.minimum(tf.cast(step, tf.float32) / total_steps, 1.0)
        return 0.5 * peak * (1.0 + tf.cos(math.pi * progress))

    return rate


def constant(*, peak: float, total_steps: float | None = None) -> Schedule:
    """`peak` at every step."""
    return lambda step: tf.constant(peak, tf.float32)


def polynomial(*, peak: float, total_steps: float, power: float, end_share: float) -> Schedule:
    """From `peak` to `end_share * peak` at `total_steps`, along a power of the share of steps left."""

    def rate(step: tf.Tensor) -> tf.Tensor:
        left = tf.maximum(1.0 - tf.cast(step, tf.float32) / total_steps, 0.0)
        return peak * (end_share + (1.0 - end_share) * tf.pow(left, power))

    return rate


def stepwise(
    *, peak: float, total_steps: float, boundaries: Sequence[float], factors: Sequence[float]
) -> Schedule:
    """`peak * factors[i]` from `boundaries[i - 1]` on, which are steps and may be fractions."""

    def rate(step: tf.Tensor) -> tf.Tensor:
        # In float64: a boundary at a fraction of a step belongs to the next whole one.
        passed = tf.cast(step, tf.float64)[..., tf.newaxis] >= tf.constant(boundaries, tf.float64)
        return peak * tf.gather(
            tf.constant(factors, tf.float32), tf.reduce_sum(tf.cast(passed, tf.int32), -1)
        )

    return rate


# Each takes its peak rate, the steps of the training, and its own settings with durations in steps.
SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
    "exponential": exponential,
    "cosine": cosine,
    "constant": constant,
    "polynomial": polynomial,
    "stepwise": stepwise,
}


def with_warmup(
    schedule: Schedule, *, peak: float, warmup_steps: int, start: float = 0.0
) -> Schedule:
    """`schedule`, but linear from `start` to `peak` over the first `warmup_steps` steps."""
    if not warmup_steps:
        return schedule

    def rate(step: tf.Tensor) -> tf.Tensor:
        progress = (peak - start) * tf.cast(step, tf.float64) / warmup_steps
        warm = tf.cast(progress + start, tf.float32)
        return tf.where(step < warmup_steps, warm, schedule(step))

    return rate


def shift(schedule: Schedule, steps: float) -> Schedule:
    """`schedule` as it is `steps` later (earlier if negative), which may be a fraction."""
    if not steps:
        return schedule
    return lambda step: schedule(tf.cast(step, tf.float64) + steps)
