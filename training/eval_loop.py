"""--mode=eval_loop: evaluate a training run's checkpoints in another process, on other devices.

Each checkpoint is evaluated once, in order, also when this process is restarted; metrics go to
MODEL_DIR/eval_loop/metrics.jsonl and MODEL_DIR/eval_loop/tensorboard. The run itself is not changed.
"""

import posixpath
import time
from collections.abc import Callable

from configs.schema import Experiment
from run_folder.checkpoints import Checkpoint, CheckpointError, CheckpointStore
from run_folder.logs import RunLog, logged_steps
from system.console import log
from training.best import BestSoFar
from training.build import make_state
from training.devices.distribution import Distribution
from training.evaluator import Evaluator
from training.failures import TrainingError, evaluation_memory
from training.job import Job, open_job
from training.run import log_notes, restore

FOLDER = "eval_loop"
POLL_SECONDS = 5.0
_FOREVER = 2**62  # resuming from this step deletes no entry of the logs


def follow(
    experiment: Experiment,
    distribution: Distribution,
    *,
    pause: Callable[[], None] = lambda: time.sleep(POLL_SECONDS),
    now: Callable[[], float] = time.monotonic,
) -> int:
    """Evaluate every checkpoint of the run in model_dir as it appears, until that of the last step.

    Args:
      experiment: experiment of the run, with its model_dir.
      distribution: replicas to evaluate on.
      pause: waits between two reads of the folder.
      now: clock, in seconds.

    Returns:
      Number of checkpoints evaluated.

    Raises:
      TrainingError: no new checkpoint within eval.timeout_minutes.
    """
    job = open_job(experiment, distribution)
    with evaluation_memory(job):
        state, _ = make_state(job)
    evaluator = Evaluator(job, state)
    store, plan = CheckpointStore(job.model_dir, best_metric=job.task.best), job.plan
    folder = posixpath.join(job.model_dir, FOLDER)
    seen = set(logged_steps(folder, "eval"))
    run_log = RunLog(folder, resume_step=_FOREVER)
    timeout, last_seen, count = experiment.eval.timeout_minutes * 60.0, now(), 0

    log_notes(job)
    log(f"{store.directory}: following until step {plan.total_steps}")
    while not _has_ended(job, store, max(seen, default=0)):
        step = next((s for s in store.steps() if s not in seen), None)
        if step is None:
            if now() - last_seen > timeout:
                raise TrainingError(
                    f"{store.directory}: no new checkpoint for {timeout / 60:g} min; the last was at step "
                    f"{max(seen, default=0)} of {plan.total_steps}. If training is slower than that, "
                    "raise eval.timeout_minutes"
                )
            pause()
            continue
        seen.add(step)
        count += _evaluate(store.find(step), step, evaluator, run_log, plan.describe(step))
        last_seen = now()
    run_log.close()
    log(f"{store.directory}: training has ended at step {max(seen)}")
    return count


def _has_ended(job: Job, store: CheckpointStore, step: int) -> bool:
    """Return whether the checkpoint of `step` is the run's last: by its plan, or by train.patience."""
    if step >= job.plan.total_steps:
        return True
    if job.experiment.train.patience is None:
        return False
    # Every few seconds: too often to read whole checkpoints.
    return BestSoFar(job, store.best(verify=False)).is_final(step)


def _evaluate(
    checkpoint: Checkpoint | None,
    step: int,
    evaluator: Evaluator,
    run_log: RunLog,
    where: str,
) -> int:
    """Evaluate and log one checkpoint; return 1, or 0 if it was deleted before it could be read."""
    try:
        if checkpoint is None:
            raise CheckpointError("the checkpoint was deleted or is damaged")
        restore(evaluator.state, checkpoint)
    except CheckpointError as error:
        log(f"{where}: not evaluated: {error}")
        return 0
    result = evaluator()
    run_log.scalars("eval", step, result.figures)
    run_log.flush()
    log(f"{where}: {result}")
    return 1
