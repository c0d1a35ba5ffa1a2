"""TrainRecipe: the settings of a training step, by value."""

import dataclasses
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from tasks.task import Task
from training.optimizers import Optimizer
from training.optimizers.schedules import Schedule
from training.step.ema import PUBLISHED_AVERAGING, Averaging
from training.step.noise import MaskNoise
from training.step.packed import Layout
from training.step.weight_decay import PUBLISHED_DECAY, WeightDecay

Normalize = Callable[[tf.Tensor], tf.Tensor]  # uint8 [b, H, W, 3] -> the network's input


@dataclasses.dataclass(frozen=True)
class TrainRecipe:
    """Task, optimizer, schedule, regularization and averaging of a training step.

    Attributes:
      frozen: paths of the weights and statistics that the step does not change. Frozen weights have no
        gradient and count neither in the loss nor in the norm; batch norm with frozen statistics
        normalises by them.
      keep_probabilities: of the network's random layers, by name; None: as they were built.
      rate_multipliers: factors on the learning rate by path of the weight; 1 for other weights.
    """

    task: Task
    optimizer: Optimizer
    learning_rate: Schedule
    normalize: Normalize
    noise: MaskNoise
    weight_decay: WeightDecay = PUBLISHED_DECAY
    frozen: frozenset[str] = frozenset()
    keep_probabilities: Mapping[str, float] | None = None
    rate_multipliers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    gradient_clip_norm: float | None = None  # of the gradient of all weights
    gradient_clip_each: float | None = None  # of the gradient of each weight
    accumulation_steps: int = 1
    averaging: Averaging = PUBLISHED_AVERAGING

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics of a step, in their order."""
        return ("loss", *self.task.metrics, "learning_rate", "gradient_norm", "finite")


@dataclasses.dataclass(frozen=True)
class Partition:
    """The variables of a network: all of them, and those that a step changes."""

    weights: Layout
    trained: Layout
    statistics: Layout
    moving: Layout

    @classmethod
    def of(cls, network: keras.Model, frozen: frozenset[str]) -> "Partition":
        """Split the network's weights and statistics by the `frozen` paths."""
        weights = Layout.of(network.trainable_variables)
        statistics = Layout.of(network.non_trainable_variables)
        return cls(weights, weights.without(frozen), statistics, statistics.without(frozen))
