"""A network that is traced in seconds, and the parts of its training put together.

Tests take `start` as a fixture; the worker of the test with two processes imports this file.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from efficientnet import ModelSpec, build_model, get_spec, normalize_images
from efficientnet.builder import build_network
from tasks.classification import Classification
from tasks.task import Task
from training.devices.distribution import Distribution, batch_norm_group_size, connect
from training.optimizers import SGD, RMSProp, schedules
from training.step.batch_norm import CrossReplicaBatchNormalization
from training.step.noise import MaskNoise
from training.step.recipe import TrainRecipe
from training.step.state import TrainState, create_train_state
from training.step.train_step import make_train_loop

IMAGE_SIZE, CLASSES = 32, 10
CLIP_NORM = 0.5  # shorter than the gradients, so that clipping is a part of what is compared
_B0 = get_spec("efficientnet-b0", width=0.25, dropout=0.0, survival_probability=1.0)
# The first four blocks of a narrow B0, in three stages; two have a shortcut.
SPEC = dataclasses.replace(_B0, blocks=_B0.blocks[:4])
# Every layer that can be random is, and often.
RANDOM_SPEC = dataclasses.replace(SPEC, dropout=0.5, survival_probability=0.3)


@dataclasses.dataclass(frozen=True)
class Batches:
    """Images uint8 [steps, batch, 32, 32, 3] and labels [steps, batch, ...]."""

    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def random(cls, steps, global_batch_size, seed=0):
        random = np.random.default_rng(seed)
        shape = (steps, global_batch_size)
        # Images of one colour with noise: classes differ, and so do the statistics of batches.
        labels = random.integers(0, CLASSES, shape)
        colours = np.random.default_rng(99).integers(0, 200, (CLASSES, 3))
        noise = random.integers(0, 56, (*shape, IMAGE_SIZE, IMAGE_SIZE, 3))
        images = colours[labels][:, :, np.newaxis, np.newaxis] + noise
        return cls(images.astype(np.uint8), labels.astype(np.int32))

    def repeated(self, times):
        return Batches(np.repeat(self.images, times, 0), np.repeat(self.labels, times, 0))

    def with_shares(self):
        """The same with each label as shares of all classes."""
        return Batches(self.images, np.eye(CLASSES, dtype=np.float32)[self.labels])

    @property
    def columns(self):
        return {"image": self.images, "label": self.labels}

    def host_batches(self, host_index, num_hosts):
        return host_batches(self.columns, host_index, num_hosts)


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """What `start` puts together; its state can be put back to where it started."""

    distribution: Distribution
    state: TrainState
    recipe: TrainRecipe
    batch_spec: dict
    initial: dict

    @functools.cached_property
    def loop(self):
        return make_train_loop(self.state, self.recipe, self.distribution, self.batch_spec)

    def run(self, batches):
        """Train on all batches; every metric by name, [steps]."""
        return self.run_columns(batches.columns)

    def run_columns(self, columns):
        """Train on arrays [steps, batch, ...] by name; every metric by name, [steps]."""
        steps, size = columns["image"].shape[:2]
        make = functools.partial(host_batches, columns)
        rows = self.loop(iter(self.distribution.batches(make, size)), tf.constant(steps)).numpy()
        return dict(zip(self.recipe.metrics, rows.T, strict=True))

    def reset(self):
        self.state.from_arrays(self.initial)
        return self


def host_batches(columns, host_index, num_hosts):
    """A host's part of every batch, as `Distribution.batches` asks for it."""
    size = columns["image"].shape[1] // num_hosts
    part = slice(host_index * size, (host_index + 1) * size)
    return tf.data.Dataset.from_tensor_slices({name: x[:, part] for name, x in columns.items()})


def devices(count):
    """The first `count` logical CPUs as replicas."""
    if count == 1:
        return connect("cpu")
    names = [device.name for device in tf.config.list_logical_devices("CPU")[:count]]
    return Distribution(tf.distribute.MirroredStrategy(names))


def start(
    distribution,
    *,
    global_batch_size=8,
    group="all",
    spec=SPEC,
    dtype="float32",
    soft_labels=False,
    rate=0.01,
    optimizer=None,
    **options,
):
    """A network with weights that are the same at every call, ready to train."""
    noise = MaskNoise(5)
    keras.utils.set_random_seed(1)
    group_size = batch_norm_group_size(group, distribution.num_replicas)
    with distribution.strategy.scope():
        network = build_model(
            spec,
            num_classes=CLASSES,
            image_size=IMAGE_SIZE,
            dtype=dtype,
            batch_norm=functools.partial(
                CrossReplicaBatchNormalization, group_mean=distribution.group_mean(group_size)
            ),
            uniform=noise,
        )
    # Logits of a standard deviation above 1, so that losses and gradients differ from step to step.
    kernel = network.get_layer("classifier").kernel
    kernel.assign(kernel * (kernel.shape[0] / CLASSES) ** 0.5)
    recipe = TrainRecipe(
        task=Classification(CLASSES),
        optimizer=optimizer or RMSProp(),
        learning_rate=schedules.constant(peak=rate),
        normalize=lambda x: normalize_images(x, spec.mean_rgb, spec.stddev_rgb, dtype),
        noise=noise,
        **options,
    )
    state = create_train_state(
        network,
        distribution,
        optimizer=recipe.optimizer,
        with_ema=recipe.averaging.decay > 0,
        with_loss_scale=dtype == "mixed_float16",
    )
    size = global_batch_size // distribution.num_replicas
    label = ([size, CLASSES], tf.float32) if soft_labels else ([size], tf.int32)
    batch_spec = {
        "image": tf.TensorSpec([size, IMAGE_SIZE, IMAGE_SIZE, 3], tf.uint8),
        "label": tf.TensorSpec(*label),
    }
    return Training(distribution, state, recipe, batch_spec, state.to_arrays())


def batch_norm_paths(network):
    """Paths of the variables of batch norm: frozen, a micro-batch computes what it does in the whole."""
    ends = ("gamma", "beta", "moving_mean", "moving_variance")
    return frozenset(v.path for v in network.variables if v.path.endswith(ends))


def start_task(
    distribution: Distribution,
    task: Task,
    spec: ModelSpec,
    columns: Mapping[str, np.ndarray],
    *,
    rate: float,
    **options: Any,
) -> Training:
    """A small network of any task, with the same weights at every call, ready to train on `columns`.

    Args:
      distribution: the replicas.
      task: with its layers.
      spec: the backbone.
      columns: arrays [steps, batch, ...] by name; "image" is square.
      rate: learning rate.
      **options: of the recipe.
    """
    noise = MaskNoise(5)
    keras.utils.set_random_seed(1)
    with distribution.strategy.scope():
        network = build_network(
            task.layers(spec),
            name=spec.name,
            outputs=task.outputs,
            image_size=columns["image"].shape[2],
            batch_norm=functools.partial(
                CrossReplicaBatchNormalization,
                group_mean=distribution.group_mean(distribution.num_replicas),
            ),
            uniform=noise,
        )
    recipe = TrainRecipe(
        task=task,
        optimizer=SGD(),
        learning_rate=schedules.constant(peak=rate),
        normalize=lambda x: normalize_images(x, spec.mean_rgb, spec.stddev_rgb),
        noise=noise,
        **options,
    )
    state = create_train_state(
        network, distribution, optimizer=recipe.optimizer, with_ema=True, with_loss_scale=False
    )
    batch_spec = {
        name: tf.TensorSpec([len(x[0]) // distribution.num_replicas, *x.shape[2:]], x.dtype)
        for name, x in columns.items()
    }
    return Training(distribution, state, recipe, batch_spec, state.to_arrays())
