"""The moving average: its decay in the first updates, and what it takes in."""

import numpy as np
import pytest
import tensorflow as tf

from training.step.ema import Averaging, ema_update

WEIGHTS, STATISTICS = tf.constant([3.0, 0.0]), tf.constant([8.0])
AVERAGE = tf.constant([1.0, 4.0, 0.0])


@pytest.mark.parametrize(("ramp_start", "first"), [(1, 2 / 11), (0, 0.1)])
def test_the_average_follows_quickly_at_first(ramp_start, first):
    averaging = Averaging(ramp_start=ramp_start)
    updates = [0, 8 - ramp_start, 90_000 - ramp_start, 10**6]
    decays = [float(averaging.decay_at(tf.constant(s))) for s in updates]
    assert decays == pytest.approx([first, 0.5, 90001 / 90010, 0.9999], rel=1e-6)


def test_without_the_ramp_the_decay_is_constant():
    averaging = Averaging(decay=0.99, ramp=False)
    assert float(averaging.decay_at(tf.constant(0))) == pytest.approx(0.99)


def test_the_average_moves_by_what_the_decay_leaves():
    average = ema_update(tf.constant([1.0, 4.0]), tf.constant([3.0, 0.0]), tf.constant(0.75))
    np.testing.assert_allclose(average, [1.5, 3.0], rtol=1e-6)


def test_statistics_are_averaged_with_the_weights():
    found = Averaging(0.75, ramp=False).update(AVERAGE, WEIGHTS, STATISTICS, tf.constant(0))
    np.testing.assert_allclose(found, [1.5, 3.0, 2.0], rtol=1e-6)


def test_statistics_may_stay_as_they_are():
    averaging = Averaging(0.75, ramp=False, statistics=False)
    found = averaging.update(AVERAGE, WEIGHTS, STATISTICS, tf.constant(0))
    np.testing.assert_allclose(found, [1.5, 3.0, 8.0], rtol=1e-6)
