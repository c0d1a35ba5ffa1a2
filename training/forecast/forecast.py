"""Estimate a run's cost before paying for it, without a device and without training."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from configs.schema import Experiment, TFRecord
from efficientnet import ModelSpec, Size
from efficientnet.complexity import Complexity, count
from input_pipeline.sources import synthetic
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo
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
    make_task,
    model_spec,
    open_source,
    resolve,
)
from training.plan import Plan, Stage, make_plan
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
USABLE = 0.9  # of a chip's memory: the runtime and fragmentation take the rest
# Figures of a compile report that grow with the number of pixels.
PER_PIXEL = ("flops", "bytes_accessed", "temporary_bytes", "argument_bytes")
STATE_TOLERANCE = 0.001  # counters beside the weights
CURVE_POINTS = 500
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
