"""Plan: the durations of a run in steps."""

import dataclasses

from configs.schema import Experiment


@dataclasses.dataclass(frozen=True)
class Plan:
    """Durations in steps.

    Attributes:
      total_steps: steps of the whole training.
      eval_every_steps: steps between two evaluations.
      checkpoint_every_steps: steps between two checkpoints.
      steps_per_call: largest number of steps on the device between two returns to Python.
      steps_per_epoch: steps of one pass over the data; a fraction if the batch does not divide the data.
    """

    total_steps: int
    eval_every_steps: int
    checkpoint_every_steps: int
    steps_per_call: int
    steps_per_epoch: float

    def next_stop(self, step: int) -> int:
        """Return the next step after `step` at which control returns to Python."""
        periods = (self.eval_every_steps, self.checkpoint_every_steps, self.steps_per_call)
        return min(self.total_steps, *(step - step % period + period for period in periods))

    def evaluates_at(self, step: int) -> bool:
        """Return whether an evaluation follows `step`: every `eval_every_steps`, and at the end."""
        return self._recurs_at(step, self.eval_every_steps)

    def saves_at(self, step: int) -> bool:
        """Return whether a checkpoint follows `step`: every `checkpoint_every_steps`, and at the end."""
        return self._recurs_at(step, self.checkpoint_every_steps)

    def _recurs_at(self, step: int, every_steps: int) -> bool:
        return step % every_steps == 0 or step == self.total_steps


def make_plan(experiment: Experiment, num_examples: int) -> Plan:
    """Convert the experiment's durations into steps for a training set of `num_examples`."""
    size = experiment.train.global_batch_size
    steps = {"num_examples": num_examples, "global_batch_size": size}
    return Plan(
        total_steps=experiment.train.duration.whole_steps(**steps),
        eval_every_steps=experiment.eval.every.whole_steps(**steps),
        checkpoint_every_steps=experiment.checkpoint.every.whole_steps(**steps),
        steps_per_call=experiment.train.steps_per_call,
        steps_per_epoch=num_examples / size,
    )
