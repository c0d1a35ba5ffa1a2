"""Estimate a run's cost before paying for it, without a device and without training."""

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from configs.schema import Experiment
from efficientnet import ModelSpec, complexity
from input_pipeline.sources import synthetic
from system.console import log
from training.build import make_optimizer, make_schedule
from training.devices.distribution import batch_norm_group_size
from training.forecast.tpu_chips import Roofline, Topology, parse_topology, roofline
from training.job import ExperimentError, model_spec, open_source
from training.plan import Plan, make_plan

COMPILE_REPORT = Path(__file__).with_name("tpu_compile.json")
IMAGENET_CLASSES = 1000
# Training images that a core prepares at 224 px with AutoAugment: 2.5 ms of processor
# time each in benchmarks/results/input_pipeline.md.
IMAGES_PER_SECOND_PER_CORE = 400
USABLE = 0.9  # of a chip's memory: the runtime and fragmentation take the rest
STATE_TOLERANCE = 0.001  # counters beside the weights
CURVE_POINTS = 500


@dataclasses.dataclass(frozen=True)
class Forecast:
    """The estimated cost of a run.

    Attributes:
      experiment: the planned experiment.
      spec: specification of its network.
      num_examples: number of examples of an epoch.
      plan: durations in steps.
      steps: int [CURVE_POINTS], at which `rates` are given.
      rates: float32 [CURVE_POINTS].
      parameters: number of trainable parameters.
      multiply_adds: multiply-adds of the forward pass of one image.
      activation_bytes: upper bound of the activations of one image in a bfloat16 step.
      state_bytes: bytes of weights, statistics, slots and averages in float32.
      topology: the TPU to plan for, if any.
      at_best: roofline of the compiled step, if there is a report for such chips.
      record: that report.
    """

    experiment: Experiment
    spec: ModelSpec
    num_examples: int
    plan: Plan
    steps: np.ndarray
    rates: np.ndarray
    parameters: int
    multiply_adds: int
    activation_bytes: int
    state_bytes: int
    topology: Topology | None
    at_best: Roofline | None
    record: dict[str, Any] | None

    @property
    def per_replica_batch(self) -> int:
        """Images of a replica in one micro-batch."""
        replicas = self.topology.replicas if self.topology else 1
        return self.experiment.train.global_batch_size // (
            replicas * self.experiment.train.accumulation_steps
        )

    @property
    def largest_batch(self) -> int | None:
        """Images that fit into a replica's memory; None without a topology.

        Temporaries grow with the batch: as reported by the compiler, else by all activations.
        """
        if not self.topology:
            return None
        chip = self.topology.chip
        left = chip.hbm_bytes / chip.replicas * USABLE - self.state_bytes
        if self.record:
            an_image = self.record["temporary_bytes"] / self.record["per_replica_batch"]
        else:
            an_image = self.activation_bytes
        return max(int(left / an_image), 0)

    @property
    def epochs(self) -> float:
        """Passes over the data."""
        return self.plan.total_steps / self.plan.steps_per_epoch


def make_forecast(
    experiment: Experiment, topology: str | None, report: Path = COMPILE_REPORT
) -> Forecast:
    """Estimate the cost of `experiment`, on a TPU of `topology` ("v5e:2x4") or without one.

    Raises:
      UsageError: unknown topology.
      ExperimentError: the batch does not divide among its replicas.
      DistributionError: groups of batch norm do not divide its replicas.
    """
    chips = parse_topology(topology) if topology else None
    spec, train = model_spec(experiment), experiment.train
    shares = (chips.replicas if chips else 1) * train.accumulation_steps
    if train.global_batch_size % shares:
        raise ExperimentError(
            f"train.global_batch_size: {train.global_batch_size} is not divisible by {shares} "
            f"(replicas of {chips} x accumulation steps)"
        )
    if chips:
        batch_norm_group_size(experiment.batch_norm.group, chips.replicas)
    num_examples = _num_examples(experiment)
    plan = make_plan(experiment, num_examples)
    steps = np.linspace(0, plan.total_steps - 1, CURVE_POINTS).astype(np.int32)
    rates = make_schedule(experiment, plan)(tf.constant(steps)).numpy()
    costs = complexity(spec, num_classes=experiment.model.num_classes or IMAGENET_CLASSES)
    slots = len(make_optimizer(experiment).initial_slots)
    kept = costs.all_parameters * (2 if experiment.ema.decay else 1)
    state_bytes = 4 * (kept + slots * costs.trainable_parameters)
    record = _record(report, experiment, spec, chips, state_bytes) if chips else None
    return Forecast(
        experiment=experiment,
        spec=spec,
        num_examples=num_examples,
        plan=plan,
        steps=steps,
        rates=np.broadcast_to(rates, steps.shape),
        parameters=costs.trainable_parameters,
        multiply_adds=costs.multiply_adds,
        activation_bytes=costs.activation_bytes(2),
        state_bytes=state_bytes,
        topology=chips,
        at_best=roofline(record, chips) if record and chips else None,
        record=record,
    )


def lines(forecast: Forecast) -> list[str]:
    """Format the forecast, one line for each subject."""
    experiment, plan, topology = forecast.experiment, forecast.plan, forecast.topology
    size, peak = experiment.train.global_batch_size, int(np.argmax(forecast.rates))
    described = [
        f"{experiment.name}: {forecast.spec.name} at {forecast.spec.resolution} px, "
        f"{forecast.parameters:,} parameters, {forecast.multiply_adds / 1e9:.2f} G multiply-adds an "
        "image in the forward pass, three times that in training",
        f"{plan.total_steps:,} steps of {size:,} images: {forecast.epochs:.1f} epochs of "
        f"{forecast.num_examples:,}; evaluated every {plan.eval_every_steps:,} steps, saved every "
        f"{plan.checkpoint_every_steps:,}",
        f"learning rate: {_sparkline(forecast.rates)}  highest {forecast.rates[peak]:.4g} at step "
        f"{forecast.steps[peak]:,}, at the end {forecast.rates[-1]:.3g}",
        f"checkpoints: {forecast.state_bytes / 1e6:.0f} MB each, at most "
        f"{experiment.checkpoint.keep + 1} kept: "
        f"{forecast.state_bytes * (experiment.checkpoint.keep + 1) / 1e9:.2f} GB on disk",
        f"activations: at most {forecast.activation_bytes / 1e6:.0f} MB an image in bfloat16, "
        f"{forecast.activation_bytes * forecast.per_replica_batch / 1e9:.1f} GB for the "
        f"{forecast.per_replica_batch:,} images of a replica",
    ]
    if not topology:
        return [*described, "for hours and the largest batch, give --topology, such as v5e:2x4"]
    basis = "by the compiler" if forecast.record else "if all activations were kept"
    largest = forecast.largest_batch or 0
    advice = "raise train.accumulation_steps" if largest else "take a chip with more memory"
    advice = "" if forecast.per_replica_batch <= largest else f": too many, {advice}"
    memory = topology.chip.hbm_bytes / topology.chip.replicas
    described.append(
        f"{topology}: {topology.replicas} replicas of {memory / 1e9:.0f} GB, "
        f"{forecast.per_replica_batch:,} images each; {forecast.largest_batch:,} would fit "
        f"({basis}){advice}"
    )
    if not forecast.at_best:
        return [
            *described,
            f"hours: no report of this network on {topology.chip.name}; python -m "
            f"proofs.tpu_compile --topology={topology} with the --config and --set of this plan "
            "makes one (docs/tpu.md)",
        ]
    speed = forecast.at_best.images_per_second * topology.chips
    hosts = -(-topology.chips // topology.chip.chips_per_host)
    hours = forecast.at_best.hours(forecast.epochs, topology.chips, forecast.num_examples)
    return [
        *described,
        f"at best {speed:,.0f} images/s, {hours:.1f} hours (roofline of the compiled step; a real run "
        "takes longer)",
        f"input for that: {speed / hosts:,.0f} images/s on each host of {hosts}, about "
        f"{speed / hosts / IMAGES_PER_SECOND_PER_CORE:,.0f} cores at {IMAGES_PER_SECOND_PER_CORE} images/s"
        " a core; fewer with data.service or a cache",
    ]


def print_forecast(forecast: Forecast, model_dir: str) -> None:
    """Print the forecast; plot its learning rate to MODEL_DIR/learning_rate.png if MODEL_DIR exists.

    A plan creates no folder, which would look like the folder of a run.
    """
    for line in lines(forecast):
        log(line)
    if importlib.util.find_spec("matplotlib") is None:
        log("no plot of the learning rate: pip install matplotlib")
        return
    if not tf.io.gfile.isdir(model_dir):
        log(
            f"no plot of the learning rate: {model_dir} does not exist, and a plan creates no folder"
        )
        return
    path = f"{model_dir}/learning_rate.png"
    draw(forecast, path)
    log(f"learning rate: {path}")


def draw(forecast: Forecast, path: str) -> None:
    """Plot the learning rate over the epochs to a PNG file, local or gs://."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(forecast.steps / forecast.plan.steps_per_epoch, forecast.rates)
    axes.set_xlabel("epoch")
    axes.set_ylabel("learning rate")
    axes.set_title(f"{forecast.experiment.name}, {forecast.plan.total_steps:,} steps")
    canvas = FigureCanvasAgg(figure)
    with tf.io.gfile.GFile(path, "wb") as file:
        canvas.print_png(file)


def _num_examples(experiment: Experiment) -> int:
    """Return the number of training images: of the data if data.data_dir is set, else ImageNet's."""
    data = experiment.data
    if data.source == "tfrecord" and not data.data_dir:
        return synthetic.DEFAULT_TRAIN_EXAMPLES
    source = open_source(experiment, model_spec(experiment))
    return source.info.splits["train"].num_examples


def _record(
    report: Path, experiment: Experiment, spec: ModelSpec, topology: Topology, state_bytes: int
) -> dict[str, Any] | None:
    """Return the compile report of this network on such chips, None without one.

    A recipe with another width, optimizer or average differs in the size of its state. Of several
    reports, the one with the nearest batch is taken: bytes per image depend on the batch.
    """
    records = json.loads(report.read_text()) if report.exists() else []
    base = experiment.name.removesuffix("_600epochs").removesuffix("_randaugment")
    same = [
        record
        for record in records
        if record["compiles"]
        and record["network"] == "project"
        and record["recipe"] == base
        and record["image_size"] == spec.resolution
        and abs(record["state_bytes"] - state_bytes) < STATE_TOLERANCE * state_bytes
        and parse_topology(record["topology"]).chip == topology.chip
    ]
    train = experiment.train
    batch = train.global_batch_size / (topology.replicas * train.accumulation_steps)
    return min(same, key=lambda record: abs(record["per_replica_batch"] - batch), default=None)


def _sparkline(values: np.ndarray, width: int = 40) -> str:
    """Draw the values as a line of small bars."""
    bars = " ▁▂▃▄▅▆▇█"
    picked = values[np.linspace(0, len(values) - 1, width).astype(int)]
    levels = np.ceil(picked / max(float(values.max()), 1e-30) * (len(bars) - 1)).astype(int)
    return "".join(bars[level] for level in levels)
