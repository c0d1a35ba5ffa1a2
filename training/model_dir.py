"""Exclusive use of a run's folder: one process at a time, and only the run that it holds."""

import contextlib
from collections.abc import Callable, Iterator

import tensorflow as tf

from configs.load import RESUME_KEYS, STAGE_RESUME_KEYS, difference, load_experiment
from input_pipeline.errors import DatasetError
from input_pipeline.sources.dataset_info import read_dataset_info, write_dataset_info
from run_folder.checkpoints import CheckpointStore
from run_folder.experiment import run_experiment_file, save_run_experiment
from run_folder.lock import locked
from system.console import log
from system.errors import first_line
from training.job import ExperimentError, Job
from training.plan import Plan, make_plan


@contextlib.contextmanager
def exclusive_model_dir(job: Job) -> Iterator[Callable[[], None]]:
    """Hold the lock of the job's folder within the block.

    Yields a function that raises RunLockError when another process has taken over the lock. Only the chief
    takes the lock; in other processes that function does nothing.

    Raises:
      ExperimentError: the folder holds another run, or cannot be written.
      RunLockError: another process trains there.
    """
    if not job.distribution.is_chief:
        yield lambda: None
        return
    with contextlib.ExitStack() as stack:
        with _must_be_writable(job.model_dir):
            _refuse_another_run(job)
            check = stack.enter_context(locked(job.model_dir, log))
        yield check


def save_settings(job: Job, *, only_missing: bool = False) -> None:
    """Save the experiment and the description of its data in the job's folder; the chief does.

    Args:
      job: job of the run.
      only_missing: whether to leave an experiment that is there as it is, not to log its changes and
        replace it.

    Raises:
      ExperimentError: it cannot be written.
    """
    if not job.distribution.is_chief:
        return
    with _must_be_writable(job.model_dir):
        if not (only_missing and run_experiment_file(job.model_dir)):
            if changes := changed_settings(job):
                log(f"other settings than before: {'; '.join(changes)}")
            save_run_experiment(job.experiment, job.model_dir)
        write_dataset_info(job.data_info, job.model_dir)


def changed_settings(job: Job) -> list[str]:
    """Return what the chief sets differently from the run in its folder, as `difference` does."""
    before = run_experiment_file(job.model_dir) if job.distribution.is_chief else None
    changes = difference(load_experiment(before), job.experiment) if before else []
    return [change for change in changes if not change.startswith("model_dir:")]


def _refuse_another_run(job: Job) -> None:
    before = run_experiment_file(job.model_dir)
    saved = CheckpointStore(job.model_dir, best_metric=job.task.best).steps()
    if not before or not saved:
        return
    experiment = load_experiment(before)
    changes = difference(experiment, job.experiment, RESUME_KEYS)
    kept, others = "the same model, data, batch and optimizer", ""
    with contextlib.suppress(DatasetError):  # a missing description is written again
        then = read_dataset_info(job.model_dir).splits["train"].num_examples
        now = job.data_info.splits["train"].num_examples
        changes += [f"training images: {then:,} -> {now:,}"] if then != now else []
        if experiment.stages or job.experiment.stages:
            done = saved[-1]
            before_plan = make_plan(experiment, then)
            moved = _moved_stages(before_plan, job.plan, done)
            changed = [] if moved else _changed_stages(before_plan, job.plan, done)
            if changed:
                kept += ", and the settings of stages that have begun"
                others = f" end the last of these stages at step {done} and add one with others,"
            changes += moved + changed
    if changes:
        raise ExperimentError(
            f"{job.model_dir} holds a run with other values ({'; '.join(changes)}); a run can only resume "
            f"with {kept}; give its values,{others} or another --model_dir"
        )


def _moved_stages(before: Plan, now: Plan, done: int) -> list[str]:
    """Return a line if the stages that have begun read other parts of the stream in the two plans."""
    then, here = _positions(before, done), _positions(now, done)
    return [f"stages up to step {done}: {then} -> {here}"] if then != here else []


def _changed_stages(before: Plan, now: Plan, done: int) -> list[str]:
    """Return what two plans set differently for the stages that have begun after `done` steps."""
    return [
        f"stage {old.number + 1}: {change}"
        for old, new in zip(before.stages, now.stages, strict=False)
        if old.first_step < done
        for change in difference(old.experiment, new.experiment, STAGE_RESUME_KEYS)
    ]


def _positions(plan: Plan, done: int) -> str:
    begun = [stage for stage in plan.stages if stage.first_step < max(done, 1)]
    return ", ".join(f"{s.global_batch_size} images from step {s.first_step}" for s in begun)


@contextlib.contextmanager
def _must_be_writable(model_dir: str) -> Iterator[None]:
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise ExperimentError(
            f"--model_dir={model_dir}: can't be written ({first_line(error)}); "
            "give a folder that you may write to"
        ) from error
