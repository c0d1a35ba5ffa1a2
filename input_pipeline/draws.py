"""Random numbers that follow from a seed alone."""

import tensorflow as tf

PHILOX = 1  # TensorFlow's number for the generator that its processor kernels know


def draw_uniforms(seed: tf.Tensor, count: int, *, stream: int) -> tf.Tensor:
    """Float32 [count] in [0, 1), the same for the same seed and stream wherever it runs.

    What `tf.random.stateless_uniform(alg="philox")` gives, bit for bit. That one takes 23 operations
    on single numbers, most of them to scramble the seed, which one kernel does as well: three in all.

    Args:
      seed: int32 or int64 [2].
      count: how many.
      stream: mixed into the seed, so that different choices may be drawn from the same one.
    """
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed_of_stream(seed, stream))
    return tf.raw_ops.StatelessRandomUniformV2(
        shape=[count], key=key, counter=counter, alg=PHILOX, dtype=tf.float32
    )


def seed_of_stream(seed: tf.Tensor, stream: int) -> tf.Tensor:
    """A seed [2] of a stream's own, made from that of an example."""
    seed = tf.convert_to_tensor(seed)
    return tf.bitwise.bitwise_xor(seed, tf.constant([stream, 0], seed.dtype))
