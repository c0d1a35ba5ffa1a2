"""--mode=lr_range: the learning-rate range test (L. Smith, arXiv 1506.01186).

The first stage of a training with a rate that rises exponentially: the loss falls slowly, then fast, then
diverges. The suggestion is the rate of the steepest fall. Nothing of it is kept but the curve.
"""

import dataclasses
import io
import math
import posixpath
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from configs.schema import Experiment
from system.console import log
from system.files import write_text
from training.build import check_trainable, make_recipe, make_state
from training.devices.distribution import Distribution
from training.failures import TrainingError, broken_data, lost_workers, training_memory
from training.inputs import train_batch_spec, train_dataset
from training.job import Job, open_job
from training.optimizers.schedules import Schedule, scaled_rate
from training.plots import save_plot
from training.progress import step_progress
from training.step.train_step import make_train_loop

STEPS_PER_CALL = 5  # between two looks at the loss
SMOOTHING = 0.9  # of the moving average of the loss
DIVERGED = 4.0  # times the lowest smoothed loss: the test ends
UNSETTLED = 0.1  # share of the steps at the start in which the average is of too few losses


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """The loss at rising learning rates.

    Attributes:
      rates: float64 [n], ascending, as schedule.learning_rate: per 256 examples.
      losses: float64 [n], of single steps, each before the update with its rate; finite.
      num_steps: number of steps asked for; more than n if the loss diverged.
    """

    rates: np.ndarray
    losses: np.ndarray
    num_steps: int

    @property
    def smoothed(self) -> np.ndarray:
        """Moving average of the losses, in both directions so that it does not lag: float64 [n]."""
        return smooth(smooth(self.losses)[::-1])[::-1]

    @property
    def suggestion(self) -> float | None:
        """Rate at which the smoothed loss falls fastest by the logarithm of the rate; None if it never falls.

        The fastest fall is looked for up to the lowest loss.
        """
        smoothed = self.smoothed
        first = math.ceil(UNSETTLED * self.num_steps)
        last = first + int(np.argmin(smoothed[first:])) if len(smoothed) > first else 0
        if last - first < 2:
            return None
        span = slice(first, last + 1)
        slope = np.gradient(smoothed[span], np.log(self.rates[span]))
        return float(self.rates[span][np.argmin(slope)])


def run_range_test(experiment: Experiment, distribution: Distribution) -> RangeTest:
    """Train with a rising learning rate from the initial weights, until the loss diverges.

    The checkpoints of the run in model_dir are neither read nor changed.

    Raises:
      UserError: see `open_job` and `make_state`; or the first loss is not finite.
    """
    job = open_job(experiment, distribution).with_cached_images()
    given = job.experiment.lr_range
    rates = np.geomspace(given.lowest, given.highest, given.steps)
    losses: list[float] = []
    with step_progress("lr_range", given.steps) as progress:
        for loss in _losses(job, given.steps):
            if not math.isfinite(loss) or _has_diverged([*losses, loss]):
                break
            losses.append(loss)
            progress(len(losses))
    if not losses:
        raise TrainingError(
            f"the loss is not finite at lr_range.lowest={given.lowest:g}; check the data and init.weights"
        )
    return RangeTest(rates[: len(losses)], np.array(losses), given.steps)


def _losses(job: Job, num_steps: int) -> Iterator[float]:
    """Yield the loss of each step at a rate that rises from lr_range.lowest to lr_range.highest."""
    with training_memory(job):
        state, noise = make_state(job, initial_weights=job.experiment.init.weights)
    check_trainable(job, state.network)
    stage_job = job.at(0)
    stage, given = stage_job.current_stage, job.experiment.lr_range
    size = stage.global_batch_size
    schedule = rising(scaled_rate(given.lowest, size), scaled_rate(given.highest, size), num_steps)
    with training_memory(stage_job):
        recipe = make_recipe(stage_job, state.network, noise)
        recipe = dataclasses.replace(recipe, learning_rate=schedule)
        dataset = train_dataset(stage_job, 0)
        batches = iter(job.distribution.batches(dataset, size))
        loop = make_train_loop(state, recipe, job.distribution, train_batch_spec(stage_job))
    for step in range(0, num_steps, STEPS_PER_CALL):
        count = min(STEPS_PER_CALL, num_steps - step)
        with lost_workers(job.distribution), training_memory(stage_job), broken_data():
            rows = loop(batches, tf.constant(count)).numpy()
        yield from rows[:, recipe.metrics.index("loss")].astype(np.float64).tolist()


def rising(lowest: float, highest: float, num_steps: int) -> Schedule:
    """Return an exponential rise from `lowest` at step 0 to `highest` at the last step."""
    growth = math.log(highest / lowest) / (num_steps - 1)
    return lambda step: lowest * tf.exp(growth * tf.cast(step, tf.float32))


def smooth(losses: np.ndarray) -> np.ndarray:
    """Average exponentially, divided by the sum of the weights: float64 [n] -> [n]."""
    average, smoothed = 0.0, []
    for count, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed.append(average / (1 - SMOOTHING**count))
    return np.array(smoothed)


def _has_diverged(losses: list[float]) -> bool:
    smoothed = smooth(np.array(losses))
    return bool(smoothed[-1] > DIVERGED * smoothed.min())


def report_range(found: RangeTest, model_dir: str) -> None:
    """Write the curve to MODEL_DIR/lr_range.csv and .png, and log the suggested rate."""
    table = io.StringIO()
    table.write("learning_rate,loss,smoothed_loss\n")
    for row in zip(found.rates, found.losses, found.smoothed, strict=True):
        table.write(",".join(f"{number:.6g}" for number in row) + "\n")
    path = posixpath.join(model_dir, "lr_range")
    write_text(f"{path}.csv", table.getvalue())
    draw(found, f"{path}.png")
    count, asked = len(found.losses), found.num_steps
    end = "" if count == asked else "; then it diverged"
    log(
        f"{count} of {asked} steps, up to a rate of {found.rates[-1]:.3g}{end}: {path}.csv, {path}.png"
    )
    if found.suggestion is None:
        log("no suggestion: the loss never fell; try another lr_range.lowest and lr_range.highest")
    else:
        log(
            f"suggestion: --set schedule.learning_rate={found.suggestion:.2g}, where the loss falls fastest"
        )


def draw(found: RangeTest, path: str) -> None:
    """Plot the loss over the learning rate to a PNG file, local or gs://."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.semilogx(found.rates, found.losses, color="lightgrey", label="loss")
    axes.semilogx(found.rates, found.smoothed, label="smoothed")
    if found.suggestion is not None:
        axes.axvline(found.suggestion, color="grey", linestyle=":", label="suggestion")
    axes.set_xlabel("schedule.learning_rate")
    axes.set_ylabel("loss")
    axes.legend()
    save_plot(figure, path)
