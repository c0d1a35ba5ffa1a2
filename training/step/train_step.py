"""The training step and the evaluation step as pure functions, and the loop over steps on the device.

`train_step` maps values to values: it reads and writes no variable, so the same function runs under
every strategy and can be compiled for a TPU without having one. `make_train_loop` binds it to variables
and runs many steps between two returns to Python.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from system.memory import resting_collector
from tasks.task import Measures, Task
from training.devices.distribution import Distribution, Replica
from training.step.backward import accumulated_gradients
from training.step.gradients import clip
from training.step.loss_scale import LossScale, next_loss_scale
from training.step.packed import Layout, Packed, pack, unpack
from training.step.padding import network_input
from training.step.recipe import Normalize, Partition, TrainRecipe
from training.step.state import TrainState, Values, WeightsKind


def train_step(
    values: Values,
    batch: Mapping[str, tf.Tensor],
    replica: Replica,
    *,
    network: keras.Model,
    recipe: TrainRecipe,
    distribution: Distribution,
) -> tuple[Values, dict[str, tf.Tensor]]:
    """Compute one update from one replica's share of the global batch.

    A step whose loss or gradient is not finite changes only the step count, the loss scale and the number
    of skips left. If no skip is left, that step and all later ones change nothing.

    Args:
      values: the state before the step.
      batch: "image" uint8 [b, H, W, 3] and the labels of the task.
      replica: the replica that runs this step.
      network: maps normalised images to the outputs that the task takes.
      recipe: all other settings.
      distribution: the replicas that share the step.

    Returns:
      The state after it and `recipe.metrics`, float32 [] each, over the global batch.
    """
    variables = Partition.of(network, recipe.frozen)
    with distribution.as_replica(replica):
        shares = accumulated_gradients(values, batch, network, recipe, distribution)
        gradient, statistics, sums = distribution.sum_over_replicas(shares)

    if values.loss_scale:
        gradient /= values.loss_scale.scale
    norm = tf.norm(gradient)
    loss, *figures = tf.unstack(sums)
    finite = tf.math.is_finite(norm) & tf.math.is_finite(loss)
    gradient = clip(
        Packed(gradient, variables.trained),
        norm,
        each=recipe.gradient_clip_each,
        whole=recipe.gradient_clip_norm,
    )

    learning_rate = recipe.learning_rate(values.step)
    skips_left, halted = _skips_after(values, loss, finite)
    after = tf.cond(
        finite & ~halted,
        lambda: _update(values, gradient, statistics, learning_rate, recipe, variables),
        lambda: tf.nest.map_structure(tf.identity, values),
    )
    after = after._replace(
        step=values.step + tf.where(halted, 0, 1),
        loss_scale=_scale_after(values, finite, halted),
        skips_left=skips_left,
    )
    metrics = {
        "loss": loss,
        **dict(zip(recipe.task.metrics, figures, strict=True)),
        "learning_rate": learning_rate,
        "gradient_norm": norm,
        "finite": tf.cast(finite, tf.float32),
    }
    return after, metrics


def eval_step(
    weights: list[tf.Tensor],
    statistics: list[tf.Tensor],
    batch: Mapping[str, tf.Tensor],
    *,
    network: keras.Model,
    normalize: Normalize,
    task: Task,
) -> Measures:
    """Evaluate one replica's batch; examples whose "mask" is 0 are padding and do not count."""
    outputs, _ = network.stateless_call(
        weights, statistics, network_input(batch, normalize), training=False
    )
    return task.measure(outputs, batch)


def make_train_loop(
    state: TrainState,
    recipe: TrainRecipe,
    distribution: Distribution,
    batch_spec: Mapping[str, tf.TensorSpec],
    *,
    timed: bool = False,
) -> Callable[[Any, tf.Tensor], tf.Tensor]:
    """Return a function (iterator, int32 [] steps) -> metrics of every step, float32 [steps, metrics].

    The step is traced once for all replicas: `batch_spec` describes one replica's batch.

    Args:
      state: variables that the steps read and write.
      recipe: settings of the step.
      distribution: the replicas that share it.
      batch_spec: dtypes and shapes of one replica's batch.
      timed: append a column, the seconds that each step waited for its batch.
    """
    with resting_collector():
        traced = traced_train_step(state, recipe, distribution, batch_spec)
    step = distribution.on_each_replica(traced)

    @tf.autograph.experimental.do_not_convert
    def replica_step(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        values, metrics = step(state.read(), dict(batch), distribution.this_replica())
        distribution.assign(tf.nest.flatten(state.variables), tf.nest.flatten(values))
        return tf.stack([metrics[name] for name in recipe.metrics])

    @tf.function
    def train_loop(iterator: Any, steps: tf.Tensor) -> tf.Tensor:
        # Python runs this while it traces, and the collector would look through the graph again and again.
        with resting_collector():
            width = len(recipe.metrics) + timed
            rows = tf.TensorArray(tf.float32, size=steps, element_shape=[width])
            for i in tf.range(steps):
                batch, seconds = _next_timed(iterator) if timed else (next(iterator), None)
                row = distribution.strategy.run(replica_step, args=(batch,))
                row = distribution.local_value(row)
                rows = rows.write(i, tf.concat([row, seconds], 0) if timed else row)
            return rows.stack()

    return train_loop


def _next_timed(iterator: Any) -> tuple[Any, tf.Tensor]:
    """Return the next batch and the seconds of waiting for it, float32 [1], by the host's clock."""
    before = tf.timestamp()
    with tf.control_dependencies([before]):
        batch = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        after = tf.timestamp()
    return batch, tf.cast(after - before, tf.float32)[tf.newaxis]


def traced_train_step(
    state: TrainState,
    recipe: TrainRecipe,
    distribution: Distribution,
    batch_spec: Mapping[str, tf.TensorSpec],
) -> tf.types.experimental.ConcreteFunction:
    """Trace `train_step` to a graph of tensors only: (values, batch, replica) -> (values, metrics)."""

    def step(values: Values, batch: Mapping[str, tf.Tensor], replica: Replica) -> Any:
        return train_step(
            values,
            batch,
            replica,
            network=state.network,
            recipe=recipe,
            distribution=distribution,
        )

    values_spec = tf.nest.map_structure(lambda v: tf.TensorSpec(v.shape, v.dtype), state.variables)
    return tf.function(step, autograph=False).get_concrete_function(
        values_spec, dict(batch_spec), distribution.replica_spec()
    )


def make_eval_step(
    state: TrainState,
    kind: WeightsKind,
    normalize: Normalize,
    task: Task,
    distribution: Distribution,
) -> Callable[[Any], Measures]:
    """Return a function (iterator) -> measures of the next batch of all replicas.

    Sums are added up, rows are concatenated in the order of the replicas.
    """

    @tf.autograph.experimental.do_not_convert
    def replica_step(batch: Mapping[str, tf.Tensor]) -> Measures:
        sums, rows = eval_step(
            *state.read_network(kind),
            batch,
            network=state.network,
            normalize=normalize,
            task=task,
        )
        context = tf.distribute.get_replica_context()
        # As float32: TensorFlow keeps int32 tensors on the host and refuses to add both kinds up together.
        floats = {name: _as_floats(x) for name, x in sums.items()}
        floats = context.all_reduce(tf.distribute.ReduceOp.SUM, floats)
        added = {name: _from_floats(x, sums[name].dtype) for name, x in floats.items()}
        return Measures(added, context.all_gather(rows, axis=0) if rows else {})

    @tf.function
    def step(iterator: Any) -> Measures:
        measured = distribution.strategy.run(replica_step, args=(next(iterator),))
        return tf.nest.map_structure(distribution.local_value, measured)

    return step


COUNT_PART = 1 << 12


def _as_floats(x: tf.Tensor) -> tf.Tensor:
    """Return counts as their two halves, float32 [2, ...]: a float32 holds whole numbers up to 2^24 alone."""
    if x.dtype != tf.int32:
        return x
    return tf.cast(tf.stack([x // COUNT_PART, x % COUNT_PART]), tf.float32)


def _from_floats(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Put the halves of counts together again."""
    if dtype != tf.int32:
        return x
    high, low = tf.unstack(tf.cast(x, tf.int32))
    return high * COUNT_PART + low


def _skips_after(values: Values, loss: tf.Tensor, finite: tf.Tensor) -> tuple[Any, tf.Tensor]:
    """Return the skips left after a step (see Values), and whether training has halted: bool []."""
    if isinstance(values.skips_left, tuple):
        return (), tf.constant(False)
    # A float16 gradient that overflows under a finite loss is not counted: the loss scale handles it.
    broken = ~tf.math.is_finite(loss) if values.loss_scale else ~finite
    left = tf.maximum(values.skips_left - tf.cast(broken, tf.int32), -1)
    return left, left < 0


def _scale_after(values: Values, finite: tf.Tensor, halted: tf.Tensor) -> LossScale | tuple[()]:
    if not values.loss_scale:
        return ()
    then = next_loss_scale(values.loss_scale, finite)
    return tf.nest.map_structure(
        lambda old, new: tf.where(halted, old, new), values.loss_scale, then
    )


def _update(
    values: Values,
    gradient: tf.Tensor,
    statistics: tf.Tensor,
    learning_rate: tf.Tensor,
    recipe: TrainRecipe,
    variables: Partition,
) -> Values:
    """Return `values` with weights, statistics, slots and averages updated."""
    layout, trained = variables.weights, variables.trained
    old = layout.choose(values.weights, trained)
    weights = Packed(pack(old), trained)
    vector, slots = recipe.optimizer.update(
        weights,
        gradient,
        {name: layout.take(x, trained) if x.shape.rank else x for name, x in values.slots.items()},
        _rates(learning_rate, weights, recipe.rate_multipliers),
        recipe.weight_decay.decoupled_rates(trained.names),
    )
    moving = variables.statistics.choose(values.statistics, variables.moving)
    after = values._replace(
        weights=layout.replace(values.weights, trained, unpack(vector, old)),
        statistics=variables.statistics.replace(
            values.statistics, variables.moving, unpack(statistics, moving)
        ),
        slots={
            name: layout.put(values.slots[name], trained, x) if x.shape.rank else x
            for name, x in slots.items()
        },
    )
    if not recipe.averaging.decay:
        return after
    average = recipe.averaging.update(
        values.ema,
        _with_frozen(layout, trained, values.weights, vector),
        _with_frozen(variables.statistics, variables.moving, values.statistics, statistics),
        values.step,
    )
    return after._replace(ema=average)


def _with_frozen(
    layout: Layout, part: Layout, values: Sequence[tf.Tensor], vector: tf.Tensor
) -> tf.Tensor:
    """Return all of `values` packed, those of `part` from `vector`; nothing is packed if that is all."""
    return vector if part == layout else layout.put(pack(values), part, vector)


def _rates(rate: tf.Tensor, weights: Packed, multipliers: Mapping[str, float]) -> tf.Tensor:
    """Return the rate of every element, or one for all: float32 [elements] or []."""
    if not multipliers:
        return rate
    of_each = np.array([multipliers.get(name, 1.0) for name in weights.names], np.float32)
    return rate * weights.spread(of_each)
