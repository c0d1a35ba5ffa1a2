import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.draws import draw_uniforms

STREAM = 0x0F11B


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_draws_are_those_of_tensorflows_philox(dtype: tf.DType) -> None:
    for first, second in [(0, 0), (1, 2), (-5, 7), (2**31 - 1, -(2**31))]:
        seed = tf.constant([first, second], dtype)
        mixed = tf.constant([first ^ STREAM, second], dtype)
        np.testing.assert_array_equal(
            draw_uniforms(seed, 9, stream=STREAM),
            tf.random.stateless_uniform([9], mixed, alg="philox"),
        )


def test_draws_of_large_seeds_are_those_of_tensorflows_philox() -> None:
    seed = tf.constant([7 + (3 << 32), (2 << 48) + 1_281_166], tf.int64)
    np.testing.assert_array_equal(
        draw_uniforms(seed, 3, stream=0), tf.random.stateless_uniform([3], seed, alg="philox")
    )


def test_another_stream_draws_something_else() -> None:
    one, other = (draw_uniforms(tf.constant([1, 2]), 5, stream=stream) for stream in (1, 2))
    assert not np.any(one == other)
