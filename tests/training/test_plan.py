"""A run and its stages in steps."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from configs.load import ConfigError, load_experiment
from configs.schema import Experiment
from system.errors import UsageError
from training.build import make_schedule
from training.plan import Plan, make_plan

EXAMPLES = 1000


def experiment(*overrides: str) -> Experiment:
    return load_experiment(overrides=["train.global_batch_size=10", *overrides])


def test_the_published_recipe_is_218949_steps_at_batch_2048() -> None:
    published = load_experiment(
        "configs/efficientnet_b0.yaml", overrides=["train.global_batch_size=2048"]
    )
    assert make_plan(published, 1_281_167).total_steps == 218_949


def in_steps(total: int, evaluate: int, save: int, call: int) -> Plan:
    steps = {"train.duration": total, "eval.every": evaluate, "checkpoint.every": save}
    overrides = [f"{key}={value} steps" for key, value in steps.items()]
    return make_plan(experiment(*overrides, f"train.steps_per_call={call}"), EXAMPLES)


def test_control_comes_back_at_every_evaluation_checkpoint_and_end() -> None:
    plan = in_steps(23, 10, 7, 4)
    (stage,) = plan.stages
    stops = list(itertools.takewhile(lambda s: s < 23, _stops(plan)))
    assert stops == [4, 7, 8, 10, 12, 14, 16, 20, 21]
    assert stage.next_stop(21) == 23
    assert [s for s in range(1, 24) if stage.evaluates_at(s)] == [10, 20, 23]
    assert [s for s in range(1, 24) if stage.saves_at(s)] == [7, 14, 21, 23]


def _stops(plan: Plan) -> Iterator[int]:
    step = 0
    while True:
        step = plan.stage_at(step).next_stop(step)
        yield step


def test_a_resumed_run_stops_where_an_uninterrupted_one_does() -> None:
    plan = in_steps(100, 10, 7, 4)
    stops = list(itertools.takewhile(lambda s: s < 100, _stops(plan)))
    for stop in stops:
        assert plan.stage_at(stop).next_stop(stop) in [*stops, 100]


# Stages

THREE = (
    "train.duration=3 epochs",
    "stages=[{duration: 50 %, set: {train.global_batch_size: 7}},"
    " {duration: 30 steps, set: {train.global_batch_size: 20, model.image_size: 16}},"
    " {set: {augment.magnitude: 1}}]",
)


def test_stages_follow_each_other_without_a_gap_in_steps_or_examples() -> None:
    plan = make_plan(experiment(*THREE), EXAMPLES)
    first, second, third = plan.stages
    # 1,500 examples are 214 steps of 7, and 2 examples that go to the next stage, which ends at 2,100.
    assert (first.first_step, first.end_step, first.first_example) == (0, 214, 0)
    assert (second.first_step, second.end_step, second.first_example) == (214, 244, 1498)
    assert (third.first_step, third.end_step, third.first_example) == (244, 334, 2098)
    assert plan.total_steps == 334
    assert [plan.examples_at(s) for s in (0, 214, 215, 244, 334)] == [0, 1498, 1518, 2098, 2998]
    assert third.experiment.model.image_size == 32
    assert second.experiment.model.image_size == 16


def test_a_step_belongs_to_the_stage_that_makes_it() -> None:
    plan = make_plan(experiment(*THREE), EXAMPLES)
    assert [plan.stage_at(s).number for s in (0, 213, 214, 243, 244, 334)] == [0, 0, 1, 1, 2, 2]
    assert [plan.stage_until(s).number for s in (0, 1, 214, 215, 244, 245)] == [0, 0, 0, 1, 1, 2]
    assert plan.describe(214) == "step 214, stage 1 of 3, epoch 1.5"
    assert make_plan(experiment("train.duration=3 epochs"), EXAMPLES).describe(150) == (
        "step 150, epoch 1.5"
    )


def test_each_call_of_the_training_loop_ends_where_an_evaluation_or_the_next_stage_follows() -> (
    None
):
    plan = make_plan(experiment(*THREE, "eval.every=20 steps"), EXAMPLES)
    calls = [(stage.number, stop) for stage, stop in plan.calls_from(214)]
    assert calls == [(1, 234), (1, 244), (2, 264), (2, 284), (2, 304), (2, 324), (2, 334)]
    assert list(plan.calls_from(334)) == []


def test_every_stage_is_measured_and_saved_at_its_end_and_counts_from_its_start() -> None:
    plan = make_plan(experiment(*THREE, "eval.every=20 steps"), EXAMPLES)
    second = plan.stages[1]
    assert [s for s in range(215, 245) if second.evaluates_at(s)] == [234, 244]
    assert second.saves_at(244)
    assert second.next_stop(214) == 234


def test_evaluations_are_counted_as_they_are_scheduled() -> None:
    plan = make_plan(experiment(*THREE, "eval.every=20 steps"), EXAMPLES)
    for after, until in ((0, 334), (0, 214), (100, 230), (214, 244), (240, 300), (334, 334)):
        steps = range(after + 1, until + 1)
        expected = sum(plan.stage_until(step).evaluates_at(step) for step in steps)
        assert plan.evaluations(after, until) == expected


def test_a_stage_may_nest_its_keys() -> None:
    nested = experiment("stages=[{set: {model: {image_size: 16}}}]")
    assert make_plan(nested, EXAMPLES).stages[0].experiment.model.image_size == 16


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("[{duration: 50 %}, {duration: 40 %}]", "stages cover 90 % of train.duration=3 epochs"),
        ("[{}, {duration: 50 %}]", r"stages\[0\] has no duration"),
        ("[{duration: 2 examples}, {}]", r"stages\[0\] is shorter than one step of 10 images"),
        ("[{duration: 100 %}, {}]", r"stages\[1\] is shorter than one step"),
    ],
)
def test_stages_that_do_not_fill_the_training_are_refused(stages: str, message: str) -> None:
    given = experiment("train.duration=3 epochs", f"stages={stages}")
    with pytest.raises(UsageError, match=message):
        make_plan(given, EXAMPLES)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            "[{set: {model.width: 2}}]",
            r"^--set stages=.*: stages\[0\].set: model.width cannot differ between stages",
        ),
        (
            "[{}, {set: {train.global_batch_size: 0}}]",
            r"^--set stages=.*: stages\[1\].set: train.global_batch_size must",
        ),
        ("[{set: {augment.policy: none, augment.magnitude: 3}}]", "magnitude=3 has no effect"),
        ("[{duration: 0 %}]", "stages.0.duration must be a share"),
        ("5", "stages must be a list"),
    ],
)
def test_a_stage_sets_what_may_differ_and_nothing_else(stages: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment(f"stages={stages}")


def rates(plan: Plan) -> np.ndarray:
    return np.concatenate(
        [
            np.broadcast_to(
                make_schedule(stage)(tf.range(stage.first_step, stage.end_step)),
                stage.end_step - stage.first_step,
            )
            for stage in plan.stages
        ]
    )


@pytest.mark.parametrize("schedule", ["exponential", "cosine", "polynomial"])
def test_the_rate_goes_on_by_epochs_and_its_peak_follows_the_batch(schedule: str) -> None:
    common = ("train.duration=4 epochs", f"schedule.name={schedule}", "schedule.warmup=1 epochs")
    alone = make_plan(experiment(*common), EXAMPLES)
    staged = make_plan(
        experiment(*common, "stages=[{duration: 50 %}, {set: {train.global_batch_size: 20}}]"),
        EXAMPLES,
    )
    expected, found = rates(alone), rates(staged)
    np.testing.assert_array_equal(found[:200], expected[:200])
    # Twice the batch: half the steps, at twice the rate of the same place in the stream.
    np.testing.assert_allclose(found[200:], 2 * expected[200::2], rtol=1e-6)


def test_a_stage_that_sets_the_schedule_has_one_of_its_own() -> None:
    plan = make_plan(
        experiment(
            "train.duration=4 epochs",
            "schedule.name=cosine",
            "schedule.warmup=0 steps",
            "stages=[{duration: 25 %, set: {schedule.name: constant}},"
            " {set: {schedule.learning_rate: 0.256}}]",
        ),
        EXAMPLES,
    )
    found = rates(plan)
    np.testing.assert_allclose(found[:100], found[0])
    assert found[100] == np.float32(0.256 * 10 / 256)
    np.testing.assert_allclose(found[250], found[100] / 2, rtol=1e-6)
    assert found[-1] < 1e-4 * found[100]
