"""Print a forecast, and plot its learning rate."""

from typing import Any

import numpy as np
import tensorflow as tf

from configs.load import difference, load_experiment
from configs.schema import Experiment
from run_folder.experiment import run_experiment_file
from system.console import log
from training.forecast.forecast import Forecast, Rates, StageForecast
from training.forecast.tpu_chips import Topology
from training.job import describe_sizes
from training.plan import format_stage
from training.plots import save_plot

# Training images that a core prepares at 224 px with AutoAugment: 2.5 ms of processor
# time each in benchmarks/results/input_pipeline.md.
IMAGES_PER_SECOND_PER_CORE = 400
DECIDE_THE_RATE = (
    *("schedule", "stages", "train.duration", "train.global_batch_size"),
    *("data.source", "data.data_dir", "data.num_train_examples", "data.holdout_shards"),
)


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


def _sparkline(values: np.ndarray, width: int = 40) -> str:
    """Draw the values as a line of small bars."""
    bars = " ▁▂▃▄▅▆▇█"
    picked = values[np.linspace(0, len(values) - 1, width).astype(int)]
    levels = np.ceil(picked / max(float(values.max()), 1e-30) * (len(bars) - 1)).astype(int)
    return "".join(bars[level] for level in levels)
