"""Evaluator: the evaluation of a job, traced once for each kind of weights."""

from collections.abc import Callable
from typing import Any

from tasks.task import Measures
from training.build import make_normalizer
from training.evaluate import Evaluation, EvaluationStopped, evaluate
from training.failures import broken_data, evaluation_memory
from training.inputs import eval_input
from training.job import Job
from training.progress import step_progress
from training.step.state import TrainState, WeightsKind
from training.step.train_step import make_eval_step


def weights_kind(job: Job, state: TrainState) -> WeightsKind:
    """Return which weights are evaluated: those of eval.weights, or the average if the run keeps one."""
    return job.experiment.eval.weights or ("ema" if state.has_average else "raw")


class Evaluator:
    """Evaluates the current weights of a state at each call."""

    def __init__(self, job: Job, state: TrainState) -> None:
        self._job, self.state = job, state
        self._input = eval_input(job)
        self._batches = job.distribution.batches(self._input.make_dataset, job.eval_batch_size)
        self._steps: dict[WeightsKind, Callable[[Any], Measures]] = {}

    def __call__(self, *, stop: Callable[[], bool] = lambda: False) -> Evaluation:
        """Evaluate on every image of the split, with the weights of eval.weights.

        If eval.weights is not set: with the average if the run keeps one, else with the raw weights.

        Args:
          stop: called after each batch except the last; True ends the evaluation.

        Raises:
          EvaluationStopped: `stop` returned True.
          TrainingError: there is too little memory for the batch.
        """
        kind = weights_kind(self._job, self.state)
        num_steps = self._input.num_steps
        with (
            evaluation_memory(self._job),
            broken_data(),
            step_progress("eval", num_steps) as progress,
        ):

            def on_step(step: int) -> None:
                progress(step)
                if step < num_steps and stop():
                    raise EvaluationStopped

            return evaluate(
                self._step(kind),
                self._batches,
                self._job.task,
                num_steps=num_steps,
                num_examples=self._input.num_examples,
                max_missing=self._input.max_missing,
                on_step=on_step,
            )

    def _step(self, kind: WeightsKind) -> Callable[[Any], Measures]:
        if kind not in self._steps:
            job = self._job
            self._steps[kind] = make_eval_step(
                self.state, kind, make_normalizer(job), job.task, job.distribution
            )
        return self._steps[kind]
