"""Optimizers as pure functions: (weight, gradient, slots, rate) -> (new weight, new slots).

Keras' optimizers start RMSProp's mean square at 0 where the reference starts it at 1 (the first step
comes out six times larger), reduce over the replicas on their own, and clip before that. A pure update
is also what can be compiled ahead of time for a TPU.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol

import tensorflow as tf

Slots = Mapping[str, tf.Tensor]


class Optimizer(Protocol):
    """What the training step needs of an optimizer."""

    @property
    def initial_slots(self) -> Mapping[str, float]:
        """Name of each slot (a tensor like the weight) and the value it starts from."""

    def update(
        self, weight: tf.Tensor, gradient: tf.Tensor, slots: Slots, learning_rate: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """New weight and new slots; all float32 of the weight's shape, the rate float32 []."""


@dataclasses.dataclass(frozen=True)
class RMSProp:
    """RMSProp as TensorFlow 1 computes it: epsilon inside the root, momentum over the scaled rate."""

    decay: float = 0.9
    momentum: float = 0.9
    epsilon: float = 1e-3

    @property
    def initial_slots(self) -> Mapping[str, float]:
        """The mean square starts at 1, as in the reference."""
        return {"rms": 1.0, "momentum": 0.0}

    def update(
        self, weight: tf.Tensor, gradient: tf.Tensor, slots: Slots, learning_rate: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """`rms += (g**2 - rms)(1 - decay); m = momentum m + rate g / sqrt(rms + epsilon); w -= m`."""
        rms = slots["rms"] + (tf.square(gradient) - slots["rms"]) * (1.0 - self.decay)
        step = (learning_rate * gradient) / tf.sqrt(rms + self.epsilon)
        momentum = self.momentum * slots["momentum"] + step
        return weight - momentum, {"rms": rms, "momentum": momentum}


@dataclasses.dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with (Nesterov) momentum: `m = momentum m + g; w -= rate m`."""

    momentum: float = 0.9
    nesterov: bool = False

    @property
    def initial_slots(self) -> Mapping[str, float]:
        """The accumulated gradient starts at 0."""
        return {"momentum": 0.0}

    def update(
        self, weight: tf.Tensor, gradient: tf.Tensor, slots: Slots, learning_rate: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """One step along the accumulated gradient, or with Nesterov one look ahead of it."""
        momentum = self.momentum * slots["momentum"] + gradient
        direction = gradient + self.momentum * momentum if self.nesterov else momentum
        return weight - learning_rate * direction, {"momentum": momentum}


OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {"rmsprop": RMSProp, "sgd": SGD}
