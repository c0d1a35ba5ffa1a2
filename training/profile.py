"""Profiles: traces of a few calls of the training loop, for TensorBoard's profile plugin."""

import contextlib
import posixpath
from collections.abc import Iterator
from types import TracebackType

import tensorflow as tf

from system.console import log
from training.job import ExperimentError, Job


class Profiler:
    """Writes MODEL_DIR/tensorboard/profile while the steps of train.profile_steps run.

    A profile begins and ends between two calls of the training loop: it covers whole calls, and the work
    between them. Only the chief profiles. Leaving the block ends a profile that is still open.

    Args:
      job: job of the whole run.

    Raises:
      ExperimentError: train.profile_steps is beyond the end of the training.
    """

    def __init__(self, job: Job) -> None:
        steps, total = job.experiment.train.profile_steps, job.plan.total_steps
        if steps and steps[1] > total:
            raise ExperimentError(
                f"train.profile_steps={list(steps)}: the training has {total:,} steps; give steps up to "
                "its end"
            )
        self._steps = steps if job.distribution.is_chief else None
        self._folder = posixpath.join(job.model_dir, "tensorboard", "profile")
        self._is_open = False

    @contextlib.contextmanager
    def call(self, step: int, stop: int) -> Iterator[None]:
        """Profile the call within the block if it makes a step of train.profile_steps.

        Args:
          step: updates made before the call; its first step is number `step` + 1.
          stop: updates made after it.
        """
        if self._steps and step < self._steps[1] and stop >= self._steps[0] and not self._is_open:
            tf.profiler.experimental.start(self._folder)
            self._is_open = True
        yield
        if self._steps and stop >= self._steps[1]:
            self._stop()

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._is_open:
            self._is_open = False
            tf.profiler.experimental.stop()
            log(f"profile: tensorboard --logdir={self._folder}")
