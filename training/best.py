"""The best evaluation of a run so far, and when to stop waiting for a better one."""

import math
from collections.abc import Mapping

from run_folder.checkpoints import Checkpoint
from training.job import Job


class BestSoFar:
    """The highest value of the task's figure that compares checkpoints, and when it was measured.

    Args:
      job: names the figure, the patience and the steps that are evaluated.
      checkpoint: the best checkpoint of the run; None without an evaluation.
    """

    def __init__(self, job: Job, checkpoint: Checkpoint | None) -> None:
        self._job, self._name = job, job.task.best
        self.figure = checkpoint.metrics[self._name] if checkpoint else -math.inf
        self.step = checkpoint.step if checkpoint else 0
        self.since = checkpoint.best_since if checkpoint else 0  # before equal evaluations

    def takes(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Return whether an evaluation is at least as good as all before, and remember it if so."""
        if not metrics or not metrics[self._name] >= self.figure:  # a NaN is not
            return False
        if metrics[self._name] > self.figure:
            self.since = step
        self.figure, self.step = metrics[self._name], step
        return True

    def is_final(self, step: int) -> bool:
        """Return whether `train.patience` evaluations of the last stage were not above the best up to `step`.

        Only the last stage ends early: a plateau at a small size, or of the head alone, is not the end.
        """
        patience, plan = self._job.experiment.train.patience, self._job.plan
        start = max(self.since, plan.stages[-1].first_step)
        # Counted by the plan, so that a resumed run, and every worker, ends at the same step.
        return patience is not None and plan.evaluations(start, step) >= patience

    def __str__(self) -> str:
        return f"{self._name} {self.figure:.4f} of step {self.since}"
