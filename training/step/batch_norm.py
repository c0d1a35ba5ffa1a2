"""Batch normalisation whose statistics may be shared by groups of replicas.

Keras' `BatchNormalization(synchronized=True)` reduces a tensor that is being differentiated, and every
such reduction traverses the whole graph of all replicas: tracing time grows with the square of the depth.
Here the forward reduction has no gradient, and a small custom gradient does the backward one, so nothing
is traversed (see docs/decisions/0002-cross-replica-batch-norm.md).
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

GroupMean = Callable[
    [tf.Tensor], tf.Tensor
]  # not differentiable: mean over the replicas of a group


class CrossReplicaBatchNormalization(keras.layers.Layer):
    """Batch normalisation over the last axis, with the weights and names of Keras' own layer.

    Training takes population moments of the batch (Var = E[x^2] - E[x]^2) in float32, over all replicas
    of a group when `group_mean` is given, else over the replica's own examples; inference takes the
    moving averages. The published networks use momentum 0.99 and epsilon 1e-3.
    """

    def __init__(
        self,
        *,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        group_mean: GroupMean | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon
        self.group_mean = group_mean
        self.frozen = False  # whether training normalises by the moving averages and keeps them

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create gamma, beta and the moving averages, each float32 [channels]."""
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones", autocast=False)
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros", autocast=False)
        self.moving_mean = self.add_weight(
            name="moving_mean", shape=shape, initializer="zeros", trainable=False, autocast=False
        )
        self.moving_variance = self.add_weight(
            name="moving_variance", shape=shape, initializer="ones", trainable=False, autocast=False
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalise [batch, height, width, channels]; in training also move the averages."""
        if not training or self.frozen:
            outputs, _, _ = self._fused_batch_norm(inputs, self.moving_mean, self.moving_variance)
            return outputs
        if self.group_mean is None:
            outputs, mean, variance = self._fused_batch_norm(inputs)
        else:
            mean, variance = _group_moments(inputs, self.group_mean)
            outputs = self._normalize(inputs, mean, variance, self.group_mean)
        self._move(self.moving_mean, mean)
        self._move(self.moving_variance, variance)
        return outputs

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's shape."""
        return input_shape

    def _fused_batch_norm(
        self, inputs: tf.Tensor, mean: Any = None, variance: Any = None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Normalize in one kernel by the replica's own moments or given ones; moments are float32."""
        training = mean is None
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=tf.zeros([0]) if training else tf.convert_to_tensor(mean),
            variance=tf.zeros([0]) if training else tf.convert_to_tensor(variance),
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            # The kernel returns the unbiased variance; the recipe averages the population's.
            count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
            variance *= (count - 1.0) / count
        return outputs, mean, variance

    def _normalize(
        self, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, group_mean: GroupMean
    ) -> tf.Tensor:
        """Normalise by a group's moments, with the gradient that goes through them to all its replicas.

        All that the result depends on is an argument of the custom gradient, so TensorFlow's search for
        other variables behind it ends where it starts. The gradient is that of arXiv 1502.03167,
        section 3, with its two means taken over the group.
        """
        epsilon = self.epsilon

        @tf.custom_gradient
        def normalize(
            x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor
        ) -> tuple[tf.Tensor, Callable]:
            outputs, *_ = tf.raw_ops.FusedBatchNormV3(
                x=x, scale=gamma, offset=beta, mean=mean, variance=variance,
                epsilon=epsilon, is_training=False,
            )  # fmt: skip

            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
                dy = tf.cast(upstream, tf.float32)
                inverse = tf.math.rsqrt(variance + epsilon)
                normalized = (tf.cast(x, tf.float32) - mean) * inverse
                local = tf.stack(
                    [tf.reduce_mean(dy, [0, 1, 2]), tf.reduce_mean(dy * normalized, [0, 1, 2])]
                )
                dy_mean, dy_normalized_mean = tf.unstack(group_mean(local))
                dx = gamma * inverse * (dy - dy_mean - normalized * dy_normalized_mean)
                count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), tf.float32)
                dbeta, dgamma = tf.unstack(local * count)
                return tf.cast(dx, x.dtype), dgamma, dbeta, None, None

            return outputs, gradient

        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        return normalize(inputs, gamma, beta, mean, variance)

    def _move(self, average: keras.Variable, value: tf.Tensor) -> None:
        value = tf.stop_gradient(value)
        average.assign(average * self.momentum + value * (1.0 - self.momentum))


def _group_moments(inputs: tf.Tensor, group_mean: GroupMean) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute mean and variance of each channel over a group, by one reduction of [2, channels]."""
    x = tf.cast(tf.stop_gradient(inputs), tf.float32)
    means = tf.stack([tf.reduce_mean(x, [0, 1, 2]), tf.reduce_mean(tf.square(x), [0, 1, 2])])
    mean, mean_of_square = tf.unstack(group_mean(means))
    return mean, mean_of_square - tf.square(mean)
