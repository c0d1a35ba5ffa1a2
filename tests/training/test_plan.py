"""A run in steps."""

import itertools
from collections.abc import Iterator

from configs.load import load_experiment
from training.plan import Plan, make_plan


def test_the_published_recipe_is_218949_steps_at_batch_2048() -> None:
    experiment = load_experiment(
        "configs/efficientnet_b0.yaml", overrides=["train.global_batch_size=2048"]
    )
    assert make_plan(experiment, 1_281_167).total_steps == 218_949


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
    assert [s for s in range(1, 24) if plan.evaluates_at(s)] == [10, 20, 23]
    assert [s for s in range(1, 24) if plan.saves_at(s)] == [7, 14, 21, 23]


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
