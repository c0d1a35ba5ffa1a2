"""The training loop: from an experiment to its last checkpoint."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

from configs.load import settings
from configs.schema import Experiment
from run_folder.checkpoints import Checkpoint, CheckpointStore, best_checkpoint
from run_folder.logs import Setting, write_hyperparameters
from run_folder.results import Results, write_results
from system.console import log
from training.best import BestSoFar
from training.build import make_state
from training.devices.distribution import Distribution
from training.evaluate import Evaluation
from training.evaluator import Evaluator
from training.failures import evaluation_memory, training_memory
from training.job import ExperimentError, Job, open_job
from training.model_dir import changed_settings, exclusive_model_dir, save_settings
from training.other_labels import labelled_job
from training.plan import Plan
from training.predictions import write_predictions
from training.preemption import stop_signals
from training.progress import training_progress
from training.run import ReceivedSignal, Run, log_notes, restore

# Sections of the experiment on TensorBoard's HParams page.
HYPERPARAMETERS = (
    *("seed", "model", "task", "augment", "train", "optimizer", "schedule", "ema", "batch_norm"),
    *("init", "stages"),
)


class Measured(NamedTuple):
    """The evaluation of a checkpoint, and the names of its step and of its classes."""

    step: str
    evaluation: Evaluation
    class_names: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a run."""

    step: int
    best: Checkpoint | None
    measured: Measured | None  # of the best checkpoint; None if this call trained nothing
    best_figure: str = ""  # metric of the best checkpoint with its name; "" if it was not evaluated
    pictures: str | None = None  # path of drawn predictions of the best checkpoint


def train_and_evaluate(
    experiment: Experiment, distribution: Distribution, *, with_evaluation: bool = True
) -> Outcome:
    """Train `experiment` to its end, from the start or from the last checkpoint in its model_dir.

    Args:
      experiment: experiment with a model_dir.
      distribution: replicas to train on.
      with_evaluation: whether to evaluate as scheduled, and at the end.

    Raises:
      UserError: see `open_job`, `exclusive_model_dir` and `Run`.
      Stopped: after SIGTERM or SIGINT; everything up to the last step is saved.
    """
    if experiment.train.patience and not with_evaluation:
        raise ExperimentError(
            "train.patience counts evaluations, and --mode=train makes none: take --mode=train_and_eval, or "
            "set train.patience=null"
        )
    job = open_job(experiment, distribution)
    store = _open_store(job)
    with exclusive_model_dir(job) as check_lock:
        last = store.latest()
        if last and _is_finished(job, store, last, with_evaluation):
            return _report_finished(job, store, last)

        save_settings(job)
        job = job.with_cached_images()
        with training_memory(job):
            run = Run(job, store, check_lock, last)
        evaluator = Evaluator(job, run.state) if with_evaluation else None
        with _progress(run) as progress, stop_signals() as received, run.profiler:
            if evaluator:
                _measure_last(run, evaluator, received)
            best = BestSoFar(job, store.best())
            for stage, stop in job.plan.calls_from(run.step):
                if best.is_final(run.step):
                    break
                run.enter(stage)
                figures = run.train_to(stop)
                progress(run.step, figures["loss"], figures["learning_rate"])
                stopping, metrics = run.must_stop(received), {}
                if evaluator and not stopping and stage.evaluates_at(run.step):
                    metrics = run.evaluate(evaluator, received)
                    stopping = run.must_stop(received)
                is_best = best.takes(run.step, metrics)
                if stopping or is_best or best.is_final(run.step) or stage.saves_at(run.step):
                    run.save(metrics)
                if stopping:
                    run.stop(received)
            if best.is_final(run.step):
                log(
                    f"step {run.step}: not above {best} for train.patience evaluations; training ends"
                )
        run.close()
        return _finish(run, evaluator)


def evaluate_run(experiment: Experiment, distribution: Distribution) -> Measured:
    """Evaluate the best checkpoint of a run, or the newest if none was evaluated.

    The images are those of its data, or those of eval.labels.

    Raises:
      CheckpointError: the run has no checkpoint.
    """
    open_it = labelled_job if experiment.eval.labels else open_job
    job = open_it(experiment, distribution)
    log_notes(job)
    checkpoint = best_checkpoint(job.model_dir, job.task.best, log=log)
    with evaluation_memory(job):
        state, _ = make_state(job)
        restore(state, checkpoint)
    step = job.plan.name_step(checkpoint.step)
    return Measured(step, Evaluator(job, state)(), job.data_info.class_names)


def _report_finished(job: Job, store: CheckpointStore, last: Checkpoint) -> Outcome:
    """Log that a run has ended, and settings without effect; write its settings again if they are lost."""
    log(f"{job.model_dir}: finished already, at step {last.step} of {job.plan.total_steps}")
    # Exports that are missing are written with the new settings.
    changes = [change for change in changed_settings(job) if not change.startswith("export.")]
    if changes:
        log(f"without effect on a run that has ended: {'; '.join(changes)}")
    save_settings(job, only_missing=True)
    best = store.best()
    return Outcome(last.step, best, measured=None, best_figure=_figure(job, best))


def _measure_last(run: Run, evaluator: Evaluator, received: ReceivedSignal) -> None:
    """Evaluate the checkpoint that the run resumes from, if its scheduled evaluation is missing."""
    if not run.last or not _is_unmeasured(run.last, run.job.plan):
        return
    if metrics := run.evaluate(evaluator, received):
        run.add_metrics(metrics)
    if run.must_stop(received):
        run.stop(received)


def _finish(run: Run, evaluator: Evaluator | None) -> Outcome:
    """Restore the best checkpoint, and measure and describe it; without an evaluation there is none."""
    job = run.job
    job.distribution.wait_for_all()  # the chief has written what all of them read
    best = run.store.best()
    if not evaluator or not best:
        return Outcome(run.step, best, measured=None)
    restore(run.state, best)
    evaluation, pictures = evaluator(), None
    if job.distribution.is_chief:
        write_results(job.model_dir, _results(job, best.step, evaluation))
        write_hyperparameters(job.model_dir, _hyperparameters(job), best.step, evaluation.figures)
        with evaluation_memory(job):
            pictures = write_predictions(job, run.state)
    measured = Measured(job.plan.name_step(best.step), evaluation, job.data_info.class_names)
    return Outcome(run.step, best, measured, pictures=pictures)


def _hyperparameters(job: Job) -> dict[str, Setting]:
    """Return what distinguishes this training from others: values that are set, lists as text."""
    given = settings(job.experiment, HYPERPARAMETERS)
    return {
        key: value if isinstance(value, Setting) else str(value)
        for key, value in given.items()
        if value is not None
    }


def _results(job: Job, step: int, evaluation: Evaluation) -> Results:
    return Results(
        step,
        evaluation.num_examples,
        evaluation.figures,
        evaluation.shown,
        job.task.per_class(evaluation.sums, evaluation.rows),
        evaluation.sums.get("confusion"),
    )


def _figure(job: Job, checkpoint: Checkpoint | None) -> str:
    """Format the first metric of a checkpoint: "top-1 98.59%"."""
    shown = job.task.format_score(checkpoint.metrics) if checkpoint else {}
    return " ".join(next(iter(shown.items()), ()))


def _is_finished(job: Job, store: CheckpointStore, last: Checkpoint, with_evaluation: bool) -> bool:
    if with_evaluation and _is_unmeasured(last, job.plan):
        return False
    return last.step >= job.plan.total_steps or BestSoFar(job, store.best()).is_final(last.step)


def _is_unmeasured(checkpoint: Checkpoint, plan: Plan) -> bool:
    """Return whether a checkpoint lacks its scheduled evaluation, as after a signal."""
    within, stage = checkpoint.step <= plan.total_steps, plan.stage_until(checkpoint.step)
    return within and stage.evaluates_at(checkpoint.step) and not checkpoint.metrics


def _open_store(job: Job) -> CheckpointStore:
    return CheckpointStore(
        job.model_dir,
        keep=job.experiment.checkpoint.keep,
        asynchronous=job.experiment.checkpoint.asynchronous,
        best_metric=job.task.best,
        log=log,
    )


def _progress(run: Run) -> AbstractContextManager[Callable[[int, float, float], None]]:
    return training_progress(run.job.plan, first_step=run.step)
