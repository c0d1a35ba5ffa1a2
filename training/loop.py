"""train_and_evaluate: the story of a run, from its experiment to its last checkpoint."""

import contextlib
import dataclasses
import posixpath
import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np
import tensorflow as tf

from configs.load import RESUME_KEYS, difference, load_experiment
from configs.schema import Experiment
from efficientnet import ModelSpec
from input_pipeline.errors import DatasetError
from input_pipeline.sources import Source
from input_pipeline.sources.dataset_info import read_dataset_info, write_dataset_info
from input_pipeline.stream.pipeline import explain_error
from run_folder.checkpoints import Checkpoint, CheckpointError, CheckpointStore, best_checkpoint
from run_folder.experiment import run_experiment_file, save_run_experiment
from run_folder.lock import locked
from run_folder.logs import RunLog
from system.console import log
from system.errors import UserError
from tasks.task import Measures
from training import assembly
from training.assembly import ExperimentError, Plan
from training.devices.distribution import Distribution
from training.diagnosis.nonfinite import explain_step
from training.evaluate import Evaluation, EvaluationStopped, evaluate
from training.preemption import Stopped, stop_signals
from training.progress import evaluation_progress, training_progress
from training.step.state import TrainState, WeightsKind
from training.step.train_step import make_eval_step, make_train_loop


class TrainingError(UserError):
    """A run that can't go on: one line that says why and what to do."""


class Measured(NamedTuple):
    """What a checkpoint scores, and what its classes are called."""

    checkpoint: Checkpoint
    evaluation: Evaluation
    class_names: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run stands at its end."""

    step: int
    best: Checkpoint | None
    measured: Measured | None  # the best one, evaluated again; None when nothing was trained now


def train_and_evaluate(
    experiment: Experiment, distribution: Distribution, *, with_evaluation: bool = True
) -> Outcome:
    """Train `experiment` to its end, from the start or from where its model_dir stands.

    Args:
      experiment: with a model_dir.
      distribution: the replicas to train on.
      with_evaluation: evaluate as the experiment says, and at the end.

    Raises:
      ExperimentError, DatasetError, CheckpointError, TrainingError, RunLockError: one line each.
      Stopped: SIGTERM or SIGINT came, and everything up to the last step is saved.
    """
    assembly.check_batches(experiment, distribution)
    spec = assembly.model_spec(experiment)
    source = assembly.open_source(experiment, spec)
    experiment = assembly.resolve(experiment, spec, source)
    plan = assembly.make_plan(experiment, source.info.splits["train"].num_examples)
    store = _store(experiment)
    with _claimed(experiment, source, distribution) as check_claim:
        last = store.latest()
        if (
            last
            and last.step >= plan.total_steps
            and not (with_evaluation and _unmeasured(last, plan))
        ):
            log(
                f"{experiment.model_dir}: finished already, at step {last.step} of {plan.total_steps}"
            )
            return Outcome(last.step, store.best(), measured=None)

        source = assembly.cache_images(experiment, source)
        run = _start(experiment, spec, source, distribution, plan, store, last, check_claim)
        evaluator = Evaluator(experiment, spec, source, distribution, run.state)
        _train(run, evaluator if with_evaluation else None)
        distribution.wait_for_all()  # what the chief wrote is there for all to read
        best = store.best()
        if not with_evaluation or not best:
            return Outcome(plan.total_steps, best, measured=None)
        restore(run.state, best)
        result = evaluator(experiment.eval.weights)
        return Outcome(plan.total_steps, best, Measured(best, result, source.info.class_names))


@dataclasses.dataclass(frozen=True)
class _Run:
    """A run that is ready to train: from the checkpoint `last` on, as `plan` says."""

    experiment: Experiment
    distribution: Distribution
    plan: Plan
    store: CheckpointStore
    state: TrainState
    run_log: RunLog
    last: Checkpoint | None
    metrics: tuple[str, ...]  # names of the figures of a step
    train_steps: Callable[[int], np.ndarray]  # how many -> metrics of each, [steps, metrics]
    diagnose: Callable[
        [int], str
    ]  # a step that was not finite -> where it went wrong, and what is kept
    check_claim: Callable[[], None]  # raises when the run was taken over


def _start(
    experiment: Experiment,
    spec: ModelSpec,
    source: Source,
    distribution: Distribution,
    plan: Plan,
    store: CheckpointStore,
    last: Checkpoint | None,
    check_claim: Callable[[], None],
) -> _Run:
    """Build the network, bring it to the last checkpoint, and lay the images on."""
    state, noise = assembly.make_state(
        experiment,
        spec,
        distribution,
        initial_weights=None if last else experiment.init.weights,
        log=log,
    )
    if last:
        restore(state, last)
        log(f"resuming from step {last.step} of {plan.total_steps} ({last.path})")
    _introduce(experiment, spec, source, distribution, plan, state)

    first_step = last.step if last else 0
    run_log = RunLog(_log_dir(experiment, distribution), resume_step=first_step)
    make_dataset = assembly.train_dataset(experiment, spec, source, first_step)
    if not last:
        _show_images(run_log, make_dataset, distribution.num_hosts)
        run_log.text("model", 0, _summary(state))
    batches = iter(distribution.batches(make_dataset, experiment.train.global_batch_size))
    recipe = assembly.make_recipe(experiment, spec, state.network, noise, distribution, plan)
    train_loop = make_train_loop(
        state,
        recipe,
        distribution,
        assembly.train_batch_spec(experiment, spec, distribution),
    )

    def train_steps(count: int) -> np.ndarray:
        with _lost_workers_explained(distribution), _data_errors_explained():
            return train_loop(batches, tf.constant(count)).numpy()

    def diagnose_step(step: int) -> str:
        make = assembly.train_dataset(experiment, spec, source, step)
        return explain_step(experiment, spec, distribution, state, make)

    return _Run(
        experiment,
        distribution,
        plan,
        store,
        state,
        run_log,
        last,
        recipe.metrics,
        train_steps,
        diagnose_step,
        check_claim,
    )


def _train(run: _Run, evaluator: "Evaluator | None") -> None:
    """Step, log, evaluate and save until the plan is done, or until a signal asks to stop."""
    plan = run.plan
    skips_left = assembly.skips_allowed(run.experiment)
    step = run.last.step if run.last else 0
    with _progress(run, step) as progress, stop_signals() as asked:
        if evaluator and run.last and _unmeasured(run.last, plan):
            _measure_again(run, evaluator, run.last, asked)
        best = run.store.best()
        score = assembly.task(run.experiment).best
        highest = best.metrics[score] if best else 0.0
        while step < plan.total_steps:
            stop = plan.next_stop(step)
            rows = run.train_steps(stop - step)
            skips_left -= _check_finite(rows, step, run, skips_left)
            step = stop
            figures = dict(zip(run.metrics, rows.mean(axis=0), strict=True))
            figures["learning_rate"] = rows[-1, run.metrics.index("learning_rate")]
            run.run_log.scalars("train", step, figures)
            progress(step, figures["loss"], figures["learning_rate"])

            metrics: dict[str, float] = {}
            stopping = run.distribution.anywhere(asked() is not None)
            if evaluator and not stopping and plan.is_due(step, plan.eval_every_steps):
                metrics = _evaluate_and_tell(run, evaluator, step, asked)
                stopping = run.distribution.anywhere(asked() is not None)
            is_best = bool(metrics) and metrics[score] >= highest
            highest = max(highest, metrics.get(score, 0.0))
            if stopping or is_best or plan.is_due(step, plan.checkpoint_every_steps):
                _save(run, step, metrics)
            if stopping:
                _stop(run, step, asked())
    run.store.wait()
    run.run_log.close()


def _progress(run: _Run, step: int) -> Any:
    return training_progress(
        first_step=step,
        total_steps=run.plan.total_steps,
        global_batch_size=run.experiment.train.global_batch_size,
        steps_per_epoch=run.plan.steps_per_epoch,
    )


def _save(run: _Run, step: int, metrics: dict[str, float]) -> None:
    """The log first, so that no checkpoint is ahead of it."""
    run.run_log.flush()
    if run.distribution.is_chief:
        run.check_claim()
        run.store.save(step, run.state.to_arrays(), metrics)


def _stop(run: _Run, step: int, asked: signal.Signals | None) -> NoReturn:
    """End in good order; `asked` is None where only another process was told to."""
    run.store.wait()
    run.run_log.close()
    run.distribution.wait_for_all()
    by = asked or signal.SIGTERM
    raise Stopped(
        f"{by.name}: stopped at step {step} of {run.plan.total_steps}, which is saved; "
        "the same command resumes",
        by,
    )


def _unmeasured(checkpoint: Checkpoint, plan: Plan) -> bool:
    """Whether a checkpoint was due to be evaluated and was not: a signal came before."""
    due = plan.is_due(checkpoint.step, plan.eval_every_steps)
    return due and checkpoint.step <= plan.total_steps and not checkpoint.metrics


def _measure_again(
    run: _Run,
    evaluator: "Evaluator",
    last: Checkpoint,
    asked: Callable[[], signal.Signals | None],
) -> None:
    """Make up for the evaluation of the checkpoint that the run resumes from."""
    metrics = _evaluate_and_tell(run, evaluator, last.step, asked)
    if metrics:
        run.run_log.flush()
        if run.distribution.is_chief:
            run.check_claim()
            run.store.add_metrics(last, metrics)
    if run.distribution.anywhere(asked() is not None):
        _stop(run, last.step, asked())


def _evaluate_and_tell(
    run: _Run, evaluator: "Evaluator", step: int, asked: Callable[[], signal.Signals | None]
) -> dict[str, float]:
    """What the present weights score; empty when a signal came before the end."""
    # Several processes evaluate to the end: they can't all leave at the same batch.
    stop = (lambda: False) if run.distribution.num_processes > 1 else lambda: asked() is not None
    try:
        with _lost_workers_explained(run.distribution):
            result = evaluator(run.experiment.eval.weights, stop=stop)
    except EvaluationStopped:
        return {}
    run.run_log.scalars("eval", step, result.figures)
    log(f"step {step}, epoch {step / run.plan.steps_per_epoch:.1f}: {result}")
    return dict(result.figures)


def evaluate_run(experiment: Experiment, distribution: Distribution) -> Measured:
    """Evaluate the best checkpoint of a finished or running run, the newest if none was measured.

    Raises:
      CheckpointError: the run has no checkpoint.
    """
    assembly.check_batches(experiment, distribution)
    spec = assembly.model_spec(experiment)
    source = assembly.open_source(experiment, spec)
    experiment = assembly.resolve(experiment, spec, source)
    log_notes(source)
    checkpoint = best_checkpoint(str(experiment.model_dir), log=log)
    state, _ = assembly.make_state(experiment, spec, distribution, initial_weights=None, log=log)
    restore(state, checkpoint)
    evaluator = Evaluator(experiment, spec, source, distribution, state)
    result = evaluator(experiment.eval.weights)
    return Measured(checkpoint, result, source.info.class_names)


class Evaluator:
    """Evaluates the present weights of a state, as often as it is called, traced once."""

    def __init__(
        self,
        experiment: Experiment,
        spec: ModelSpec,
        source: Source,
        distribution: Distribution,
        state: TrainState,
    ) -> None:
        make, self._num_steps, self._num_examples = assembly.eval_dataset(
            experiment, spec, source, distribution
        )
        size = assembly.eval_batch_size(experiment, distribution)
        self._batches = distribution.batches(make, size)
        self._normalize = assembly.normalizer(spec, assembly.precision(experiment, distribution))
        self._distribution, self._task, self.state = distribution, assembly.task(experiment), state
        data = experiment.data
        skipping = data.on_error == "skip"
        self._may_miss = int(data.max_error_fraction * self._num_examples) if skipping else 0
        self._steps: dict[WeightsKind, Callable[[Any], Measures]] = {}

    def __call__(
        self, which: WeightsKind | None, *, stop: Callable[[], bool] = lambda: False
    ) -> Evaluation:
        """Evaluate "ema" or "raw" weights on every image of the split.

        None evaluates the average where the run keeps one, else the raw weights.

        Raises:
          EvaluationStopped: `stop`, asked after each batch but the last, said so.
        """
        which = which or ("ema" if self.state.has_average else "raw")
        if which not in self._steps:
            self._steps[which] = make_eval_step(
                self.state, which, self._normalize, self._task, self._distribution
            )
        with _data_errors_explained(), evaluation_progress(self._num_steps) as progress:

            def on_step(step: int) -> None:
                progress(step)
                if step < self._num_steps and stop():
                    raise EvaluationStopped

            return evaluate(
                self._steps[which],
                self._batches,
                self._task,
                num_steps=self._num_steps,
                num_examples=self._num_examples,
                may_miss=self._may_miss,
                on_step=on_step,
            )


def restore(state: TrainState, checkpoint: Checkpoint) -> None:
    """Set all of `state` from a checkpoint.

    Raises:
      CheckpointError: the checkpoint is of another model.
    """
    try:
        state.from_arrays(checkpoint.read())
    except ValueError as error:
        raise CheckpointError(
            f"{checkpoint.path}: not of this experiment ({error}); give another --model_dir"
        ) from error


@contextlib.contextmanager
def _claimed(
    experiment: Experiment, source: Source, distribution: Distribution
) -> Iterator[Callable[[], None]]:
    """Be the only run in model_dir within the block; yields what checks that it still is so."""
    if not distribution.is_chief:
        yield lambda: None
        return
    model_dir = str(experiment.model_dir)
    with contextlib.ExitStack() as stack:
        with _must_be_writable(model_dir):
            _refuse_another_run(model_dir, experiment, source)
            check = stack.enter_context(locked(model_dir, log))
            save_run_experiment(experiment, model_dir)
            write_dataset_info(source.info, model_dir)
        yield check


def _refuse_another_run(model_dir: str, experiment: Experiment, source: Source) -> None:
    """Raise ExperimentError if model_dir holds a run that `experiment` cannot continue."""
    before = run_experiment_file(model_dir)
    if not before:
        return
    changes = difference(load_experiment(before), experiment, RESUME_KEYS)
    with contextlib.suppress(DatasetError):  # a description that is missing is written again
        then = read_dataset_info(model_dir).splits["train"].num_examples
        now = source.info.splits["train"].num_examples
        changes += [f"training images: {then:,} -> {now:,}"] if then != now else []
    if changes:
        raise ExperimentError(
            f"{model_dir} holds a run with other values ({'; '.join(changes)}); a run resumes with the "
            "same model, data and batch: give its values, or another --model_dir"
        )


@contextlib.contextmanager
def _must_be_writable(model_dir: str) -> Iterator[None]:
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise ExperimentError(
            f"--model_dir={model_dir}: can't be written ({str(error).splitlines()[0]}); "
            "give a folder that you may write to"
        ) from error


def _store(experiment: Experiment) -> CheckpointStore:
    return CheckpointStore(
        str(experiment.model_dir),
        keep=experiment.checkpoint.keep,
        asynchronous=experiment.checkpoint.asynchronous,
        log=log,
    )


def _log_dir(experiment: Experiment, distribution: Distribution) -> str:
    model_dir = str(experiment.model_dir)
    if distribution.is_chief:
        return model_dir
    return posixpath.join(model_dir, "workers", str(distribution.host_index))


def _introduce(
    experiment: Experiment,
    spec: ModelSpec,
    source: Source,
    distribution: Distribution,
    plan: Plan,
    state: TrainState,
) -> None:
    count = sum(v.shape.num_elements() for v in state.variables.weights)
    train, split = source.info.splits["train"], experiment.data.eval_split
    held_out = source.info.splits[split]
    log(
        f"{spec.name}, {count:,} weights, {spec.resolution} px, "
        f"{experiment.model.num_classes} classes, on {distribution.description} "
        f"({assembly.precision(experiment, distribution)})"
    )
    log(
        f"{source.info.name}: {train.num_examples:,} training images, "
        f"{held_out.num_examples:,} in {split}"
    )
    log_notes(source)
    log(
        f"{plan.total_steps:,} steps of {experiment.train.global_batch_size} images "
        f"({plan.total_steps / plan.steps_per_epoch:.1f} epochs); "
        f"run in {experiment.model_dir}"
    )
    if experiment.augment.policy != "none" and not experiment.augment.quirks:
        log("augment.quirks=false: operations as in the papers, not as in the published code")


def log_notes(source: Source) -> None:
    """Log what the user should know about how the images were found."""
    for note in source.notes:
        log(f"{source.info.name}: {note}")


def _show_images(
    run_log: RunLog, make_dataset: Callable[[int, int], tf.data.Dataset], num_hosts: int
) -> None:
    """Put the first training images, as the network sees them, into TensorBoard."""
    with _data_errors_explained():
        for batch in make_dataset(0, num_hosts).take(1):
            run_log.images("augmented training images", 0, batch["image"][:16].numpy())


def _summary(state: TrainState) -> str:
    """Keras' table of the network's layers, as Markdown that keeps its columns."""
    lines: list[str] = []
    state.network.summary(line_length=120, print_fn=lines.append)
    return "\n".join(f"    {line}" for text in lines for line in text.splitlines())


def _check_finite(rows: np.ndarray, first_step: int, run: _Run, allowed: int) -> int:
    """Steps among `rows` that were skipped because they were not finite, at most `allowed`.

    A float16 gradient that overflows under a finite loss is the loss scale's daily work: not counted.
    """
    loss, finite = rows[:, run.metrics.index("loss")], rows[:, run.metrics.index("finite")] > 0
    broken = ~np.isfinite(loss) if run.state.variables.loss_scale else ~finite
    if broken.sum() > allowed:
        where = int(np.flatnonzero(broken)[allowed])  # from here on nothing was changed
        figures = dict(zip(run.metrics, rows[where], strict=True))
        raise TrainingError(
            f"step {first_step + where}: loss {figures['loss']:g}, gradient norm "
            f"{figures['gradient_norm']:g}, learning rate {figures['learning_rate']:g}: not finite, "
            f"{run.diagnose(first_step + where)}. "
            "Lower schedule.learning_rate, set train.gradient_clip_norm or "
            "train.on_nonfinite=skip, and run again: it resumes from the last checkpoint"
        )
    for where in map(int, np.flatnonzero(broken)):
        log(f"step {first_step + where}: not finite, skipped")
    return int(broken.sum())


@contextlib.contextmanager
def _lost_workers_explained(distribution: Distribution) -> Iterator[None]:
    """Turn what TensorFlow says of a worker that has gone into one line."""
    try:
        yield
    except tf.errors.OpError as error:
        if distribution.num_processes == 1:
            raise
        raise TrainingError(
            f"worker {distribution.host_index}: another worker has gone, or can't be reached "
            f"({str(error).splitlines()[0]}); start all of them again, they resume from the last "
            "checkpoint"
        ) from error


@contextlib.contextmanager
def _data_errors_explained() -> Iterator[None]:
    """Turn what TensorFlow says of broken data into one line."""
    try:
        yield
    except (
        tf.errors.InvalidArgumentError,
        tf.errors.DataLossError,
        tf.errors.NotFoundError,
    ) as error:
        raise DatasetError(explain_error(error)) from error
