"""Initialisers, random layers with injected noise, and normalisation that differ from Keras' own."""

from collections.abc import Callable
from typing import Any

import keras

BatchNormFactory = Callable[..., keras.Layer]
"""Called as batch_norm(name=, momentum=, epsilon=, dtype=); the layer's weights are named gamma,
beta, moving_mean and moving_variance."""

UniformNoise = Callable[[tuple[Any, ...], int], Any]
"""Called as uniform(shape, index) -> float32 tensor of that shape, uniform in [0, 1).

The batch dimension of shape may be a tensor. index is a static integer, different for every layer
of a model, so that a pure function of (seed, step, replica, index) draws independent masks.
"""


def conv_initializer() -> keras.initializers.Initializer:
    """Return a normal initialiser of variance 2 / fan_out, NOT truncated as Keras' he_normal is.

    For a depthwise kernel [k, k, filters, 1] Keras counts a fan-out of k^2, which is also the
    reference's rule. Every layer needs its own object, because a Keras initialiser draws the same values
    at each call.
    """
    return keras.initializers.VarianceScaling(
        scale=2.0, mode="fan_out", distribution="untruncated_normal"
    )


MANY_CLASSES = 1000  # from here on the classifier starts as the published one does


def dense_initializer(num_classes: int) -> keras.initializers.Initializer:
    """Return the initialiser of a classifier's kernel [inputs, num_classes].

    From 1,000 classes on it is the reference's rule, uniform in +-1 / sqrt(num_classes). With fewer
    classes that range grows while the number of inputs does not: B0 with 10 classes starts with
    logits of standard deviation 3 to 4 and a cross entropy of 4 to 6 where a guess has 2.3, and
    training begins by undoing that. Deviation below 1,000 classes: uniform in +-1 / sqrt(inputs),
    which gives the logits of a network of any width the standard deviation that the reference's
    rule gives B0 at 1,000 classes, 0.3 to 0.4.
    """
    mode = "fan_out" if num_classes >= MANY_CLASSES else "fan_in"
    return keras.initializers.VarianceScaling(scale=1.0 / 3.0, mode=mode, distribution="uniform")


class RandomKeep(keras.layers.Layer):
    """A layer that, in training, zeroes parts of its input at random and scales up the rest.

    keras.layers.Dropout draws the same mask on every replica of a tf.distribute strategy, and keeps
    its seed in a variable that every checkpoint must hold. With an injected source of noise these
    layers hold no variable, and every mask can be reproduced.
    """

    def __init__(
        self, keep_probability: float, index: int, uniform: UniformNoise | None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.keep_probability = keep_probability
        self.index = index
        self.uniform = uniform
        self.supports_masking = True
        if uniform is None:
            self.seed_generator = keras.random.SeedGenerator(name=f"{self.name}_seed")

    def noise_shape(self, inputs: Any) -> tuple[Any, ...]:
        """Return the shape of the mask, which must broadcast to the shape of the inputs."""
        raise NotImplementedError

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drop in training; return the inputs otherwise."""
        if not training or self.keep_probability == 1.0:
            return inputs
        # Draw the mask in float32: bfloat16 has too few values in [0, 1) for an exact rate.
        keep = self._draw(self.noise_shape(inputs)) < self.keep_probability
        return inputs * keras.ops.cast(keep, inputs.dtype) / self.keep_probability

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's shape."""
        return input_shape

    def _draw(self, shape: tuple[Any, ...]) -> Any:
        if self.uniform is not None:
            return self.uniform(shape, self.index)
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)


@keras.saving.register_keras_serializable(package="efficientnet")
class Dropout(RandomKeep):
    """Zero each element independently with probability `rate` in training.

    Args:
      rate: in [0, 1).
      index: number of the layer among the model's random layers.
      uniform: source of noise; None draws from the layer's own seed generator.
    """

    def __init__(
        self, rate: float, *, index: int = 0, uniform: UniformNoise | None = None, **kwargs: Any
    ) -> None:
        super().__init__(1.0 - rate, index, uniform, **kwargs)
        self.rate = rate

    def noise_shape(self, inputs: Any) -> tuple[Any, ...]:
        """Return the shape of the inputs: one draw per element."""
        return tuple(keras.ops.shape(inputs))

    def get_config(self) -> dict[str, Any]:
        """Return the configuration without the source of noise, which is code."""
        return {**super().get_config(), "rate": self.rate, "index": self.index}


@keras.saving.register_keras_serializable(package="efficientnet")
class StochasticDepth(RandomKeep):
    """Zero a residual branch per example, keeping it with a given probability (arXiv 1603.09382).

    Training divides the branches that survive by the probability, so inference needs no scaling.

    Args:
      survival_probability: in (0, 1].
      index: number of the layer among the model's random layers.
      uniform: source of noise; None draws from the layer's own seed generator.
    """

    def __init__(
        self,
        survival_probability: float,
        *,
        index: int = 0,
        uniform: UniformNoise | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(survival_probability, index, uniform, **kwargs)
        self.survival_probability = survival_probability

    def noise_shape(self, inputs: Any) -> tuple[Any, ...]:
        """Return [batch, 1, ..., 1]: one draw per example."""
        return (keras.ops.shape(inputs)[0],) + (1,) * (len(inputs.shape) - 1)

    def get_config(self) -> dict[str, Any]:
        """Return the configuration without the source of noise, which is code."""
        return {
            **super().get_config(),
            "survival_probability": self.survival_probability,
            "index": self.index,
        }


@keras.saving.register_keras_serializable(package="efficientnet")
class NearestUpsampling(keras.layers.Layer):
    """Repeat each pixel `factor` times in both directions, and crop to the size of another map.

    It takes [x, reference]: [b, h, w, C] and [b, H, W, any], with h = ceil(H / factor), as 'same' padding and
    a stride make it, and returns [b, H, W, C]. It consists of concatenations and reshapes, which TPUs
    differentiate and TFLite runs in 8 bits.
    """

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs: Any) -> Any:
        """Enlarge and crop."""
        x, reference = inputs
        batch, height, width, channels = keras.ops.shape(x)
        if isinstance(height, int) and isinstance(width, int):
            batch = -1  # known shapes stay known
        for axis, shape in (
            (3, (batch, height, width * self.factor, channels)),
            (2, (batch, height * self.factor, width * self.factor, channels)),
        ):
            x = keras.ops.reshape(keras.ops.concatenate([x] * self.factor, axis), shape)
        rows, columns = keras.ops.shape(reference)[1:3]
        return x[:, :rows, :columns]

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Return the size of the second input with the channels of the first."""
        x, reference = input_shape
        return (*reference[:3], x[3])

    def get_config(self) -> dict[str, Any]:
        """Return the configuration."""
        return {**super().get_config(), "factor": self.factor}


def normalize_images(
    images: Any,
    mean_rgb: tuple[float, float, float],
    stddev_rgb: tuple[float, float, float],
    dtype: str = "float32",
) -> Any:
    """Return (images - mean) / stddev, computed in float32 because bfloat16 would lose precision.

        >>> import numpy as np
        >>> pixel = np.array([[128, 64, 255]], "uint8")
        >>> np.asarray(normalize_images(pixel, (128, 128, 127), (128, 128, 128))).tolist()
        [[0.0, -0.5, 1.0]]

    Args:
      images: [..., 3], uint8 or float, on the scale 0..255.
      mean_rgb: on the scale 0..255.
      stddev_rgb: on the scale 0..255.
      dtype: of the result; a policy such as "mixed_bfloat16" means its compute type.

    Returns:
      [..., 3] of the given type.
    """
    images = keras.ops.cast(images, "float32")
    mean = keras.ops.convert_to_tensor(mean_rgb, dtype="float32")
    stddev = keras.ops.convert_to_tensor(stddev_rgb, dtype="float32")
    return keras.ops.cast((images - mean) / stddev, keras.DTypePolicy(dtype).compute_dtype)
