"""Random masks as a function of (seed, step, replica), so that a resumed run draws the same masks.

Keras' seed generators keep a counter that is neither different on each replica nor part of a checkpoint.
The network therefore takes a function that draws its uniforms, and training passes this one.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf


class MaskNoise:
    """Uniforms in [0, 1) for the network's dropout and stochastic depth masks."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._position = threading.local()  # each replica traces in a thread of its own

    @contextlib.contextmanager
    def at(self, step: tf.Tensor, replica_id: tf.Tensor, micro_step: int) -> Iterator[None]:
        """Set int32 [] `step`, replica and micro-batch of the draws within the block."""
        self._position.now = (step, replica_id, micro_step)
        try:
            yield
        finally:
            del self._position.now

    def __call__(self, shape: Any, index: int) -> tf.Tensor:
        """Draw float32 uniforms of `shape` for the stochastic layer number `index`."""
        step, replica_id, micro_step = self._position.now
        # Disjoint fields of two 64-bit words; Philox, because the default algorithm differs under XLA.
        layer = tf.constant((self._seed << 24) + (micro_step << 12) + index, tf.int64)
        when = tf.cast(step, tf.int64) * 2**20 + tf.cast(replica_id, tf.int64)
        return tf.random.stateless_uniform(shape, seed=tf.stack([layer, when]), alg="philox")
