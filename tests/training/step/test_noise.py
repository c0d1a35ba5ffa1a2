"""Masks differ wherever they should, are equal wherever they should, and are uniform."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from training.step.noise import MaskNoise


def draw(*, seed=1, step=2, replica=3, micro_step=0, index=4, shape=(64,)):
    noise = MaskNoise(seed)
    with noise.at(tf.constant(step), tf.constant(replica), micro_step):
        return noise(shape, index).numpy()


def test_the_same_place_draws_the_same():
    np.testing.assert_array_equal(draw(), draw())


@pytest.mark.parametrize("what", ["seed", "step", "replica", "micro_step", "index"])
def test_another_place_draws_something_else(what):
    drawn = [draw(**{what: value}) for value in (0, 1, 7, 300)]
    for a, b in itertools.combinations(drawn, 2):
        assert np.mean(a == b) < 0.1
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.5


def test_no_two_places_share_their_masks():
    places = list(itertools.product((0, 1), (0, 1, 2), (0, 1, 2), (0, 1), (0, 1, 2)))
    prints = {
        draw(seed=s, step=t, replica=r, micro_step=m, index=i, shape=(4,)).tobytes()
        for s, t, r, m, i in places
    }
    assert len(prints) == len(places)


def test_long_runs_of_many_replicas_do_not_repeat():
    far = [draw(step=2**31 - 1, replica=2047), draw(step=2**31 - 1, replica=0), draw(step=0)]
    for a, b in itertools.combinations(far, 2):
        assert np.mean(a == b) < 0.1


def test_draws_are_uniform_in_zero_to_one():
    drawn = draw(shape=(100_000,))
    assert drawn.dtype == np.float32
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    # Each bin holds 5000 on average, with a standard deviation of 69.
    np.testing.assert_allclose(counts, 5000, atol=5 * 69)


def test_draws_of_neighbouring_steps_are_independent():
    first = draw(step=10, shape=(100_000,))
    second = draw(step=11, shape=(100_000,))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(100_000)


def test_a_graph_draws_what_eager_execution_draws():
    noise = MaskNoise(1)

    @tf.function
    def traced(step, replica):
        with noise.at(step, replica, 0):
            return noise((64,), 4)

    np.testing.assert_array_equal(traced(tf.constant(2), tf.constant(3)), draw())
    np.testing.assert_array_equal(traced(tf.constant(5), tf.constant(0)), draw(step=5, replica=0))
