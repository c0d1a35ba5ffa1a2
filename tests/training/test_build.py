"""Optimizer, schedule and the rest of a recipe, from the sections of an experiment."""

import dataclasses
import inspect

import pytest
import tensorflow as tf

from configs.load import load_experiment
from configs.schema import KINDS, Experiment
from configs.sections import own_fields
from input_pipeline.augment import POLICIES
from input_pipeline.sources import SOURCES, get_source
from training.build import make_optimizer, make_schedule, make_weight_decay
from training.optimizers import OPTIMIZERS, SGD
from training.optimizers.schedules import SCHEDULES, Schedule
from training.plan import make_plan


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
        of_the_source = fields - {"shuffle_buffer_mib"}  # it is of the reading
        assert of_the_source <= set(inspect.signature(get_source).parameters)


def rate_of(experiment: Experiment) -> Schedule:
    return make_schedule(make_plan(experiment, 80).stages[0])


def test_settings_reach_the_optimizer_and_the_schedule() -> None:
    experiment = load_experiment(
        "configs/smoke.yaml",
        overrides=["optimizer.name=sgd", "optimizer.nesterov=true", "train.duration=40 steps"],
    )
    assert make_optimizer(experiment) == SGD(momentum=0.9, nesterov=True)
    rates = [rate_of(experiment)(step).numpy() for step in (5, 10, 15)]
    assert rates == pytest.approx([0.0005 * 0.97**stair for stair in (1, 2, 3)])
    experiment = load_experiment("configs/smoke.yaml", overrides=["schedule.name=cosine"])
    rate = rate_of(experiment)(tf.constant(10))
    assert rate.numpy() == pytest.approx(0.00025)


@pytest.mark.parametrize(
    ("overrides", "coupled"),
    [
        (["optimizer.name=sgd"], True),
        (["optimizer.name=adamw"], False),
        (["optimizer.name=lars"], False),
        (["optimizer.name=adamw", "train.weight_decay_coupled=true"], True),
        (["optimizer.name=sgd", "train.weight_decay_coupled=false"], False),
    ],
)
def test_weight_decay_is_where_the_optimizer_has_it_unless_the_recipe_says(
    overrides: list[str], coupled: bool
) -> None:
    assert make_weight_decay(load_experiment(overrides=overrides)).coupled == coupled


def test_durations_of_a_schedule_become_steps() -> None:
    overrides = [
        "schedule.name=stepwise",
        "schedule.boundaries=[1 epochs, 30 steps]",
        "schedule.factors=[1.0, 0.5, 0.1]",
        "schedule.warmup=0 epochs",
    ]
    experiment = load_experiment("configs/smoke.yaml", overrides=overrides)
    rate = rate_of(experiment)
    peak = float(rate(tf.constant(0)))
    assert [float(rate(tf.constant(s))) / peak for s in (9, 10, 30)] == pytest.approx([1, 0.5, 0.1])
