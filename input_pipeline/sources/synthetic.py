"""Synthetic images for benchmarks and smoke tests, without a disk.

A small pool of JPEGs is drawn once; example i shows number i modulo the pool's size. With at most
MAX_POOL classes an image's colour depends on its class, so that a network can learn something.
"""

import math

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo
from input_pipeline.sources.source import IndexedExamples, Source, SourceRequest
from input_pipeline.targets.boxes import AREA, BOX_LABELS, CROWD, XMAX, XMIN, YMAX, YMIN
from input_pipeline.targets.mask import MASK, MOST_CLASSES
from input_pipeline.targets.target import Features
from input_pipeline.targets.whole_image import LABELS

DEFAULT_TRAIN_EXAMPLES = 1_281_167  # as ImageNet
VALIDATION_SHARE = 25  # one validation image for so many training images, as ImageNet has
DEFAULT_CLASSES = 1000
DEFAULT_IMAGE_SIZE = (256, 256)
MAX_POOL = 64
MAX_MASKS = 8


def open_synthetic(request: SourceRequest) -> Source:
    """Open `num_train_examples` synthetic images, and a 25th of that number for validation."""
    num_classes = request.num_classes or DEFAULT_CLASSES
    num_train = request.num_train_examples or DEFAULT_TRAIN_EXAMPLES
    image_size = request.image_size or DEFAULT_IMAGE_SIZE
    height, width = image_size
    if min(num_classes, num_train, height, width) < 1:
        raise DatasetError(
            f"cannot make {num_train} synthetic images of {height} x {width} pixels in {num_classes} "
            "classes; expected at least 1 of each"
        )
    counts = {"train": num_train, "validation": math.ceil(num_train / VALIDATION_SHARE)}
    pool = _draw_pool(num_classes, image_size)
    mean_bytes = sum(len(image) for image in pool) // len(pool)
    table = tf.constant(pool)

    masks = tf.constant(_draw_masks(num_classes, image_size))
    wanted = request.target.features

    def read(index: tf.Tensor) -> tuple[tf.Tensor, Features]:
        known = {
            LABELS: tf.cast(index % num_classes + 1, tf.int64)[tf.newaxis],
            MASK: masks[index % MAX_MASKS],
            # The left half of the image.
            YMIN: tf.constant([0.0]),
            XMIN: tf.constant([0.0]),
            YMAX: tf.constant([1.0]),
            XMAX: tf.constant([0.5]),
            BOX_LABELS: tf.cast(index % num_classes + 1, tf.int64)[tf.newaxis],
            CROWD: tf.zeros([0], tf.int64),
            AREA: tf.zeros([0]),
        }
        return table[index % len(pool)], {name: known[name] for name in wanted}

    return Source(
        info=DatasetInfo(
            name="synthetic",
            num_classes=num_classes,
            class_names=tuple(f"class {n}" for n in range(1, num_classes + 1)),
            splits={split: SplitInfo(count) for split, count in counts.items()},
        ),
        splits={
            split: IndexedExamples(
                count, count * mean_bytes, read, file=lambda _: tf.constant("synthetic")
            )
            for split, count in counts.items()
        },
    )


def _draw_pool(num_classes: int, image_size: tuple[int, int]) -> list[bytes]:
    """Draw JPEGs of noise over a colour, the same number for each class if they fit."""
    rounds = max(1, MAX_POOL // num_classes)
    size = rounds * num_classes if num_classes <= MAX_POOL else MAX_POOL
    height, width = image_size
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (min(num_classes, MAX_POOL), 1, 1, 3))
    images = []
    for number in range(size):
        grain = random.integers(-40, 41, (math.ceil(height / 8), math.ceil(width / 8), 3))
        grain = grain.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
        pixels = np.clip(colours[number % len(colours)] + grain, 0, 255).astype(np.uint8)
        images.append(tf.io.encode_jpeg(pixels, quality=90).numpy())
    return images


def _draw_masks(num_classes: int, image_size: tuple[int, int]) -> list[bytes]:
    """Draw masks of two halves of one class each."""
    height, width = image_size
    masks = []
    for number in range(MAX_MASKS):
        mask = np.full([height, width, 1], number % min(num_classes, MOST_CLASSES), np.uint8)
        mask[:, width // 2 :] = (number + 1) % min(num_classes, MOST_CLASSES)
        masks.append(tf.io.encode_png(mask).numpy())
    return masks
