"""Dynamic loss scaling, whose doubling no short run reaches."""

import tensorflow as tf

from training.step.loss_scale import GROWTH_STEPS, LossScale, next_loss_scale


def after(scale, good_steps, finite):
    now = LossScale(tf.constant(scale), tf.constant(good_steps))
    then = next_loss_scale(now, tf.constant(finite))
    return float(then.scale), int(then.good_steps)


def test_an_overflow_halves_the_scale_and_starts_the_count_again():
    assert after(1024.0, 7, False) == (512.0, 0)


def test_the_scale_never_falls_below_one():
    assert after(1.0, 0, False) == (1.0, 0)


def test_a_good_step_is_counted():
    assert after(1024.0, 7, True) == (1024.0, 8)


def test_the_scale_doubles_after_enough_good_steps_and_not_before():
    assert after(1024.0, GROWTH_STEPS - 2, True) == (1024.0, GROWTH_STEPS - 1)
    assert after(1024.0, GROWTH_STEPS - 1, True) == (2048.0, 0)


def test_an_overflow_just_before_the_doubling_still_halves():
    assert after(1024.0, GROWTH_STEPS - 1, False) == (512.0, 0)
