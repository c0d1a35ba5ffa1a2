"""From an experiment to the steps, the optimizer and the schedule of a run."""

import dataclasses
import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow as tf

from configs.load import IMAGENET, load_experiment
from configs.model_file import write_model_file
from configs.schema import KINDS
from configs.sections import own_fields
from efficientnet import get_spec, to_plain
from input_pipeline.augment import POLICIES
from input_pipeline.sources import SOURCES, get_source
from training.assembly import (
    ExperimentError,
    Plan,
    check_batches,
    make_optimizer,
    make_plan,
    make_schedule,
    model_spec,
    skips_allowed,
)
from training.devices.distribution import connect
from training.optimizers import OPTIMIZERS, SGD
from training.optimizers.schedules import SCHEDULES


def test_the_published_recipe_is_218949_steps_at_batch_2048() -> None:
    experiment = load_experiment(
        "configs/efficientnet_b0.yaml", overrides=["train.global_batch_size=2048"]
    )
    assert make_plan(experiment, 1_281_167).total_steps == 218_949


def test_a_model_file_and_its_changes_become_the_network(tmp_path: Path) -> None:
    path = str(tmp_path / "b1.yaml")
    write_model_file(path, to_plain(get_spec("efficientnet-b1")))
    values = {"model.name": path}
    assert model_spec(load_experiment(IMAGENET, values=values)) == get_spec("efficientnet-b1")
    changes = ["model.dropout=0.4", "batch_norm.momentum=0.9", "model.image_size=64"]
    spec = model_spec(load_experiment(IMAGENET, overrides=changes, values=values))
    expected = {"dropout": 0.4, "batch_norm_momentum": 0.9, "resolution": 64}
    assert spec == get_spec("efficientnet-b1", **expected)


def test_normalization_is_the_experiments() -> None:
    normalization = "[[127.5, 127.5, 127.5], [128, 128, 128]]"
    experiment = load_experiment(overrides=[f"model.normalization={normalization}"])
    spec = model_spec(experiment)
    assert (spec.mean_rgb, spec.stddev_rgb) == ((127.5,) * 3, (128.0,) * 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"resolution": [64, 96]},
            "model: efficientnet-b1: resolution is (64, 96), expected a square",
        ),
        ({"activation": "swishy"}, "model: activation is 'swishy', expected one of Keras"),
    ],
)
def test_a_network_that_cannot_be_trained_is_one_line(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = str(tmp_path / "b1.yaml")
    write_model_file(path, {**to_plain(get_spec("efficientnet-b1")), **change})
    with pytest.raises(ExperimentError) as error:
        model_spec(load_experiment(IMAGENET, values={"model.name": path}))
    assert str(error.value).startswith(message)


def test_control_comes_back_at_every_evaluation_checkpoint_and_end() -> None:
    plan = Plan(
        total_steps=23,
        eval_every_steps=10,
        checkpoint_every_steps=7,
        steps_per_call=4,
        steps_per_epoch=5.0,
    )
    stops = list(itertools.takewhile(lambda s: s < 23, _stops(plan)))
    assert stops == [4, 7, 8, 10, 12, 14, 16, 20, 21]
    assert plan.next_stop(21) == 23
    assert [s for s in range(1, 24) if plan.is_due(s, 10)] == [10, 20, 23]


def _stops(plan: Plan) -> Iterator[int]:
    step = 0
    while True:
        step = plan.next_stop(step)
        yield step


def test_a_resumed_run_stops_where_an_uninterrupted_one_does() -> None:
    plan = Plan(100, 10, 7, 4, 5.0)
    stops = list(itertools.takewhile(lambda s: s < 100, _stops(plan)))
    for stop in stops:
        assert plan.next_stop(stop) in [*stops, 100]


def test_a_batch_that_cannot_be_accumulated_is_refused() -> None:
    experiment = load_experiment(
        "configs/smoke.yaml",
        overrides=["train.accumulation_steps=2", "eval.global_batch_size=5"],
    )
    check_batches(experiment, connect("cpu"))
    train = experiment.train.model_copy(update={"accumulation_steps": 4})
    experiment, mirrored = experiment.model_copy(update={"train": train}), connect("mirrored")
    with pytest.raises(ExperimentError, match=r"global_batch_size: 8 is not divisible"):
        check_batches(experiment, mirrored)


# Kinds


def _own_fields(section: str) -> dict[str, frozenset[str]]:
    return {kind: own_fields(cls) for kind, cls in KINDS[section].classes.items()}


def test_every_optimizer_takes_the_fields_of_its_section() -> None:
    taken = {
        name: frozenset(field.name for field in dataclasses.fields(optimizer))
        for name, optimizer in OPTIMIZERS.items()
    }
    assert taken == _own_fields("optimizer")


def test_every_schedule_takes_the_fields_of_its_section() -> None:
    taken = {
        name: frozenset(inspect.signature(schedule).parameters) - {"peak", "total_steps"}
        for name, schedule in SCHEDULES.items()
    }
    assert taken == _own_fields("schedule")


def test_every_policy_takes_the_fields_of_its_section() -> None:
    # What a policy takes over and above has no field: benchmarks and tests set it.
    assert POLICIES.keys() == KINDS["augment"].classes.keys()
    for policy, fields in _own_fields("augment").items():
        assert fields <= {field.name for field in dataclasses.fields(POLICIES[policy])}


def test_every_source_takes_the_fields_of_its_section() -> None:
    assert SOURCES.keys() == KINDS["data"].classes.keys()
    for fields in _own_fields("data").values():
        assert fields <= set(inspect.signature(get_source).parameters)


def test_settings_reach_the_optimizer_and_the_schedule() -> None:
    experiment = load_experiment(
        "configs/smoke.yaml",
        overrides=["optimizer.name=sgd", "optimizer.nesterov=true", "train.duration=40 steps"],
    )
    plan = make_plan(experiment, 80)
    assert make_optimizer(experiment) == SGD(momentum=0.9, nesterov=True)
    rates = [make_schedule(experiment, plan)(step).numpy() for step in (5, 10, 15)]
    assert rates == pytest.approx([0.0005 * 0.97**stair for stair in (1, 2, 3)])
    experiment = load_experiment("configs/smoke.yaml", overrides=["schedule.name=cosine"])
    rate = make_schedule(experiment, make_plan(experiment, 80))(tf.constant(10))
    assert rate.numpy() == pytest.approx(0.00025)


@pytest.mark.parametrize(
    ("overrides", "allowed"),
    [
        ([], 0),
        (["train.on_nonfinite=skip"], 10),
        (["train.on_nonfinite=skip", "train.max_skipped_steps=3"], 3),
    ],
)
def test_skipped_steps_are_counted_where_they_are_skipped(
    overrides: list[str], allowed: int
) -> None:
    assert skips_allowed(load_experiment(overrides=overrides)) == allowed
