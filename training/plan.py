"""Plan: the durations of a run and of its stages in steps."""

import dataclasses
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from configs.durations import Percentage, exact
from configs.load import stage_experiments
from configs.schema import Experiment, StageOverlay
from system.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a training with settings of its own; a training without stages is one.

    Steps count from the start of the training.

    Attributes:
      number: position among the stages, from 0.
      experiment: settings of this stage.
      first_step: updates made before it.
      end_step: updates made at its end.
      first_example: place of its first example in the stream of all.
      schedule_start: place in the stream where the schedule of its learning rate begins.
      schedule_end: place where that schedule ends.
      eval_every_steps: steps between two evaluations, counted from `first_step`.
      checkpoint_every_steps: steps between two checkpoints, counted from `first_step`.
      num_examples: training examples of one epoch.
    """

    number: int
    experiment: Experiment
    first_step: int
    end_step: int
    first_example: int
    schedule_start: int
    schedule_end: int
    eval_every_steps: int
    checkpoint_every_steps: int
    num_examples: int

    @property
    def global_batch_size(self) -> int:
        """Examples per update."""
        return self.experiment.train.global_batch_size

    @property
    def steps_per_epoch(self) -> float:
        """Steps of one pass over the data; a fraction if the batch does not divide the data."""
        return self.num_examples / self.global_batch_size

    def next_stop(self, step: int) -> int:
        """Return the next step after `step`, within this stage, at which control returns to Python."""
        done = step - self.first_step
        periods = (
            self.eval_every_steps,
            self.checkpoint_every_steps,
            self.experiment.train.steps_per_call,
        )
        return min(self.end_step, *(step - done % period + period for period in periods))

    def evaluates_at(self, step: int) -> bool:
        """Return whether an evaluation follows `step`: every `eval_every_steps`, and at the end."""
        return self._recurs_at(step, self.eval_every_steps)

    def evaluations_until(self, step: int) -> int:
        """Return the number of evaluations of this stage up to `step`."""
        done = min(max(step, self.first_step), self.end_step) - self.first_step
        last = done == self.end_step - self.first_step and done % self.eval_every_steps > 0
        return done // self.eval_every_steps + last

    def saves_at(self, step: int) -> bool:
        """Return whether a checkpoint follows `step`: every `checkpoint_every_steps`, and at the end."""
        return self._recurs_at(step, self.checkpoint_every_steps)

    def _recurs_at(self, step: int, every_steps: int) -> bool:
        return (step - self.first_step) % every_steps == 0 or step == self.end_step


@dataclasses.dataclass(frozen=True)
class Plan:
    """The stages of a run, in order, without gaps.

    Attributes:
      stages: at least one.
      num_examples: training examples of one epoch.
    """

    stages: tuple[Stage, ...]
    num_examples: int

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.stages[-1].end_step

    def stage_at(self, step: int) -> Stage:
        """Return the stage that continues the training after `step` updates; the last one at its end."""
        return next((stage for stage in self.stages if step < stage.end_step), self.stages[-1])

    def stage_until(self, step: int) -> Stage:
        """Return the stage that the update number `step` belongs to, counted from 1."""
        return self.stage_at(max(step - 1, 0))

    def calls_from(self, step: int) -> Iterator[tuple[Stage, int]]:
        """Yield stage and last step of each call of the training loop that is left after `step` updates."""
        while step < self.total_steps:
            stage = self.stage_at(step)
            step = stage.next_stop(step)
            yield stage, step

    def examples_at(self, step: int) -> int:
        """Return the number of examples seen after `step` updates."""
        stage = self.stage_until(step)
        return stage.first_example + (step - stage.first_step) * stage.global_batch_size

    def epochs_at(self, step: int) -> float:
        """Return the passes over the data after `step` updates."""
        return self.examples_at(step) / self.num_examples

    def evaluations(self, after: int, until: int) -> int:
        """Return the number of evaluations that follow the steps from `after` + 1 to `until`."""
        return sum(
            stage.evaluations_until(until) - stage.evaluations_until(after) for stage in self.stages
        )

    def name_step(self, step: int) -> str:
        """Return "step 120, stage 2 of 3"; no stage if there is one."""
        number = self.stage_until(step).number + 1
        return f"step {step}" + (
            f", stage {number} of {len(self.stages)}" if len(self.stages) > 1 else ""
        )

    def describe(self, step: int) -> str:
        """Return the name of a step with its epoch: "step 120, stage 2 of 3, epoch 7.5"."""
        return f"{self.name_step(step)}, epoch {self.epochs_at(step):.1f}"


def format_stage(overlay: StageOverlay) -> str:
    """Format what a stage sets: "model.image_size=128, augment.magnitude=5"."""
    settings = ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in overlay.set.items()
    )
    return settings or "as the training's own settings"


def make_plan(experiment: Experiment, num_examples: int) -> Plan:
    """Convert the experiment's durations into steps for a training set of `num_examples`.

    The ends of stages are added up in examples, exactly, and rounded down to steps once: all stages
    together are as long as the training, up to a step.

    Raises:
      UsageError: the stages do not add up to train.duration, or one is shorter than a step.
    """
    settings = stage_experiments(experiment)
    spans = list(_spans(settings, _ends(experiment, settings, num_examples)))
    last = spans[-1].end_example
    return Plan(
        tuple(
            _make_stage(
                number, each, span, num_examples, _schedule_span(experiment, number, span, last)
            )
            for number, (each, span) in enumerate(zip(settings, spans, strict=True))
        ),
        num_examples,
    )


class _Span(NamedTuple):
    """A part of the stream of examples and the steps that read it."""

    first_step: int
    end_step: int
    first_example: int
    end_example: int


def _make_stage(
    number: int,
    experiment: Experiment,
    span: _Span,
    num_examples: int,
    schedule: tuple[int, int],
) -> Stage:
    size = experiment.train.global_batch_size
    steps = {"num_examples": num_examples, "global_batch_size": size}
    return Stage(
        number=number,
        experiment=experiment,
        first_step=span.first_step,
        end_step=span.end_step,
        first_example=span.first_example,
        schedule_start=schedule[0],
        schedule_end=schedule[1],
        eval_every_steps=experiment.eval.every.whole_steps(**steps),
        checkpoint_every_steps=experiment.checkpoint.every.whole_steps(**steps),
        num_examples=num_examples,
    )


def _spans(settings: Sequence[Experiment], ends: Sequence[Fraction]) -> Iterator[_Span]:
    """Yield the whole steps of each stage; what a stage leaves over belongs to the next one."""
    step = example = 0
    for number, (experiment, end) in enumerate(zip(settings, ends, strict=True)):
        size = experiment.train.global_batch_size
        length = int((end - example) / size)
        if length < 1 and len(settings) > 1:
            raise UsageError(
                f"stages[{number}] is shorter than one step of {size} images with "
                f"train.duration={experiment.train.duration}; lengthen the stage or the training"
            )
        length = max(length, 1)
        yield _Span(step, step + length, example, example + length * size)
        step, example = step + length, example + length * size


def _ends(
    experiment: Experiment, settings: Sequence[Experiment], num_examples: int
) -> list[Fraction]:
    """Return the place in the stream, exactly, where each stage ends.

    Shares are of the training's whole steps, as in the published code: three quarters of 109,474 steps
    are 82,105, not the 82,106 of three quarters of 350 epochs.
    """

    steps = {"num_examples": num_examples}
    total = experiment.train.duration.in_examples(
        **steps, global_batch_size=experiment.train.global_batch_size
    )

    size = experiment.train.global_batch_size
    whole = Fraction(int(total / size) * size)

    def length(overlay: StageOverlay, own: Experiment) -> Fraction | None:
        if isinstance(overlay.duration, Percentage):
            return whole * exact(overlay.duration.amount) / 100
        if overlay.duration is None:
            return None
        return overlay.duration.in_examples(**steps, global_batch_size=own.train.global_batch_size)

    if not experiment.stages:
        return [total]
    ends: list[Fraction] = []
    for number, (overlay, own) in enumerate(zip(experiment.stages, settings, strict=True)):
        taken = length(overlay, own)
        if taken is not None:
            ends.append((ends[-1] if ends else Fraction(0)) + taken)
        elif number == len(settings) - 1:
            ends.append(total)
        else:
            raise UsageError(
                f"stages[{number}] has no duration; only the last stage may take the rest"
            )
    if not whole <= ends[-1] <= total:
        raise UsageError(
            f"stages cover {float(100 * ends[-1] / total):.6g} % of train.duration="
            f"{experiment.train.duration}; make it 100 %, or leave the last stage's duration out: it takes "
            "the rest"
        )
    return ends


def _schedule_span(experiment: Experiment, number: int, span: _Span, last: int) -> tuple[int, int]:
    """Return the part of the stream over which a stage's learning rate follows its schedule.

    That is the whole training, unless the stage sets a field of `schedule`: then it is the stage.
    """
    overlay = experiment.stages[number] if experiment.stages else StageOverlay()
    if any(key.partition(".")[0] == "schedule" for key in overlay.set):
        return span.first_example, span.end_example
    return 0, last
