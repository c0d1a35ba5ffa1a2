"""The project's own training step, its start and its input, as benchmarks.turn_server measures them.

benchmarks.compare runs this file in older checkouts, too, so it uses only what they have: modules that were
renamed since are listed there, and nothing else of benchmarks/ is imported.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from efficientnet import build_model, get_spec, normalize_images
from input_pipeline.augment import AutoAugment
from input_pipeline.sources import get_source
from input_pipeline.stream.pipeline import make_train_dataset
from system.memory import limit_malloc_arenas
from training.devices.distribution import Distribution, connect
from training.optimizers import RMSProp, schedules
from training.step.batch_norm import CrossReplicaBatchNormalization
from training.step.noise import MaskNoise
from training.step.state import TrainState, create_train_state
from training.step.train_step import make_train_loop

try:
    from tasks.classification import Classification
    from training.step.recipe import TrainRecipe

    HAS_TASKS = True
except ImportError:  # checkouts whose recipe held the loss
    from training.step.train_step import TrainRecipe

    HAS_TASKS = False

try:
    from input_pipeline.images.view import TrainView
    from input_pipeline.stream.pipeline import Reading

    HAS_VIEWS = True
except ImportError:  # checkouts whose make_train_dataset took all settings
    HAS_VIEWS = False

NUM_CLASSES = 1000
NUM_BATCHES = 4  # that are cycled through
LEARNING_RATE = 1e-5  # small: the images are noise, and the loss must stay finite
ELEMENTS_AHEAD = 8  # more than a pipeline makes ahead


def training_step(model: str, image_size: int, batch: int, steps: int) -> Callable[[], int]:
    """Prepare a turn of so many training steps on one device, in one call of the training loop."""
    limit_malloc_arenas()  # as main.py does
    training = build_training(model, image_size, replicas=1, batch=batch)
    one_call = training.trace()

    def turn() -> int:
        metrics = one_call(steps)
        # The last metric is whether the step was finite.
        if not metrics[:, -1].all():
            raise ArithmeticError("a training step was not finite, and so was skipped")
        return steps * batch

    return turn


def first_step(model: str, image_size: int, batch: int, replicas: int) -> Callable[[], int]:
    """Prepare a turn that traces the training loop and runs its first step."""
    training = build_training(model, image_size, replicas, batch)

    def turn() -> int:
        training.trace()(1)
        return batch

    return turn


def input_batches(
    records: str, augment: bool, image_size: int, batch: int, batches: int, threads: int
) -> Callable[[], int]:
    """Prepare a turn of so many batches of training images, from record files.

    Args:
      records: directory of the record files.
      augment: whether AutoAugment is applied.
      image_size: side of the images in pixels.
      batch: images of a batch.
      batches: of a turn.
      threads: of the pipeline.
    """
    limit_malloc_arenas()
    source = get_source("tfrecord", records, num_classes=NUM_CLASSES)
    policy = AutoAugment() if augment else None
    reading: dict[str, Any] = {
        "shuffle_buffer_mib": 16.0,  # what is read ahead at the start must not fill the measurement
        "num_parallel_calls": 2 * threads,
        "num_threads": threads,
    }
    if HAS_VIEWS:
        view, reading = TrainView(image_size, augment=policy), {"reading": Reading(**reading)}
        dataset = make_train_dataset(source, view, host_batch_size=batch, seed=1, **reading)
    else:
        settings = {"image_size": image_size, "augment": policy, **reading}
        dataset = make_train_dataset(source, host_batch_size=batch, seed=1, **settings)
    iterator = iter(dataset)
    for _ in range(ELEMENTS_AHEAD):
        next(iterator)

    def turn() -> int:
        for _ in range(batches):
            next(iterator)
        return batches * batch

    return turn


@dataclasses.dataclass(frozen=True)
class Training:
    """All that a training loop is traced from."""

    state: TrainState
    recipe: TrainRecipe
    distribution: Distribution
    image_size: int
    batch: int  # over all replicas

    def trace(self) -> Callable[[int], np.ndarray]:
        """Trace the training loop; return a function of steps that runs them: metrics [steps, metrics]."""
        per_replica = self.batch // self.distribution.num_replicas
        batch_spec = {
            "image": tf.TensorSpec([per_replica, self.image_size, self.image_size, 3], tf.uint8),
            "label": tf.TensorSpec([per_replica], tf.int32),
        }
        batches = iter(self.distribution.batches(self._batches, self.batch))
        loop = make_train_loop(self.state, self.recipe, self.distribution, batch_spec)
        traced = loop.get_concrete_function(batches, tf.constant(1))  # type: ignore[attr-defined]
        return lambda steps: traced(batches, tf.constant(steps)).numpy()

    def _batches(self, host_index: int, num_hosts: int) -> tf.data.Dataset:
        size = self.batch // num_hosts
        rng = np.random.default_rng(host_index)
        shape = [NUM_BATCHES, size, self.image_size, self.image_size, 3]
        images = rng.integers(0, 256, shape, np.uint8)
        labels = rng.integers(0, NUM_CLASSES, [NUM_BATCHES, size], np.int32)
        return tf.data.Dataset.from_tensor_slices({"image": images, "label": labels}).repeat()


def build_training(model: str, image_size: int, replicas: int, batch: int) -> Training:
    """Build a network with the state and recipe of its training, as published; once a process.

    Args:
      model: published name.
      image_size: side of the images in pixels.
      replicas: logical CPU devices that train together, with batch norm statistics over all of them.
      batch: images over all replicas.
    """
    if replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * replicas
        tf.config.set_logical_device_configuration(cpu, devices)
    distribution = connect("mirrored" if replicas > 1 else "cpu")
    spec, noise = get_spec(model), MaskNoise(0)
    keras.utils.set_random_seed(0)
    with distribution.strategy.scope():
        network = build_model(
            spec,
            num_classes=NUM_CLASSES,
            image_size=image_size,
            batch_norm=functools.partial(
                CrossReplicaBatchNormalization, group_mean=distribution.group_mean(replicas)
            ),
            uniform=noise,
        )
    task: dict[str, Any] = {}
    if HAS_TASKS:
        task["task"] = Classification(NUM_CLASSES)
    recipe = TrainRecipe(  # label smoothing, decay and averaging by default as published
        optimizer=RMSProp(),
        learning_rate=schedules.constant(peak=LEARNING_RATE),
        normalize=lambda x: normalize_images(x, spec.mean_rgb, spec.stddev_rgb),
        noise=noise,
        **task,
    )
    state = create_train_state(
        network, distribution, optimizer=recipe.optimizer, with_ema=True, with_loss_scale=False
    )
    return Training(state, recipe, distribution, image_size, batch)
