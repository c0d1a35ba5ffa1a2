"""Optimizers and the moving average as pure functions of tensors."""

import numpy as np
import pytest
import tensorflow as tf

from proofs import parity
from training.optimizers import SGD, RMSProp
from training.step.ema import ema_decay, ema_update


def test_forty_updates_of_rmsprop_and_average_are_the_references(goldens):
    rows = list(parity.optimizer_rows(goldens))
    assert [row.item for row in rows] == ["variable", "ema", "rms", "momentum"]
    for row in rows:
        assert row.passed, row


def test_rmsprop_starts_its_mean_square_at_one():
    assert RMSProp().initial_slots == {"rms": 1.0, "momentum": 0.0}


def test_rmsprop_adds_epsilon_inside_the_root():
    optimizer = RMSProp(decay=0.0, momentum=0.0, epsilon=0.75)
    slots = {"rms": tf.constant([1.0]), "momentum": tf.constant([0.0])}
    weight, slots = optimizer.update(
        tf.constant([10.0]), tf.constant([0.5]), slots, tf.constant(2.0)
    )
    # rms = 0.25; 2 * 0.5 / sqrt(0.25 + 0.75)
    np.testing.assert_allclose(weight, [9.0], rtol=1e-6)
    np.testing.assert_allclose(slots["rms"], [0.25], rtol=1e-6)


@pytest.mark.parametrize(
    ("nesterov", "expected"),
    # momentum: 1, 0.5 * 1 + 2 = 2.5; without Nesterov w = -0.1 * 1, then -0.1 * 2.5 more;
    # with it each step goes along g + 0.5 m: 1.5, then 2 + 1.25 = 3.25.
    [(False, [-0.1, -0.35]), (True, [-0.15, -0.475])],
)
def test_sgd_is_what_a_hand_computes(nesterov, expected):
    optimizer = SGD(momentum=0.5, nesterov=nesterov)
    weight, slots = tf.constant([0.0]), {"momentum": tf.constant([0.0])}
    assert optimizer.initial_slots == {"momentum": 0.0}
    seen = []
    for gradient in (1.0, 2.0):
        weight, slots = optimizer.update(weight, tf.constant([gradient]), slots, tf.constant(0.1))
        seen.append(float(weight[0]))
    assert seen == pytest.approx(expected)


def test_the_average_follows_quickly_at_first():
    steps = [0, 1, 8, 90_000, 10**6]
    decays = [float(ema_decay(tf.constant(s), decay=0.9999, ramp=True)) for s in steps]
    assert decays == pytest.approx([0.1, 2 / 11, 0.5, 90001 / 90010, 0.9999], rel=1e-6)


def test_without_the_ramp_the_decay_is_constant():
    assert float(ema_decay(tf.constant(0), decay=0.99, ramp=False)) == pytest.approx(0.99)


def test_the_average_moves_by_what_the_decay_leaves():
    average = ema_update(tf.constant([1.0, 4.0]), tf.constant([3.0, 0.0]), tf.constant(0.75))
    np.testing.assert_allclose(average, [1.5, 3.0], rtol=1e-6)
