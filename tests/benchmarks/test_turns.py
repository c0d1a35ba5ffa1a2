"""Turns of one length."""

import tensorflow as tf

from benchmarks.turns import ELEMENTS_AHEAD, SHORT_TURN, measure_in_short_turns


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
