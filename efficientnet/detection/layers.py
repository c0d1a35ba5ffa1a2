"""The fusion of the BiFPN, which Keras does not have."""

from typing import Any

import keras

EPSILON = 1e-4  # of the published code; the sum of the weights may be 0


@keras.saving.register_keras_serializable(package="efficientnet")
class FastFusion(keras.layers.Layer):
    """Average tensors of one shape with learned weights (arXiv 1911.09070, section 3.3).

    sum_i relu(weight_i) x_i / (sum_j relu(weight_j) + 1e-4), with one scalar for each input, initially 1.
    """

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        self.scalars = [
            self.add_weight((), initializer="ones", name=f"weight_{i}")
            for i in range(len(input_shape))
        ]

    def call(self, inputs: list[Any]) -> Any:
        """Return the weighted average."""
        weights = [
            keras.ops.relu(keras.ops.cast(scalar, x.dtype))
            for scalar, x in zip(self.scalars, inputs, strict=True)
        ]
        total = sum(weights) + EPSILON
        return sum(x * (weight / total) for x, weight in zip(inputs, weights, strict=True))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the first input."""
        return input_shape[0]
