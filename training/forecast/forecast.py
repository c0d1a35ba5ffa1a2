"""Estimate a run's cost before paying for it, without a device and without training."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from configs.load import difference, load_experiment
from configs.schema import Experiment, TFRecord
from efficientnet import ModelSpec, Size
from efficientnet.complexity import Complexity, count
from input_pipeline.sources import synthetic
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo
from run_folder.experiment import run_experiment_file
from system.console import log
from training.build import make_optimizer, make_schedule
from training.devices.distribution import batch_norm_group_size
from training.forecast.tpu_chips import (
    COMPILE_REPORT,
    Roofline,
    Topology,
    parse_topology,
    roofline,
)
from training.initial import with_expectations
from training.job import (
    ExperimentError,
    describe_sizes,
    make_task,
    model_spec,
    open_source,
    resolve,
)
from training.plan import Plan, Stage, format_stage, make_plan
from training.plots import save_plot
from training.trainable import Paths, frozen_paths

IMAGENET_CLASSES = 1000
# Training images of the sets that are planned for without their data, by the number of classes: ImageNet,
# ImageNet-21k without its minival, and COCO 2017.
TRAIN_EXAMPLES = {
    IMAGENET_CLASSES: synthetic.DEFAULT_TRAIN_EXAMPLES,
    21_843: 12_720_275,
    90: 118_287,
}
TRAIN_SHARDS = 1024  # of their published records
# Training images that a core prepares at 224 px with AutoAugment: 2.5 ms of processor
# time each in benchmarks/results/input_pipeline.md.
IMAGES_PER_SECOND_PER_CORE = 400
USABLE = 0.9  # of a chip's memory: the runtime and fragmentation take the rest
# Figures of a compile report that grow with the number of pixels.
PER_PIXEL = ("flops", "bytes_accessed", "temporary_bytes", "argument_bytes")
STATE_TOLERANCE = 0.001  # counters beside the weights
CURVE_POINTS = 500
DECIDE_THE_RATE = (
    *("schedule", "stages", "train.duration", "train.global_batch_size"),
    *("data.source", "data.data_dir", "data.num_train_examples", "data.holdout_shards"),
)
RATE_POINTS = 1_000_000  # longer stages are sampled


class Rates(NamedTuple):
    """The learning rate of a stage: at its first step, at the step of the highest one, at its last step."""

    first: float
    highest: float
    peak_step: int
    last: float


@dataclasses.dataclass(frozen=True)
class StageForecast:
    """The estimated cost of one stage of a run.

    Attributes:
      stage: its settings and steps.
      rates: its learning rate.
      spec: specification of the network at its image size.
      multiply_adds: multiply-adds of the forward pass of one image.
      training_multiply_adds: of a training step, for one image.
      parameters: number of parameters that train if none are frozen.
      trained_parameters: number of parameters that train in this stage.
      activation_bytes: upper bound of the activations of one image in a bfloat16 step, without those that
        frozen parts need not keep.
      slot_bytes: bytes of the optimizer's slots in float32, those of frozen parameters included.
      state_bytes: bytes of weights, statistics, slots and averages in float32.
      topology: the TPU to plan for, if any.
      at_best: roofline of the compiled step, if there is a report for such chips.
      record: that report.
    """

    stage: Stage
    rates: Rates
    spec: ModelSpec
    multiply_adds: int
    training_multiply_adds: int
    parameters: int
    trained_parameters: int
    activation_bytes: int
    slot_bytes: int
    state_bytes: int
    topology: Topology | None
    at_best: Roofline | None
    record: dict[str, Any] | None

    @property
    def per_replica_batch(self) -> int:
        """Images of a replica in one micro-batch."""
        replicas = self.topology.replicas if self.topology else 1
        train = self.stage.experiment.train
        return train.global_batch_size // (replicas * train.accumulation_steps)

    @property
    def largest_batch(self) -> int | None:
        """Images that fit into a replica's memory; None without a topology.

        Temporaries grow with the batch, by `bytes_per_image`.
        """
        if not self.topology:
            return None
        chip = self.topology.chip
        left = chip.hbm_bytes / chip.replicas * USABLE - self.state_bytes
        return max(int(left / self.bytes_per_image), 0)

    @property
    def by_compiler(self) -> bool:
        """Whether `bytes_per_image` is the compiler's."""
        return self._compiled_bytes_per_image == self.bytes_per_image

    @property
    def bytes_per_image(self) -> float:
        """Upper bound of the temporaries of one image."""
        compiled = self._compiled_bytes_per_image
        if compiled is None:
            return self.activation_bytes
        # The compiled step trains everything, so with frozen parts the activations can be the lower bound.
        has_frozen = self.trained_parameters < self.parameters
        return min(compiled, self.activation_bytes) if has_frozen else compiled

    @property
    def _compiled_bytes_per_image(self) -> float | None:
        if not self.record:
            return None
        return self.record["temporary_bytes"] / self.record["per_replica_batch"]

    @property
    def epochs(self) -> float:
        """Passes over the data."""
        return (self.stage.end_step - self.stage.first_step) / self.stage.steps_per_epoch


@dataclasses.dataclass(frozen=True)
class Forecast:
    """The estimated cost of a run.

    Attributes:
      experiment: the planned experiment.
      plan: durations in steps.
      steps: int [CURVE_POINTS], at which `rates` are given.
      rates: float32 [CURVE_POINTS].
      parameters: number of parameters, frozen ones included.
      stages: cost of each stage.
    """

    experiment: Experiment
    plan: Plan
    steps: np.ndarray
    rates: np.ndarray
    parameters: int
    stages: tuple[StageForecast, ...]

    @property
    def epochs(self) -> float:
        """Passes over the data."""
        return self.plan.epochs_at(self.plan.total_steps)


def make_forecast(
    experiment: Experiment, topology: str | None, report: Path = COMPILE_REPORT
) -> Forecast:
    """Estimate the cost of `experiment`, on a TPU of `topology` ("v5e:2x4") or without one.

    Number of classes and what the initial weights expect are settled as in training.

    Raises:
      UsageError: unknown topology; or see `with_expectations` and `frozen_paths`.
      ExperimentError: the batch does not divide among its replicas.
      DistributionError: groups of batch norm do not divide its replicas.
    """
    chips = parse_topology(topology) if topology else None
    experiment, num_examples = _with_data(with_expectations(experiment, model_spec))
    plan = make_plan(experiment, num_examples)
    stages = tuple(_forecast_stage(stage, chips, report) for stage in plan.stages)
    steps = np.linspace(0, plan.total_steps - 1, CURVE_POINTS).astype(np.int32)
    rates = [
        _rates(stage, steps[(stage.first_step <= steps) & (steps < stage.end_step)])
        for stage in plan.stages
    ]
    costs = _costs(stages[-1].spec, experiment)
    return Forecast(
        experiment, plan, steps, np.concatenate(rates), costs.trainable_parameters, stages
    )


def _forecast_stage(stage: Stage, topology: Topology | None, report: Path) -> StageForecast:
    experiment, train = stage.experiment, stage.experiment.train
    shares = (topology.replicas if topology else 1) * train.accumulation_steps
    if train.global_batch_size % shares:
        raise ExperimentError(
            f"train.global_batch_size: {train.global_batch_size} is not divisible by {shares} "
            f"(replicas of {topology} x accumulation steps)"
        )
    if topology:
        batch_norm_group_size(experiment.batch_norm.group, topology.replicas)
    spec = model_spec(experiment)
    costs = _costs(spec, experiment)
    frozen = frozen_paths(
        Paths.of_costs(costs),
        spec,
        train.trainable,
        freeze_batch_norm=train.freeze_batch_norm,
    )
    slot_bytes = 4 * len(make_optimizer(experiment).initial_slots) * costs.trainable_parameters
    kept = costs.all_parameters * (2 if experiment.ema.decay else 1)
    state_bytes = 4 * kept + slot_bytes
    record = _record(report, experiment, spec, topology, state_bytes) if topology else None
    return StageForecast(
        stage=stage,
        rates=_stage_rates(stage),
        spec=spec,
        multiply_adds=costs.multiply_adds,
        training_multiply_adds=costs.training_multiply_adds(frozen),
        parameters=costs.trainable_parameters,
        trained_parameters=costs.trained_parameters(frozen),
        activation_bytes=costs.activation_bytes(2, frozen),
        slot_bytes=slot_bytes,
        state_bytes=state_bytes,
        topology=topology,
        at_best=roofline(record, topology) if record and topology else None,
        record=record,
    )


def _costs(spec: ModelSpec, experiment: Experiment) -> Complexity:
    classes = experiment.model.num_classes or IMAGENET_CLASSES
    # The number of images of each class does not change the network.
    info = DatasetInfo("any", classes, splits={"train": SplitInfo(1, class_counts=(1,) * classes)})
    return count(make_task(experiment, info).layers(spec), spec.resolution)


def _rates(stage: Stage, steps: np.ndarray) -> np.ndarray:
    """Return the learning rate at each of a stage's `steps`: float32, of the same shape."""
    return np.broadcast_to(make_schedule(stage)(tf.constant(steps)).numpy(), steps.shape)


def _stage_rates(stage: Stage) -> Rates:
    points = min(stage.end_step - stage.first_step, RATE_POINTS)
    steps = np.linspace(stage.first_step, stage.end_step - 1, points).round().astype(np.int32)
    rates = _rates(stage, steps)
    peak = int(np.argmax(rates))
    return Rates(float(rates[0]), float(rates[peak]), int(steps[peak]), float(rates[-1]))


def lines(forecast: Forecast) -> list[str]:
    """Format the forecast, one line for each subject; a run of several stages has some for each."""
    experiment, last = forecast.experiment, forecast.stages[-1]
    peak = max((each.rates for each in forecast.stages), key=lambda rates: rates.highest)
    times = last.training_multiply_adds / last.multiply_adds
    described = [
        f"{experiment.name}: {last.spec.name} at {describe_sizes(experiment, last.spec)}, "
        f"{forecast.parameters:,} parameters, {last.multiply_adds / 1e9:.2f} G multiply-adds an "
        f"image in the forward pass, {times:.1f} times that in training",
        f"learning rate: {_sparkline(forecast.rates)}  highest {peak.highest:.4g} at step "
        f"{peak.peak_step:,}, at the end {last.rates.last:.3g}",
        f"checkpoints: {last.state_bytes / 1e6:.0f} MB each, at most "
        f"{experiment.checkpoint.keep + 1} kept: "
        f"{last.state_bytes * (experiment.checkpoint.keep + 1) / 1e9:.2f} GB on disk",
    ]
    for each in forecast.stages:
        described += _stage_lines(forecast, each)
    if not last.topology:
        return [*described, "for hours and the largest batch, give --topology, such as v5e:2x4"]
    return described + _time_lines(forecast, last.topology)


def _stage_lines(forecast: Forecast, each: StageForecast) -> list[str]:
    """Format the steps and the memory of a stage, and the learning rate of one of several."""
    stage, count = each.stage, len(forecast.stages)
    title = rates = ""
    if count > 1:
        overlay = format_stage(forecast.experiment.stages[stage.number])
        title = f"stage {stage.number + 1} of {count} ({overlay}): "
        rates = f"learning rate {_format_rates(each.rates)}; "
    described = [
        f"{title}{stage.end_step - stage.first_step:,} steps of {stage.global_batch_size:,} images: "
        f"{each.epochs:.1f} epochs of {forecast.plan.num_examples:,}; {rates}evaluated every "
        f"{stage.eval_every_steps:,} steps, saved every {stage.checkpoint_every_steps:,}",
        f"activations: at most {each.activation_bytes / 1e6:.0f} MB an image in bfloat16, "
        f"{each.activation_bytes * each.per_replica_batch / 1e9:.2f} GB for the "
        f"{each.per_replica_batch:,} images of a replica",
    ]
    if each.trained_parameters < forecast.parameters:
        times = each.training_multiply_adds / each.multiply_adds
        described.append(
            f"trains {each.trained_parameters:,} of {forecast.parameters:,} parameters: a step takes "
            f"{times:.1f} times the multiply-adds of the forward pass; the optimizer keeps "
            f"{each.slot_bytes / 1e6:.0f} MB of slots for all of them"
        )
    return [*described, _fit_line(each, each.topology)] if each.topology else described


def _format_rates(rates: Rates) -> str:
    """Format the rates of a stage, one number if they are all the same."""
    if rates.first == rates.highest == rates.last:
        return f"{rates.highest:.4g}"
    return (
        f"from {rates.first:.3g} to {rates.last:.3g}, highest {rates.highest:.4g} "
        f"at step {rates.peak_step:,}"
    )


def _fit_line(each: StageForecast, topology: Topology) -> str:
    """Format the largest batch of a stage, and what to do if its own does not fit."""
    basis = "by the compiler" if each.by_compiler else "by the activations"
    largest = each.largest_batch or 0
    advice = "raise train.accumulation_steps" if largest else "take a chip with more memory"
    advice = "" if each.per_replica_batch <= largest else f": too many, {advice}"
    memory = topology.chip.hbm_bytes / topology.chip.replicas
    return (
        f"{topology}: {topology.replicas} replicas of {memory / 1e9:.0f} GB, "
        f"{each.per_replica_batch:,} images each; {largest:,} would fit ({basis}){advice}"
    )


def _time_lines(forecast: Forecast, topology: Topology) -> list[str]:
    """Format hours, speed and the input that it takes, by the compiler's report of every stage."""
    if any(each.at_best is None for each in forecast.stages):
        return [
            f"hours: no report of this network on {topology.chip.name}; python -m "
            f"proofs.tpu_compile --topology={topology} with the --config and --set of this plan "
            "makes one (docs/tpu.md)"
        ]
    described, hosts, total = [], -(-topology.chips // topology.chip.chips_per_host), 0.0
    if any(each.trained_parameters < forecast.parameters for each in forecast.stages):
        described.append(
            "hours and images/s are those of steps that train everything: frozen parts save some"
        )
    for each in forecast.stages:
        assert each.at_best
        assert each.record
        speed = each.at_best.images_per_second * topology.chips
        hours = each.at_best.hours(each.epochs, topology.chips, forecast.plan.num_examples)
        total += hours
        title = f"stage {each.stage.number + 1}: " if len(forecast.stages) > 1 else ""
        described += [
            f"{title}at best {speed:,.0f} images/s, {hours:.1f} hours (roofline of the compiled step"
            f"{_basis(each.record)}; a real run takes longer)",
            f"input for that: {speed / hosts:,.0f} images/s on each host of {hosts}, about "
            f"{speed / hosts / IMAGES_PER_SECOND_PER_CORE:,.0f} cores at {IMAGES_PER_SECOND_PER_CORE} "
            "images/s a core; fewer with data.service or a cache",
        ]
    if len(forecast.stages) > 1:
        described.append(f"all stages: at best {total:.1f} hours")
    return described


def _basis(record: dict[str, Any]) -> str:
    """Say how a report follows from what was compiled: "" if it is of this very step."""
    notes = []
    if "blocks" in record:
        compiled, whole = record["blocks"]
        notes.append(f"extrapolated from {compiled} of {whole} blocks")
    if "interpolated" in record:
        notes.append(record["interpolated"])
    return "".join(f", {note}" for note in notes)


def print_forecast(forecast: Forecast, model_dir: str) -> None:
    """Print the forecast; plot its learning rate to MODEL_DIR/learning_rate.png if MODEL_DIR exists.

    A plan creates no folder, which would look like that of a run, and leaves that of another run alone.
    """
    for line in lines(forecast):
        log(line)
    if not tf.io.gfile.isdir(model_dir):
        return
    before = run_experiment_file(model_dir)
    if before and _other_rates(before, forecast.experiment):
        log(f"{model_dir} holds another run: its plot of the learning rate is left as it is")
        return
    path = f"{model_dir}/learning_rate.png"
    draw(forecast, path)
    log(f"learning rate: {path}")


def _other_rates(file: str, experiment: Experiment) -> bool:
    return bool(difference(load_experiment(file), experiment, DECIDE_THE_RATE))


def draw(forecast: Forecast, path: str) -> None:
    """Plot the learning rate over the epochs to a PNG file, local or gs://."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.add_subplot()
    epochs = [forecast.plan.epochs_at(int(step)) for step in forecast.steps]
    axes.plot(epochs, forecast.rates)
    for stage in forecast.plan.stages[1:]:
        axes.axvline(forecast.plan.epochs_at(stage.first_step), color="grey", linewidth=0.5)
    axes.set_xlabel("epoch")
    axes.set_ylabel("learning rate")
    axes.set_title(f"{forecast.experiment.name}, {forecast.plan.total_steps:,} steps")
    save_plot(figure, path)


def _with_data(experiment: Experiment) -> tuple[Experiment, int]:
    """Return the experiment with its number of classes, and the number of training images.

    Both are those of the data if data.data_dir is set, else of TRAIN_EXAMPLES.
    """
    data, model, spec = experiment.data, experiment.model, model_spec(experiment)
    if not isinstance(data, TFRecord) or data.data_dir:
        info = open_source(experiment, spec).info
        return resolve(experiment, spec, info), info.splits["train"].num_examples
    classes = model.num_classes or IMAGENET_CLASSES
    if classes not in TRAIN_EXAMPLES:
        raise ExperimentError(
            f"data.data_dir: needed to plan for {classes:,} classes; without it, ImageNet (1,000 classes)"
            ", ImageNet-21k (21,843) and COCO (90) are planned for"
        )
    kept = max(TRAIN_SHARDS - data.holdout_shards, 1)
    model = model.model_copy(update={"num_classes": classes})
    planned = experiment.model_copy(update={"model": model})
    return planned, TRAIN_EXAMPLES[classes] * kept // TRAIN_SHARDS


def _record(
    report: Path, experiment: Experiment, spec: ModelSpec, topology: Topology, state_bytes: int
) -> dict[str, Any] | None:
    """Return the compile report of this network on such chips, None without one.

    A network of another width, and a recipe with another optimizer or average, differ in the size of
    their state; the name of the run does not matter. Of several reports a whole one is preferred to an
    extrapolated one, then the one with the nearest batch: bytes per image depend on the batch. A size
    between two reported ones is interpolated.
    """
    records = json.loads(report.read_text()) if report.exists() else []
    same = [
        record
        for record in records
        if record["compiles"]
        and record["network"] == "project"
        and record.get("model") == spec.name  # older reports do not name it
        and record.get("task", "classification") == experiment.task.name
        and abs(record["state_bytes"] - state_bytes) < STATE_TOLERANCE * state_bytes
        and parse_topology(record["topology"]).chip == topology.chip
    ]
    train = experiment.train
    batch = train.global_batch_size / (topology.replicas * train.accumulation_steps)
    same.sort(key=lambda record: ("blocks" in record, abs(record["per_replica_batch"] - batch)))
    for record in same:
        if record["image_size"] == spec.resolution:
            return record
    return _interpolate(same, spec.resolution)


def _interpolate(records: Sequence[dict[str, Any]], size: Size) -> dict[str, Any] | None:
    """Interpolate, by pixels, between the first records of a smaller and a larger size at one batch."""
    for low, high in itertools.permutations(records, 2):
        given = (low["image_size"], size, high["image_size"])
        sides = [side for side in given if isinstance(side, int)]
        if len(sides) < 3 or sides != sorted(sides):
            continue
        if low["per_replica_batch"] == high["per_replica_batch"]:
            smaller, wanted, larger = (side**2 for side in sides)
            share = (wanted - smaller) / (larger - smaller)
            figures = {name: low[name] + share * (high[name] - low[name]) for name in PER_PIXEL}
            between = f"interpolated between {sides[0]} and {sides[2]} px"
            return {**low, **figures, "image_size": size, "interpolated": between}
    return None


def _sparkline(values: np.ndarray, width: int = 40) -> str:
    """Draw the values as a line of small bars."""
    bars = " ▁▂▃▄▅▆▇█"
    picked = values[np.linspace(0, len(values) - 1, width).astype(int)]
    levels = np.ceil(picked / max(float(values.max()), 1e-30) * (len(bars) - 1)).astype(int)
    return "".join(bars[level] for level in levels)
