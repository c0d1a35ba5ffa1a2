"""Run: the state, logs and checkpoints of a job in training."""

import posixpath
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from run_folder.checkpoints import Checkpoint, CheckpointError, CheckpointStore
from run_folder.logs import RunLog
from run_folder.starts import Start, add_start
from system.console import log
from training.build import check_trainable, make_recipe, make_state
from training.diagnosis.nonfinite import keep_and_diagnose
from training.evaluate import EvaluationStopped
from training.evaluator import Evaluator
from training.failures import TrainingError, broken_data, lost_workers, training_memory
from training.inputs import train_batch_spec, train_dataset
from training.job import Job, describe_sizes, skips_allowed
from training.plan import Plan, Stage, format_stage
from training.preemption import Stopped
from training.profile import Profiler
from training.step.custom_gradients import release_all
from training.step.state import TrainState
from training.step.train_step import make_train_loop

IMAGES_SHOWN = 16  # of training, at the start of a stage

ReceivedSignal = Callable[[], signal.Signals | None]  # the signal that asked to stop, if one came


class Run:
    """State, logs and checkpoints of a job, at `step`. Call `enter` before the steps of each stage.

    Args:
      job: job with its images cached.
      store: checkpoints of the run.
      check_lock: raises when another process has taken over the run's folder.
      last: checkpoint to resume from; None starts at step 0.
    """

    def __init__(
        self,
        job: Job,
        store: CheckpointStore,
        check_lock: Callable[[], None],
        last: Checkpoint | None,
    ) -> None:
        begin = time.monotonic()
        self.job, self.store, self.last = job, store, last
        self.step = last.step if last else 0
        self._check_lock = check_lock
        self.state, self._noise = make_state(
            job, initial_weights=None if last else job.experiment.init.weights
        )
        check_trainable(job, self.state.network)
        self.profiler = Profiler(job)
        if last:
            restore(self.state, last)
            log(f"resuming from step {last.step} of {job.plan.total_steps} ({last.path})")
        _introduce(job, self.state)
        self.logs = RunLog(_log_dir(job), resume_step=self.step)
        if job.distribution.is_chief:
            add_start(job.model_dir, _describe_start(job, last))
        if not last:
            self.logs.text("model", 0, _summary(self.state))
        self._skips_left = skips_allowed(job.experiment)
        self._batches: Iterator[Any] = iter(())
        self._loop: Callable[[Any, tf.Tensor], tf.Tensor] | None = None
        self._stage_job = job  # without a stage until `enter`
        self._is_first_call = True
        self.logs.time("start", self.step, time.monotonic() - begin)

    def enter(self, stage: Stage) -> None:
        """Go over to a stage: its batches from the current step on, and the training step traced for it.

        In this stage already, return at once.
        """
        if self._stage_job.stage == stage:
            return
        begin = time.monotonic()
        self._stage_job = job = self.job.at(stage.first_step)
        # The last stage's input and graph are released before there are others.
        self._batches, self._loop = iter(()), None
        release_all()
        with training_memory(job):
            make_dataset = train_dataset(job, self.step)
            if self.step == stage.first_step:
                self._show_stage(stage)
            batches = job.distribution.batches(make_dataset, stage.global_batch_size)
            self._batches = iter(batches)
            self._recipe = make_recipe(job, self.state.network, self._noise)
            self._loop = make_train_loop(
                self.state, self._recipe, job.distribution, train_batch_spec(job), timed=True
            )
        self._is_first_call = True
        self.logs.time("trace", self.step, time.monotonic() - begin)

    def train_to(self, stop: int) -> dict[str, float]:
        """Train up to step `stop`; log and return the mean of the metrics of these steps.

        Raises:
          TrainingError: a step was not finite, or contact with a worker was lost.
        """
        assert self._loop
        names, count = self._recipe.metrics, stop - self.step
        begin = time.monotonic()
        with (
            lost_workers(self.job.distribution),
            training_memory(self._stage_job),
            broken_data(),
            self.profiler.call(self.step, stop),
        ):
            timed = self._loop(self._batches, tf.constant(count)).numpy()
        rows, input_seconds = timed[:, :-1], float(timed[:, -1].sum())
        self._check_finite(rows)
        self.step = stop
        self._log_speed(count, time.monotonic() - begin, input_seconds)
        figures = dict(zip(names, rows.mean(axis=0), strict=True))
        figures["learning_rate"] = rows[-1, names.index("learning_rate")]
        self.logs.scalars("train", stop, figures)
        if len(self.job.plan.stages) > 1:
            self.logs.curve("train", stop, {"stage": self._stage_job.current_stage.number + 1})
        return figures

    def evaluate(self, evaluator: Evaluator, received: ReceivedSignal) -> dict[str, float]:
        """Evaluate the current weights and return the metrics; empty if a signal ended it early."""
        # Several processes evaluate to the end: they cannot all stop at the same batch.
        several, begin = self.job.distribution.num_processes > 1, time.monotonic()
        try:
            with lost_workers(self.job.distribution):
                result = evaluator(stop=lambda: not several and received() is not None)
        except EvaluationStopped:
            return {}
        self.logs.scalars("eval", self.step, result.figures)
        self.logs.time("evaluation", self.step, time.monotonic() - begin)
        log(f"{self.job.plan.describe(self.step)}: {result}")
        return dict(result.figures)

    def save(self, metrics: dict[str, float]) -> None:
        """Write the logs, then a checkpoint, so that no checkpoint is ahead of the logs."""
        self.logs.flush()
        begin = time.monotonic()
        if self.job.distribution.is_chief:
            self._check_lock()
            self.store.save(self.step, self.state.to_arrays(), metrics)
        self.logs.time("checkpoint", self.step, time.monotonic() - begin)

    def add_metrics(self, metrics: dict[str, float]) -> None:
        """Add metrics to the checkpoint that the run resumes from."""
        assert self.last
        self.logs.flush()
        if self.job.distribution.is_chief:
            self._check_lock()
            self.store.add_metrics(self.last, metrics)

    def must_stop(self, received: ReceivedSignal) -> bool:
        """Return whether any process received a stop signal; all processes must call this together."""
        return self.job.distribution.anywhere(received() is not None)

    def close(self) -> None:
        """Wait for the pending checkpoint and close the logs."""
        self.store.wait()
        self.logs.close()

    def stop(self, received: ReceivedSignal) -> NoReturn:
        """Close the run and raise Stopped; SIGTERM is assumed if only another process got a signal."""
        self.close()
        self.job.distribution.wait_for_all()
        by = received() or signal.SIGTERM
        raise Stopped(
            f"{by.name}: stopped at step {self.step} of {self.job.plan.total_steps}, which is saved; "
            "the same command resumes",
            by,
        )

    def _log_speed(self, steps: int, seconds: float, input_seconds: float) -> None:
        """Log what a call of the training loop took; the first one of a stage also compiles."""
        images = steps * self._stage_job.current_stage.global_batch_size
        self.logs.time(
            "train",
            self.step,
            seconds,
            steps=steps,
            images=images,
            input_seconds=input_seconds,
            first=int(self._is_first_call),
        )
        if not self._is_first_call:
            figures = {
                "images_per_second": images / seconds,
                "input_share": input_seconds / seconds,
            }
            self.logs.curve("speed", self.step, figures)
        self._is_first_call = False

    def _check_finite(self, rows: np.ndarray) -> None:
        """Log the skipped non-finite steps; raise TrainingError when there are too many.

        A float16 gradient that overflows under a finite loss is not counted: the loss scale handles it.
        """
        names = self._recipe.metrics
        loss, finite = rows[:, names.index("loss")], rows[:, names.index("finite")] > 0
        broken = ~np.isfinite(loss) if self.state.variables.loss_scale else ~finite
        if broken.sum() > self._skips_left:
            # The steps from this one on have changed nothing.
            where = int(np.flatnonzero(broken)[self._skips_left])
            figures = dict(zip(names, rows[where], strict=True))
            step = self.step + where
            job = self._stage_job
            found = keep_and_diagnose(job, self.state, train_dataset(job, step))
            raise TrainingError(
                f"step {step}: loss {figures['loss']:g}, gradient norm "
                f"{figures['gradient_norm']:g}, learning rate {figures['learning_rate']:g}: not finite, "
                f"{found}. Lower schedule.learning_rate, set train.gradient_clip_norm or "
                "train.on_nonfinite=skip, and run again: it resumes from the last checkpoint"
            )
        for where in map(int, np.flatnonzero(broken)):
            log(f"step {self.step + where}: not finite, skipped")
        self._skips_left -= int(broken.sum())

    def _show_stage(self, stage: Stage) -> None:
        """Log the first training images of a stage to TensorBoard, and what it sets if there are several."""
        # After the step that a run resumes from at the start of a stage, or they would be there twice.
        step = stage.first_step + 1 if stage.first_step else 0
        count = len(self.job.plan.stages)
        if count > 1:
            overlay = self.job.experiment.stages[stage.number]
            log(
                f"stage {stage.number + 1} of {count}, up to step {stage.end_step}: {format_stage(overlay)}"
            )
            self.logs.text(f"stage {stage.number + 1}", step, format_stage(overlay))
        make_dataset = train_dataset(self._stage_job, stage.first_step)
        with broken_data():
            for batch in make_dataset(0, self.job.distribution.num_hosts).take(1):
                self.logs.images("augmented training images", step, self._draw_labels(batch))

    def _draw_labels(self, batch: Mapping[str, tf.Tensor]) -> np.ndarray:
        """Draw the labels of the first images of a batch into them."""
        source = self.job.source()
        draw, names = source.target.draw, source.info.shown_names
        first = {name: part[:IMAGES_SHOWN].numpy() for name, part in batch.items()}
        rows = [
            {name: part[number] for name, part in first.items()}
            for number in range(len(first["image"]))
        ]
        return np.stack([draw(row["image"], row, names) for row in rows])


def restore(state: TrainState, checkpoint: Checkpoint) -> None:
    """Set all of `state` from a checkpoint.

    Raises:
      CheckpointError: the checkpoint can't be read or is of another model.
    """
    try:
        state.from_arrays(checkpoint.read())
    except ValueError as error:
        raise CheckpointError(
            f"{checkpoint.path}: not of this experiment ({error}); give another --model_dir"
        ) from error


def log_notes(job: Job) -> None:
    """Log the notes of the source about how it read the data."""
    for note in job.source().notes:
        log(f"{job.data_info.name}: {note}")


def _describe_start(job: Job, last: Checkpoint | None) -> Start:
    experiment = job.experiment
    source = experiment.init.weights or f"random weights, seed {experiment.seed}"
    devices = f"{job.distribution.description} ({job.precision})"
    return Start.now(last.step if last else 0, last.path if last else source, devices)


def _introduce(job: Job, state: TrainState) -> None:
    experiment, plan, splits = job.experiment, job.plan, job.data_info.splits
    count = sum(v.shape.num_elements() for v in state.variables.weights)
    split = experiment.data.eval_split
    log(
        f"{job.spec.name}, {count:,} weights, {describe_sizes(experiment, job.spec)}, "
        f"{experiment.model.num_classes} classes, on {job.distribution.description} "
        f"({job.precision})"
    )
    log(
        f"{job.data_info.name}: {splits['train'].num_examples:,} training images, "
        f"{splits[split].num_examples:,} in {split}"
    )
    log_notes(job)
    log(f"{_format_length(plan)}; run in {job.model_dir}")
    if not getattr(experiment.augment, "quirks", True):
        log("augment.quirks=false: operations as in the papers, not as in the published code")


def _format_length(plan: Plan) -> str:
    sizes = list(dict.fromkeys(stage.global_batch_size for stage in plan.stages))
    stages = f" in {len(plan.stages)} stages" if len(plan.stages) > 1 else ""
    return (
        f"{plan.total_steps:,} steps{stages} of {' and '.join(map(str, sizes))} images "
        f"({plan.epochs_at(plan.total_steps):.1f} epochs)"
    )


def _log_dir(job: Job) -> str:
    if job.distribution.is_chief:
        return job.model_dir
    return posixpath.join(job.model_dir, "workers", str(job.distribution.host_index))


def _summary(state: TrainState) -> str:
    """Return Keras' table of layers as preformatted Markdown."""
    lines: list[str] = []
    state.network.summary(line_length=120, print_fn=lines.append)
    return "\n".join(f"    {line}" for text in lines for line in text.splitlines())
