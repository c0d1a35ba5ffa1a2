"""--mode=benchmark: speed and memory of an experiment's training steps on the available devices.

Each stage trains for a few steps with the training loop of a run. Nothing is saved.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from rich.table import Table

from configs.schema import Experiment
from efficientnet import describe_size
from efficientnet.spec import Size
from system.console import console, log
from system.memory import peak_memory_bytes
from training.build import make_recipe, make_state
from training.devices.distribution import Distribution
from training.failures import broken_data, lost_workers, training_memory
from training.inputs import train_batch_spec, train_dataset
from training.job import Job, open_job
from training.progress import step_progress
from training.step.custom_gradients import release_all
from training.step.train_step import make_train_loop

Loop = Callable[[Any, tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class StageSpeed:
    """The measured steps of a stage.

    Attributes:
      image_size: pixels of its images' side, or (height, width).
      global_batch_size: images per step.
      steps: number of measured steps.
      seconds: time of all measured steps.
      input_seconds: time that these steps waited for batches.
      first_seconds: time of the first call, which also compiles the step and fills the input's buffers.
    """

    image_size: Size
    global_batch_size: int
    steps: int
    seconds: float
    input_seconds: float
    first_seconds: float


@dataclasses.dataclass(frozen=True)
class Speed:
    """The result of a benchmark.

    Attributes:
      title: network, devices and precision.
      stages: of the training, in order.
      peak_bytes: peak memory of the process and of each device that reports it, by name.
    """

    title: str
    stages: tuple[StageSpeed, ...]
    peak_bytes: dict[str, int]


def run_benchmark(experiment: Experiment, distribution: Distribution) -> Speed:
    """Measure benchmark.steps training steps of each stage, after benchmark.warmup_steps.

    It neither reads nor writes files in model_dir.

    Raises:
      UserError: see `open_job` and `make_state`.
    """
    job = open_job(experiment, distribution).with_cached_images()
    with training_memory(job):
        state, noise = make_state(job, initial_weights=job.experiment.init.weights)
    stages = []
    for stage in job.plan.stages:
        stage_job = job.at(stage.first_step)
        release_all()
        with training_memory(stage_job):
            recipe = make_recipe(stage_job, state.network, noise)
            dataset = train_dataset(stage_job, stage.first_step)
            batches = iter(distribution.batches(dataset, stage.global_batch_size))
            spec = train_batch_spec(stage_job)
            loop = make_train_loop(state, recipe, distribution, spec, timed=True)
        stages.append(_measure(stage_job, loop, batches))
    count = sum(v.shape.num_elements() for v in state.variables.weights)
    title = f"{job.spec.name}, {count:,} weights, on {distribution.description} ({job.precision})"
    return Speed(title, tuple(stages), _peak_bytes())


def _measure(job: Job, loop: Loop, batches: Iterator[Any]) -> StageSpeed:
    """Run the warm-up and the measured steps of a stage."""
    given, train = job.experiment.benchmark, job.experiment.train

    def call(steps: int) -> tuple[float, float]:
        begin = time.monotonic()
        with lost_workers(job.distribution), training_memory(job), broken_data():
            rows = loop(batches, tf.constant(steps)).numpy()
        return time.monotonic() - begin, float(rows[:, -1].sum())

    first_seconds = seconds = input_seconds = 0.0
    with step_progress("benchmark", given.warmup_steps + given.steps) as progress:
        for done, steps in _calls(given.warmup_steps, train.steps_per_call):
            taken, _ = call(steps)
            first_seconds = first_seconds or taken
            progress(done)
        for done, steps in _calls(given.steps, train.steps_per_call):
            taken, waited = call(steps)
            seconds, input_seconds = seconds + taken, input_seconds + waited
            progress(given.warmup_steps + done)
    size, batch = job.spec.resolution, train.global_batch_size
    return StageSpeed(size, batch, given.steps, seconds, input_seconds, first_seconds)


def _calls(steps: int, steps_per_call: int) -> Iterator[tuple[int, int]]:
    """Divide `steps` into calls; yield (steps done after the call, steps of the call)."""
    for done in range(0, steps, steps_per_call):
        count = min(steps_per_call, steps - done)
        yield done + count, count


def _peak_bytes() -> dict[str, int]:
    """Return the peak memory so far, by name."""
    found = {"this process": peak_memory_bytes()}
    for device in tf.config.list_logical_devices("GPU"):
        found[device.name.removeprefix("/device:")] = tf.config.experimental.get_memory_info(
            device.name
        )["peak"]
    return found


def print_speed(speed: Speed) -> None:
    """Print a row for each stage, and the peak memory."""
    table = Table(title=speed.title, title_justify="left")
    for column in ("stage", "pixels", "batch", "images/s", "step", "waits for input", "first call"):
        table.add_column(column, justify="right")
    for number, stage in enumerate(speed.stages, start=1):
        table.add_row(
            str(number),
            describe_size(stage.image_size),
            f"{stage.global_batch_size:,}",
            f"{stage.steps * stage.global_batch_size / stage.seconds:,.1f}",
            f"{1000 * stage.seconds / stage.steps:,.1f} ms",
            f"{stage.input_seconds / stage.seconds:.1%}",
            f"{stage.first_seconds:.1f} s",
        )
    console.print(table)
    peaks = [f"{size / 1e9:.2f} GB of {name}" for name, size in speed.peak_bytes.items()]
    log(f"peak memory: {', '.join(peaks)}; {speed.stages[0].steps} steps measured in each stage")
