"""Learning rates: the reference's, and what the warm-up does to them."""

import pytest
import tensorflow as tf

from proofs import parity_v1
from system.errors import UsageError
from training.optimizers import schedules


def at(schedule, *steps):
    return [float(schedule(tf.constant(step))) for step in steps]


def test_rates_are_the_references_for_every_batch_and_schedule(goldens):
    rows = list(parity_v1.schedule_rows(goldens))
    assert len(rows) == 9
    for row in rows:
        assert row.passed, row


def test_the_rate_grows_with_the_batch():
    assert schedules.scaled_rate(0.016, 4096) == pytest.approx(0.256)
    assert schedules.scaled_rate(0.016, 64) == pytest.approx(0.004)


def test_the_exponential_rate_falls_in_steps_at_whole_multiples():
    rate = schedules.exponential(peak=2.0, decay_every=2.5, decay_rate=0.5)
    assert at(rate, 0, 2, 3, 4, 5, 7, 8) == pytest.approx([2.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.25])


def test_the_cosine_rate_ends_at_zero_and_stays():
    rate = schedules.cosine(peak=2.0, total_steps=8)
    assert at(rate, 0, 4, 8, 9) == pytest.approx([2.0, 1.0, 0.0, 0.0], abs=1e-6)


def test_the_cosine_may_end_early():
    rate = schedules.cosine(peak=2.0, total_steps=10, ends_before=2.0)
    assert at(rate, 0, 4, 8, 9) == pytest.approx([2.0, 1.0, 0.0, 0.0], abs=1e-6)
    with pytest.raises(UsageError, match=r"schedule.ends_before: 10 steps of a training of 10"):
        schedules.cosine(peak=2.0, total_steps=10, ends_before=10.0)


def test_warm_up_rises_from_zero_and_overrides_the_schedule_without_delaying_it():
    plain = schedules.exponential(peak=1.0, decay_every=2.0, decay_rate=0.5)
    warm = schedules.with_warmup(plain, peak=1.0, warmup_steps=4)
    assert at(warm, 0, 1, 2, 3) == pytest.approx([0.0, 0.25, 0.5, 0.75])
    # Two decays have passed unseen: the rate falls from about its peak to a quarter of it.
    assert at(warm, 4, 5, 6) == pytest.approx([0.25, 0.25, 0.125])
    assert at(warm, 4, 5, 6) == at(plain, 4, 5, 6)


def test_no_warm_up_is_the_schedule_itself():
    plain = schedules.constant(peak=0.5)
    assert schedules.with_warmup(plain, peak=0.5, warmup_steps=0) is plain
    assert at(plain, 0, 10**6) == [0.5, 0.5]


def rates(schedule, steps):
    return [float(schedule(tf.constant(step))) for step in steps]


def test_a_polynomial_falls_along_a_power_of_the_time_left():
    square = schedules.polynomial(peak=2.0, total_steps=100, power=2.0, end_share=0.1)
    assert rates(square, [0, 50, 100, 200]) == pytest.approx([2.0, 0.65, 0.2, 0.2])


def test_a_straight_line_is_the_first_power():
    line = schedules.polynomial(peak=1.0, total_steps=10, power=1.0, end_share=0.0)
    assert rates(line, [0, 3, 10]) == pytest.approx([1.0, 0.7, 0.0], abs=1e-7)


def test_steps_change_at_their_boundaries():
    stairs = schedules.stepwise(
        peak=2.0, total_steps=90, boundaries=(30.0, 60.5), factors=(1.0, 0.1, 0.01)
    )
    assert rates(stairs, [0, 29, 30, 60, 61, 89]) == pytest.approx([2, 2, 0.2, 0.2, 0.02, 0.02])
    several = stairs(tf.constant([0, 45, 80]))
    assert several.numpy() == pytest.approx([2, 0.2, 0.02])


def test_a_warm_up_may_start_from_a_rate():
    warm = schedules.with_warmup(schedules.constant(peak=1.0), peak=1.0, warmup_steps=4, start=0.2)
    assert rates(warm, [0, 1, 4]) == pytest.approx([0.2, 0.4, 1.0])
