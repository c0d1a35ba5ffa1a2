"""One training step and one evaluation step as pure functions, and the device-side loop over steps.

`train_step` maps values to values: it reads no variable and writes none, so the same function runs
under every strategy and can be lowered for a TPU that is not there. `make_train_loop` binds it to
variables and runs many steps between two returns to Python.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from training.devices.distribution import Distribution, Replica
from training.optimizers import Optimizer
from training.optimizers.schedules import Schedule
from training.step.ema import ema_decay, ema_update
from training.step.gradients import clip_by_norm
from training.step.loss_scale import LossScale, next_loss_scale
from training.step.losses import cross_entropy, is_decayed, l2_loss
from training.step.noise import MaskNoise
from training.step.packed import pack, unpack
from training.step.state import TrainState, Values

METRICS = ("loss", "cross_entropy", "top_1", "learning_rate", "gradient_norm", "finite")

Normalize = Callable[[tf.Tensor], tf.Tensor]  # uint8 [b, H, W, 3] -> the network's input


@dataclasses.dataclass(frozen=True)
class TrainRecipe:
    """What a step needs besides the network: loss, optimizer, schedule and averaging, by value."""

    optimizer: Optimizer
    learning_rate: Schedule
    normalize: Normalize
    noise: MaskNoise
    label_smoothing: float = 0.1
    weight_decay: float = 1e-5
    gradient_clip_norm: float | None = None
    accumulation_steps: int = 1
    ema_decay: float = 0.9999  # 0: no averaging
    ema_ramp: bool = True


def train_step(
    values: Values,
    batch: Mapping[str, tf.Tensor],
    replica: Replica,
    *,
    network: keras.Model,
    recipe: TrainRecipe,
    distribution: Distribution,
) -> tuple[Values, dict[str, tf.Tensor]]:
    """One update from one replica's share of the global batch.

    A step whose loss or gradient is not finite changes nothing but the step count, the loss scale and the
    number of skips that are left; the one for which no skip is left changes nothing, nor do those after it.

    Args:
      values: the state before the step.
      batch: "image" uint8 [b, H, W, 3] and "label" int32 [b] or float32 [b, classes].
      replica: the one that runs this.
      network: normalised images to float32 logits.
      recipe: everything else.
      distribution: the replicas that share the step.

    Returns:
      The state after it and METRICS, float32 [] each, over the global batch.
    """
    with distribution.as_replica(replica):
        shares = _accumulated_gradients(values, batch, network, recipe, distribution)
        gradient, statistics, sums = distribution.sum_over_replicas(shares)

    if values.loss_scale:
        gradient /= values.loss_scale.scale
    norm = tf.norm(gradient)
    finite = tf.math.is_finite(norm) & tf.math.is_finite(sums[0])
    gradient = clip_by_norm(gradient, norm, recipe.gradient_clip_norm)

    learning_rate = recipe.learning_rate(values.step)
    skips_left, halted = _skips_after(values, sums[0], finite)
    after = tf.cond(
        finite & ~halted,
        lambda: _updated(values, gradient, statistics, learning_rate, recipe),
        lambda: tf.nest.map_structure(tf.identity, values),
    )
    after = after._replace(
        step=values.step + tf.where(halted, 0, 1),
        loss_scale=_scale_after(values, finite, halted),
        skips_left=skips_left,
    )
    metrics = {
        "loss": sums[0],
        "cross_entropy": sums[1],
        "top_1": sums[2],
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
    with_confusion: bool,
) -> dict[str, tf.Tensor]:
    """Sums over one replica's batch; examples whose "mask" is 0 are padding and count for nothing.

    Returns:
      float32 sums: "examples", "cross_entropy" (no smoothing), "top_1" and "top_5" (correct ones), and
      with `with_confusion` "confusion" [classes, classes], rows true and columns predicted.
    """
    logits, _ = network.stateless_call(
        weights, statistics, normalize(batch["image"]), training=False
    )
    labels, mask = batch["label"], batch["mask"]
    num_classes = logits.shape[-1]
    loss = cross_entropy(logits, labels, label_smoothing=0.0)
    sums = {
        "examples": tf.reduce_sum(mask),
        "cross_entropy": tf.reduce_sum(tf.where(mask > 0, loss, 0.0)),
        "top_1": tf.reduce_sum(mask * _in_top(logits, labels, 1)),
        "top_5": tf.reduce_sum(mask * _in_top(logits, labels, min(5, num_classes))),
    }
    if with_confusion:
        true = tf.one_hot(labels, num_classes) * mask[:, tf.newaxis]
        predicted = tf.one_hot(tf.argmax(logits, -1), num_classes)
        sums["confusion"] = tf.matmul(true, predicted, transpose_a=True)
    return sums


def make_train_loop(
    state: TrainState,
    recipe: TrainRecipe,
    distribution: Distribution,
    batch_spec: Mapping[str, tf.TensorSpec],
) -> Callable[[Any, tf.Tensor], tf.Tensor]:
    """A compiled function (iterator, int32 [] steps) -> METRICS of every step, float32 [steps, metrics].

    The step is traced once and called by every replica: `batch_spec` is one replica's batch.
    """
    traced = traced_train_step(state, recipe, distribution, batch_spec)
    step = distribution.on_each_replica(traced)

    @tf.autograph.experimental.do_not_convert
    def replica_step(batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        values, metrics = step(state.read(), dict(batch), distribution.this_replica())
        distribution.assign(tf.nest.flatten(state.variables), tf.nest.flatten(values))
        return tf.stack([metrics[name] for name in METRICS])

    @tf.function
    def train_loop(iterator: Any, steps: tf.Tensor) -> tf.Tensor:
        rows = tf.TensorArray(tf.float32, size=steps, element_shape=[len(METRICS)])
        for i in tf.range(steps):
            row = distribution.strategy.run(replica_step, args=(next(iterator),))
            rows = rows.write(i, distribution.local_value(row))
        return rows.stack()

    return train_loop


def traced_train_step(
    state: TrainState,
    recipe: TrainRecipe,
    distribution: Distribution,
    batch_spec: Mapping[str, tf.TensorSpec],
) -> tf.types.experimental.ConcreteFunction:
    """`train_step` as a graph over tensors alone: (values, batch, replica) -> (values, metrics)."""

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
    state: TrainState, which: str, normalize: Normalize, distribution: Distribution
) -> Callable[[Any], dict[str, tf.Tensor]]:
    """A compiled function (iterator) -> the sums of `eval_step` over all replicas' next batches.

    `which` is "ema" or "raw".
    """
    num_classes = state.network.output_shape[-1]

    @tf.autograph.experimental.do_not_convert
    def replica_step(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        sums = eval_step(
            *state.read_network(which),
            batch,
            network=state.network,
            normalize=normalize,
            with_confusion=num_classes <= 100,
        )
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, sums)

    @tf.function
    def step(iterator: Any) -> dict[str, tf.Tensor]:
        sums = distribution.strategy.run(replica_step, args=(next(iterator),))
        return {name: distribution.local_value(value) for name, value in sums.items()}

    return step


def _accumulated_gradients(
    values: Values,
    batch: Mapping[str, tf.Tensor],
    network: keras.Model,
    recipe: TrainRecipe,
    distribution: Distribution,
) -> list[tf.Tensor]:
    """This replica's share of gradient and statistics, packed, and metrics: over replicas they add up."""
    shares = distribution.num_replicas * recipe.accumulation_steps
    total: list[tf.Tensor] = []
    for micro_step, part in enumerate(_micro_batches(batch, recipe.accumulation_steps)):
        # One after the other: the point of accumulation is to hold one micro-batch's activations.
        with (
            tf.control_dependencies(total),
            recipe.noise.at(values.step, distribution.replica_id(), micro_step),
        ):
            part = {name: tf.identity(tensor) for name, tensor in part.items()}
            terms = [term / shares for term in _gradients(values, part, network, recipe)]
        total = [a + b for a, b in zip(total, terms, strict=True)] if total else terms
    return total


def _skips_after(values: Values, loss: tf.Tensor, finite: tf.Tensor) -> tuple[Any, tf.Tensor]:
    """Skips that are left after a step (see Values), and whether training has halted: bool []."""
    if isinstance(values.skips_left, tuple):
        return (), tf.constant(False)
    # A float16 gradient that overflows under a finite loss is the loss scale's daily work.
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


def _updated(
    values: Values,
    gradient: tf.Tensor,
    statistics: tf.Tensor,
    learning_rate: tf.Tensor,
    recipe: TrainRecipe,
) -> Values:
    """`values` after the optimizer has moved the weights and the averages have followed."""
    weights, slots = recipe.optimizer.update(
        pack(values.weights), gradient, values.slots, learning_rate
    )
    ema = values.ema
    if recipe.ema_decay:
        # The reference averages after counting the step.
        decay = ema_decay(values.step + 1, decay=recipe.ema_decay, ramp=recipe.ema_ramp)
        ema = ema_update(ema, tf.concat([weights, statistics], 0), decay)
    return values._replace(
        weights=unpack(weights, values.weights),
        statistics=unpack(statistics, values.statistics),
        slots=dict(slots),
        ema=ema,
    )


def _gradients(
    values: Values, batch: Mapping[str, tf.Tensor], network: keras.Model, recipe: TrainRecipe
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gradient of the (scaled) mean loss of a batch, statistics after it, and [loss, entropy, top 1]."""
    images, labels = recipe.normalize(batch["image"]), batch["label"]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values.weights)
        logits, statistics = network.stateless_call(
            values.weights, values.statistics, images, training=True
        )
        entropy = tf.reduce_mean(
            cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        )
        decayed = [
            w
            for w, v in zip(values.weights, network.trainable_variables, strict=True)
            if is_decayed(v.path)
        ]
        loss = entropy + recipe.weight_decay * l2_loss(decayed)
        target = loss * values.loss_scale.scale if values.loss_scale else loss
    classes = labels if labels.shape.rank == 1 else tf.argmax(labels, -1, output_type=tf.int32)
    top_1 = tf.reduce_mean(_in_top(logits, classes, 1))
    gradients = tape.gradient(target, values.weights)
    return pack(gradients), pack(statistics), tf.stack([loss, entropy, top_1])


def _micro_batches(batch: Mapping[str, tf.Tensor], count: int) -> list[Mapping[str, tf.Tensor]]:
    if count == 1:
        return [batch]
    parts = {name: tf.split(tensor, count) for name, tensor in batch.items()}
    return [{name: part[i] for name, part in parts.items()} for i in range(count)]


def _in_top(logits: tf.Tensor, labels: tf.Tensor, k: int) -> tf.Tensor:
    """1.0 where the label is among the k best classes, else (and for NaN) 0.0: float32 [batch].

    Equal logits rank by class number, so that a network which has died does not look perfect.
    """
    own = tf.gather(logits, labels, batch_dims=1)[:, tf.newaxis]
    earlier = tf.range(logits.shape[-1]) < labels[:, tf.newaxis]
    ahead = (logits > own) | ((logits == own) & earlier)
    rank = tf.reduce_sum(tf.cast(ahead, tf.int32), -1)
    return tf.cast((rank < k) & tf.math.is_finite(own[:, 0]), tf.float32)
