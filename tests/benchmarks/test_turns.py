"""Turns of one length, and ratios that a drifting processor leaves alone."""

import numpy as np
import tensorflow as tf

from benchmarks.turns import ELEMENTS_AHEAD, SHORT_TURN, measure_in_short_turns, median_ratio


def test_a_ratio_is_the_median_of_the_turns_and_its_error_follows_from_their_spread() -> None:
    one, other = np.array([2.0, 4.0, 6.0, 90.0]), np.array([1.0, 2.0, 3.0, 45.0])
    assert median_ratio(one, other) == (2.0, 0.0)  # a slow turn hits both sides alike
    noise = np.random.default_rng(0).normal(1.0, 0.1, [2, 100])
    ratio, error = median_ratio(*noise)
    assert abs(ratio - 1.0) < 3 * error
    assert 0.5 < error / (0.1 * np.sqrt(2) * np.sqrt(np.pi / 2) / 10) < 2  # a normal median's error


def test_every_pipeline_has_a_turn_of_the_same_length_in_every_round() -> None:
    made = {"one": 0, "other": 0}

    def counting(name: str) -> tf.data.Dataset:
        def count() -> int:
            made[name] += 1
            return made[name]

        options = tf.data.Options()
        # So that nothing is made ahead.
        options.experimental_optimization.apply_default_optimizations = False
        dataset = tf.data.Dataset.range(10**6).map(lambda _: tf.numpy_function(count, [], tf.int64))
        return dataset.with_options(options)

    turns = measure_in_short_turns({name: counting(name) for name in made}, 1, rounds=3)
    assert made == dict.fromkeys(made, ELEMENTS_AHEAD + 3 * SHORT_TURN)
    for figures in turns.values():
        assert figures.shape == (3,)
        assert (figures > 0).all()
