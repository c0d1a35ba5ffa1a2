"""Train keras.applications' EfficientNets with `fit`, as benchmarks.turn_server measures it."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

NUM_CLASSES = 1000
NUM_BATCHES = 4  # that are cycled through
LEARNING_RATE = 1e-5
WEIGHT_DECAY = 1e-5  # of sum(w**2) / 2


def training_step(model: str, image_size: int, batch: int, steps: int) -> Callable[[], int]:
    """Prepare a turn of so many training steps: one call of `fit`.

    The loss is the project's: label smoothing, and L2 on all variables but batch norm's.
    """
    keras.utils.set_random_seed(0)
    build = {
        "efficientnet-b0": keras.applications.EfficientNetB0,
        "efficientnet-b2": keras.applications.EfficientNetB2,
    }[model]
    network = build(
        weights=None,
        classes=NUM_CLASSES,
        input_shape=(image_size, image_size, 3),
        classifier_activation=None,
    )
    for variable in network.trainable_variables:
        if variable.name not in ("gamma", "beta"):
            variable.regularizer = keras.regularizers.L2(WEIGHT_DECAY / 2)
    network.compile(
        optimizer=keras.optimizers.RMSprop(
            LEARNING_RATE, rho=0.9, momentum=0.9, epsilon=1e-3, use_ema=True, ema_momentum=0.9999
        ),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics=["accuracy"],
        jit_compile=False,  # XLA's convolutions on a processor are several times slower
    )
    batches = _batches(image_size, batch)

    def turn() -> int:
        network.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
        return steps * batch

    return turn


def _batches(image_size: int, batch: int) -> tf.data.Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, [NUM_BATCHES, batch, image_size, image_size, 3], np.uint8)
    labels = rng.integers(0, NUM_CLASSES, [NUM_BATCHES, batch], np.int32)
    one_hot = tf.one_hot(labels, NUM_CLASSES)  # Keras smooths no class indices
    return tf.data.Dataset.from_tensor_slices((images, one_hot)).repeat()
