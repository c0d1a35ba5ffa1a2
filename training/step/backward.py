"""The backward pass of one replica: its share of the gradient of the global batch's loss."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tasks.task import Batch, Task, Total
from training.devices.distribution import Distribution
from training.step.packed import pack
from training.step.padding import network_input
from training.step.recipe import Partition, TrainRecipe
from training.step.state import Values
from training.step.switches import switched


@dataclasses.dataclass(frozen=True)
class Scale:
    """Factors that turn the loss of a micro-batch into a share of the global loss.

    Attributes:
      share: one over the number of all micro-batches.
      weight: weight of the global batch, by which the task divides.
      total: sums a tensor over the replicas, without a gradient.
    """

    share: float
    weight: float | tf.Tensor
    total: Total


def accumulated_gradients(
    values: Values,
    batch: Mapping[str, tf.Tensor],
    network: keras.Model,
    recipe: TrainRecipe,
    distribution: Distribution,
) -> list[tf.Tensor]:
    """Compute this replica's shares of gradient, statistics and metrics, micro-batch by micro-batch.

    Args:
      values: the state before the step.
      batch: this replica's batch.
      network: network whose variables `values` replaces.
      recipe: task, masks and number of micro-batches.
      distribution: replicas that share the step.

    Returns:
      Gradient of the (scaled) loss, float32 [trained elements]; statistics after the batch, float32
      [moving elements]; the loss and the task's metrics, float32 [1 + metrics].
    """
    micro_batches = _micro_batches(recipe.task.prepare(batch), recipe.accumulation_steps)
    scale = Scale(
        share=1 / (distribution.num_replicas * recipe.accumulation_steps),
        weight=_total_weight(recipe.task, micro_batches, distribution),
        total=lambda x: distribution.sum_over_replicas([tf.stop_gradient(x)])[0],
    )
    total: list[tf.Tensor] = []
    for micro_step, micro_batch in enumerate(micro_batches):
        # In sequence: accumulation must hold the activations of one micro-batch at a time.
        with (
            tf.control_dependencies(total),
            recipe.noise.at(values.step, distribution.replica_id(), micro_step),
        ):
            micro_batch = {name: tf.identity(tensor) for name, tensor in micro_batch.items()}
            terms = _gradients(values, micro_batch, network, recipe, scale)
        total = [a + b for a, b in zip(total, terms, strict=True)] if total else terms
    return total


def micro_batch_loss(
    outputs: Any,
    batch: Batch,
    trained: Mapping[str, tf.Tensor],
    recipe: TrainRecipe,
    scale: Scale,
) -> tuple[tf.Tensor, Mapping[str, tf.Tensor]]:
    """Compute a micro-batch's share of the loss of the global batch: float32 [], and of the task's metrics.

    Args:
      outputs: outputs of the network.
      batch: a micro-batch from the task's `prepare`.
      trained: the weights that are not frozen, by path.
      recipe: task and weight decay.
      scale: factors of the share.
    """
    loss, metrics = recipe.task.loss(outputs, batch, scale.weight, scale.total)
    decay = recipe.weight_decay.loss(list(trained), list(trained.values()))
    return loss + scale.share * decay, metrics


def _total_weight(
    task: Task, micro_batches: Sequence[Mapping[str, tf.Tensor]], distribution: Distribution
) -> float | tf.Tensor:
    """Return the weight of the global batch, by which every micro-batch's loss is divided."""
    weights = [task.weight(micro_batch) for micro_batch in micro_batches]
    if all(isinstance(weight, int | float) for weight in weights):
        return sum(weights) * distribution.num_replicas
    return distribution.sum_over_replicas([tf.add_n(weights)])[0]


def _gradients(
    values: Values,
    batch: Mapping[str, tf.Tensor],
    network: keras.Model,
    recipe: TrainRecipe,
    scale: Scale,
) -> list[tf.Tensor]:
    """Compute the three shares of one micro-batch, see `accumulated_gradients`."""
    variables = Partition.of(network, recipe.frozen)
    trained = variables.weights.choose(values.weights, variables.trained)
    images = network_input(batch, recipe.normalize)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(trained)
        with switched(network, recipe.frozen, recipe.keep_probabilities):
            outputs, statistics = network.stateless_call(
                values.weights, values.statistics, images, training=True
            )
        named = dict(zip(variables.trained.names, trained, strict=True))
        loss, metrics = micro_batch_loss(outputs, batch, named, recipe, scale)
        target = loss * values.loss_scale.scale if values.loss_scale else loss
    gradients = tape.gradient(target, trained)
    moved = variables.statistics.choose(statistics, variables.moving)
    return [
        pack(gradients),
        scale.share * pack(moved),
        tf.stack([loss, *(metrics[name] for name in recipe.task.metrics)]),
    ]


def _micro_batches(batch: Mapping[str, tf.Tensor], count: int) -> list[Mapping[str, tf.Tensor]]:
    if count == 1:
        return [batch]
    parts = {name: tf.split(tensor, count) for name, tensor in batch.items()}
    return [{name: part[i] for name, part in parts.items()} for i in range(count)]
