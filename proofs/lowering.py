"""Lower a whole training step to StableHLO with the TPU's kernels, on a machine without a TPU.

Needs tensorflow-tpu (requirements-compile.txt), whose `experimental_get_compiler_ir` takes
platform_name="TPU" for functions that capture no variable. libtpu is not loaded: the compiler runs in
another process.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from configs.schema import Experiment
from efficientnet import Size, height_width
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo
from proofs.extrapolation import factors, first_repeats
from tasks.classification import Classification
from training.build import make_recipe, make_state, make_weight_decay
from training.devices.distribution import connect
from training.forecast.tpu_chips import IMAGENET_TRAIN_EXAMPLES
from training.inputs import train_batch_spec
from training.job import make_job, model_spec
from training.optimizers import RMSProp
from training.step.packed import Layout, Packed
from training.step.train_step import traced_train_step

IMAGENET_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A lowered training step."""

    module: str  # StableHLO
    state_bytes: int  # of what stays in memory between two steps
    image_size: Size  # in pixels
    extrapolation: dict[str, Any] = dataclasses.field(default_factory=dict)  # to the whole network


def lower_project(
    experiment: Experiment, per_replica_batch: int, repeats_divisor: int = 1
) -> Lowered:
    """Lower the project's own step on one replica: bfloat16, optimizer, averages and metrics included.

    Sums over replicas are left out: one per step for all gradients and statistics, and with grouped
    batch norm two small ones per layer. Stages are left out too: images have the size of the experiment.

    Args:
      experiment: a recipe.
      per_replica_batch: images of the step.
      repeats_divisor: above 1, lowers that part of each stage's blocks, and returns how to extrapolate.
    """
    model = {"num_classes": experiment.model.num_classes or IMAGENET_CLASSES}
    train = {"precision": "mixed_bfloat16", "global_batch_size": per_replica_batch}
    experiment = experiment.model_copy(
        update={
            "model": experiment.model.model_copy(update=model),
            "train": experiment.train.model_copy(update=train),
            "stages": (),
        }
    )
    spec = model_spec(experiment)
    splits = {"train": SplitInfo(IMAGENET_TRAIN_EXAMPLES), experiment.data.eval_split: SplitInfo(1)}
    info = DatasetInfo("imagenet", model["num_classes"], None, splits)
    job = make_job(experiment, info, connect("cpu")).at(0)
    job = dataclasses.replace(job, spec=first_repeats(spec, repeats_divisor))
    state, noise = make_state(job)
    recipe = make_recipe(job, state.network, noise)
    batch_spec = train_batch_spec(job)
    del batch_spec["index"]  # of the example: the step does not read it
    step = traced_train_step(state, recipe, job.distribution, batch_spec)
    arguments = step.structured_input_signature[0]
    state_bytes, extrapolation = _bytes(arguments[0]), {}
    if repeats_divisor > 1:
        by = factors(job.spec, spec, num_classes=model["num_classes"], image_size=spec.resolution)
        extrapolation = {"blocks": [len(job.spec.blocks), len(spec.blocks)], "factors": by}
        state_bytes = round(state_bytes * by["argument_bytes"])
    return Lowered(_stablehlo(step, arguments), state_bytes, spec.resolution, extrapolation)


def lower_keras_applications(experiment: Experiment, per_replica_batch: int) -> Lowered:
    """Lower keras.applications' network in a plain bfloat16 step with the same loss, optimizer and average.

    Plain: Keras' own layers, one update for each weight, float32 images.
    """
    spec, train = model_spec(experiment), experiment.train
    build = getattr(keras.applications, "EfficientNet" + spec.name.rpartition("-")[2].upper())
    keras.config.set_dtype_policy("mixed_bfloat16")
    network = build(
        weights=None,
        input_shape=(*height_width(spec.resolution), 3),
        classes=experiment.model.num_classes or IMAGENET_CLASSES,
        classifier_activation=None,
    )
    optimizer, average_decay = RMSProp(), experiment.ema.decay
    task = Classification(network.output_shape[-1], train.label_smoothing)
    decay, layout = make_weight_decay(experiment), Layout.of(network.trainable_variables)
    weights = [_spec(v) for v in network.trainable_variables]
    statistics = [_spec(v) for v in network.non_trainable_variables]
    slots = dict.fromkeys(optimizer.initial_slots, weights)
    batch = {
        "image": tf.TensorSpec([per_replica_batch, *network.input_shape[1:]], tf.float32),
        "label": tf.TensorSpec([per_replica_batch], tf.int32),
    }

    def step(state: Any, batch: Any) -> Any:
        weights, statistics, slots, average = state
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            logits, statistics = network.stateless_call(
                weights, statistics, batch["image"], training=True
            )
            loss, _ = task.loss(tf.cast(logits, tf.float32), batch, task.weight(batch), lambda x: x)
            loss += decay.loss(layout.names, weights)
        gradients = tape.gradient(loss, weights)
        updates = [
            optimizer.update(
                Packed(w, Layout((name,), (w.shape.num_elements(),))),
                g,
                {"rms": r, "momentum": m},
                tf.constant(0.256),
                np.zeros(1, np.float32),
            )
            for name, w, g, r, m in zip(
                layout.names, weights, gradients, slots["rms"], slots["momentum"], strict=True
            )
        ]
        weights = [weight for weight, _ in updates]
        slots = {name: [slots[name] for _, slots in updates] for name in slots}
        average = [
            a - (a - w) * (1.0 - average_decay) for a, w in zip(average, weights, strict=True)
        ]
        return (weights, statistics, slots, average), loss

    state = (weights, statistics, slots, weights)
    return Lowered(
        _stablehlo(step, (state, batch)), state_bytes=_bytes(state), image_size=spec.resolution
    )


def _stablehlo(function: Callable[..., Any], arguments: Any) -> str:
    """Lower a function of nested tensors; flatten its arguments, as the compiler requires."""
    flat = [tf.TensorSpec(s.shape, s.dtype) for s in tf.nest.flatten(arguments)]

    @tf.function(jit_compile=True, autograph=False)
    def flat_function(*tensors: tf.Tensor) -> list[tf.Tensor]:
        return tf.nest.flatten(function(*tf.nest.pack_sequence_as(arguments, tensors)))

    lower = flat_function.experimental_get_compiler_ir(*flat)
    return lower(stage="stablehlo", platform_name="TPU")


def _spec(variable: Any) -> tf.TensorSpec:
    return tf.TensorSpec(variable.shape, variable.dtype)


def _bytes(tree: Any) -> int:
    return sum(s.shape.num_elements() * s.dtype.size for s in tf.nest.flatten(tree))
