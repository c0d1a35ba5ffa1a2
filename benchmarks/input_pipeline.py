"""Measure the speed of the input pipeline, step by step, and the cost of augmentation.

    python -m benchmarks.input_pipeline [--data_dir=DIR] [--output=benchmarks/results/input_pipeline.md]

measures on real JPEGs (any folder tree of them; without --data_dir overlapping crops of the two photographs
that ship with scikit-learn): the pipeline from the bare decoding of the crop up to
finished batches, every augmentation operation by itself, and the whole training pipeline with and
without augmentation, beside the published code's structure of both, which is rebuilt here as a
yardstick and checked to give the same pixels.

Everything is measured in turns, in several rounds, and reported as the median of the rounds: images per
second of wall time, and processor time per image, which other work on the machine disturbs least. The
limits on augmentation apply to ratios of processor time within many rounds of short turns: the speed of a
shared processor drifts by a third within seconds, and so affects both sides alike.
"""

import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

import numpy as np
import tensorflow as tf

from benchmarks.photographs import jpegs
from benchmarks.published_augment import AugmentFunction, published_structure
from benchmarks.ratios import median_ratio
from benchmarks.turns import (
    SHORT_TURN,
    PipelineSpeed,
    measure_in_short_turns,
    measure_in_turns,
)
from input_pipeline.augment import AutoAugment, RandAugment, mixing, policies
from input_pipeline.augment.policies import Policy
from input_pipeline.draws import draw_uniforms
from input_pipeline.images import crop, framing
from input_pipeline.images.view import EvalView, TrainView
from input_pipeline.sources import Source, get_source, records
from input_pipeline.stream.pipeline import (
    AUGMENT,
    CROP,
    IN_MEMORY_BYTES,
    Reading,
    make_train_dataset,
    seed_of_choice,
    train_rows,
)
from system.command import Namespace, Parser, command, positive
from system.conditions import conditions
from system.memory import limit_malloc_arenas

SEED = 1
NUM_CLASSES = 1000
MIXING_ALPHA = 0.2
CALLS_PER_THREAD = 2  # in flight, so that no thread idles until an earlier image is finished
BUFFER_MIB = 16.0  # of shuffling: what is read ahead at the start must not fill the measurement
CHECKED_IMAGES = 256  # on which the yardstick's pixels are compared
# Limits on augmentation: the pipeline with AutoAugment against the one without, and against
# the one with the published code's structure.
LEAST_SHARE, LEAST_SPEEDUP = 0.8, 1.8
SHORT_ROUNDS = 16  # of short turns, times as many as of others


def _with_threads(dataset: tf.data.Dataset, threads: int) -> tf.data.Dataset:
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    return dataset.with_options(options)


# -- the steps, one after the other -------------------------------------------------------------


def stage_datasets(
    encoded: Sequence[bytes], image_size: int, batch: int, threads: int
) -> dict[str, tf.data.Dataset]:
    """Build pipelines, each one step longer than the one before; an element is `batch` images.

    Up to the batching step, only one byte of each image is collected.
    """

    size = (image_size, image_size)

    def seed(index: tf.Tensor) -> tf.Tensor:
        return tf.stack([tf.constant(1, tf.int64), index])

    def decode_crop(index: tf.Tensor, image_bytes: tf.Tensor) -> tf.Tensor:
        pixels, _, _ = crop.decode_part(
            image_bytes, lambda shape: framing.RandomCrop().part(shape, size, seed(index))
        )
        return pixels

    def resize_crop(index: tf.Tensor, image_bytes: tf.Tensor) -> tf.Tensor:
        return crop.resize_to(decode_crop(index, image_bytes), size)

    def frame(index: tf.Tensor, image_bytes: tf.Tensor, flip: bool = True) -> tf.Tensor:
        return framing.frame_train(
            image_bytes, seed(index), framing.RandomCrop(), size, flip=flip
        ).image

    def make_augment_step(augment: AugmentFunction) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        return lambda index, image_bytes: augment(frame(index, image_bytes), seed(index))

    def mix(images: tf.Tensor) -> tf.Tensor:
        return mixing.mix(
            images,
            tf.range(batch),
            tf.map_fn(seed, tf.range(batch, dtype=tf.int64)),
            mixup_alpha=MIXING_ALPHA,
            cutmix_alpha=MIXING_ALPHA,
            num_classes=NUM_CLASSES,
        )

    steps = {
        "decode the crop": decode_crop,
        "+ resize": resize_crop,
        "+ to uint8": lambda index, image_bytes: frame(index, image_bytes, flip=False),
        "+ flip": frame,
        "+ AutoAugment": make_augment_step(AutoAugment()),
        "+ RandAugment, instead": make_augment_step(RandAugment()),
    }
    images = tf.data.Dataset.from_tensor_slices(list(encoded)).repeat().enumerate()
    datasets = {}
    for name, step in steps.items():
        step = tf.autograph.experimental.do_not_convert(step)
        made = images.map(lambda *row, step=step: step(*row)[0, 0, 0], num_parallel_calls=threads)
        datasets[name] = _with_threads(made.batch(batch), threads)
    for name in ("+ AutoAugment", "+ RandAugment, instead"):
        step = tf.autograph.experimental.do_not_convert(steps[name])
        batches = images.map(step, num_parallel_calls=threads).batch(batch, drop_remainder=True)
        kind = name.removeprefix("+ ").removesuffix(", instead")
        datasets[f"{kind} + batch"] = _with_threads(batches, threads)
        datasets[f"{kind} + batch + mixup, cutmix"] = _with_threads(
            batches.map(mix, num_parallel_calls=threads), threads
        )
    return datasets


# -- operation by operation ---------------------------------------------------------------------


def operation_datasets(
    encoded: Sequence[bytes], image_size: int, batch: int
) -> dict[str, tf.data.Dataset]:
    """Build a single-threaded pipeline for each operation on finished crops; the first does nothing.

    Levels 0 to 9 and signs alternate and are constants of the graph, as in a policy.
    """
    crops = tf.stack([EvalView(image_size)(image_bytes)["image"] for image_bytes in encoded[:32]])
    images = tf.data.Dataset.from_tensor_slices(crops).repeat().enumerate()
    catalogue: dict[str, policies.Operation] = {
        "nothing": lambda image, level, sign, centre: image,
        **policies.make_operations(quirks=True, translate_const=100.0, cutout_const=40.0),
    }
    datasets = {}
    for name, operation in catalogue.items():

        def apply(index: tf.Tensor, image: tf.Tensor, operation: Any = operation) -> tf.Tensor:
            centre = tf.cast(tf.stack([index % 7, index % 5]), tf.float32) / 7.0
            draw = policies.make_drawer(
                [
                    lambda x, centre, level=level, sign=sign: operation(x, level, sign, centre)
                    for level, sign in itertools.product(range(10), policies.SIGNS)
                ],
                tf.TensorSpec(image.shape, tf.uint8),
                tf.TensorSpec([2], tf.float32),
            )
            return draw(tf.cast(index % 20, tf.int32), image, centre)

        apply = tf.autograph.experimental.do_not_convert(apply)
        made = images.map(lambda *row, apply=apply: apply(*row)[0, 0, 0])
        datasets[name] = _with_threads(made.batch(batch), 1)
    return datasets


# -- the whole training pipeline ----------------------------------------------------------------


def pipeline_datasets(
    source: Source,
    augments: Mapping[str, Policy | None],
    image_size: int,
    batch: int,
    threads: int,
) -> dict[str, tf.data.Dataset]:
    """Build pipelines from records to batches, as training reads them."""
    return {
        name: make_train_dataset(
            source,
            TrainView(image_size, augment=augment),
            host_batch_size=batch,
            seed=SEED,
            reading=Reading(
                shuffle_buffer_mib=BUFFER_MIB,
                num_parallel_calls=CALLS_PER_THREAD * threads,
                num_threads=threads,
            ),
        )
        for name, augment in augments.items()
    }


def write_records(
    encoded: Sequence[bytes], directory: str, more_than: int = IN_MEMORY_BYTES
) -> Source:
    """Write record files of these images, repeated until they exceed `more_than` bytes.

    Records beyond IN_MEMORY_BYTES are streamed instead of kept in memory.
    """
    copies = more_than // sum(map(len, encoded)) + 1
    for shard in range(copies):
        examples = [
            records.serialize(records.ImageRecord(content, number % NUM_CLASSES + 1, 0, 0))
            for number, content in enumerate(encoded)
        ]
        records.write_shard(f"{directory}/train-{shard:05d}-of-{copies:05d}", examples)
    return get_source("tfrecord", directory, num_classes=NUM_CLASSES)


# -- the yardstick ------------------------------------------------------------------------------
# The training pipeline as the published code structures it: one map from a record to a float32 image,
# TensorFlow's own threading, batches of float32, and published_augment.py. Records come in the order of
# the project's pipeline, and every draw from the same seeds, so that pixels can be compared.


def published_datasets(
    source: Source,
    augments: Mapping[str, AugmentFunction | None],
    image_size: int,
    batch: int,
    threads: int,
) -> dict[str, tf.data.Dataset]:
    """Build pipelines to batches of (float32 [batch, S, S, 3] in 0..255, int32 [batch])."""
    examples = source.examples("train")
    rows = train_rows(examples, seed=SEED, host_batch_size=batch, shuffle_buffer_mib=BUFFER_MIB)
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads

    def dataset(augment: AugmentFunction | None) -> tf.data.Dataset:
        parse = tf.autograph.experimental.do_not_convert(
            lambda row: _published_example(row, augment, image_size)
        )
        images = rows.map(parse, num_parallel_calls=CALLS_PER_THREAD * threads)
        return images.batch(batch, drop_remainder=True).prefetch(2).with_options(options)

    return {name: dataset(augment) for name, augment in augments.items()}


def _published_example(
    row: dict[str, tf.Tensor], augment: AugmentFunction | None, image_size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string, ""),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64, -1),
    }
    parsed = tf.io.parse_single_example(row["record"], features)
    seed = seed_of_choice(SEED, row, CROP)
    image = _published_crop(parsed["image/encoded"], seed, image_size)
    mirrored = draw_uniforms(seed, 1, stream=framing.FLIP_STREAM)[0] < 0.5
    image = tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)
    image = tf.reshape(image, [image_size, image_size, 3])
    if augment is not None:
        image = tf.cast(tf.clip_by_value(image, 0.0, 255.0), tf.uint8)
        image = tf.cast(augment(image, seed_of_choice(SEED, row, AUGMENT)), tf.float32)
    return image, tf.cast(parsed["image/class/label"], tf.int32) - 1


def _published_crop(image_bytes: tf.Tensor, seed: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decode a random crop and resize it; without a valid crop, decode the centre crop instead."""
    shape = tf.io.extract_jpeg_shape(image_bytes)
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seed,
        min_object_covered=0.1,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
    )

    def resize(window: tf.Tensor | None = None) -> tf.Tensor:
        pixels = image
        if window is not None:
            pixels = tf.image.decode_and_crop_jpeg(image_bytes, window, channels=3)
        return crop.resize_to(pixels, (image_size, image_size))

    image = tf.image.decode_and_crop_jpeg(
        image_bytes, tf.concat([begin[:2], size[:2]], axis=0), channels=3
    )
    return tf.cond(
        tf.reduce_all(tf.equal(tf.shape(image), shape)),
        lambda: resize(crop.centre_window(shape, size=(image_size, image_size))),
        resize,
    )


def count_equal(source: Source, image_size: int, images: int = CHECKED_IMAGES) -> int:
    """Count the augmented training images, out of so many, that are equal in both pipelines."""
    settings = (image_size, images, os.cpu_count() or 1)
    (ours,) = pipeline_datasets(source, {"": AutoAugment()}, *settings).values()
    (theirs,) = published_datasets(
        source, {"": published_structure(image_size)}, *settings
    ).values()
    published, labels = next(iter(theirs))
    batch = next(iter(ours))
    equal = tf.reduce_all(tf.cast(batch["image"], tf.float32) == published, axis=[1, 2, 3])
    return int(tf.math.count_nonzero(equal & (batch["label"] == labels)))


# -- the report ---------------------------------------------------------------------------------


def report(flags: Namespace, encoded: Sequence[bytes], origin: str) -> str:
    """Measure everything and render it as a page of Markdown."""
    images = max(1, flags.images // flags.batch_size) * flags.batch_size
    mean_kb = sum(map(len, encoded)) / len(encoded) / 1e3
    parts = [
        f"# Training images\n\n{len(encoded)} images ({origin}) of {mean_kb:.0f} kB on average, crops of "
        f"{flags.image_size} px, batches of {flags.batch_size}, {flags.threads} threads; medians of "
        f"{flags.rounds} rounds of {images} images, in turns. Processor time is of all threads.",
        f"{conditions()}.",
        _report_stages(flags, encoded),
        _report_pipelines(flags, encoded),
        _report_operations(flags, encoded),
    ]
    return "\n\n".join(parts) + "\n"


def _report_stages(flags: Namespace, encoded: Sequence[bytes]) -> str:
    datasets = stage_datasets(encoded, flags.image_size, flags.batch_size, flags.threads)
    stages = _measure(flags, datasets)
    floor = stages["decode the crop"].images_per_second
    table = _table(
        ["pipeline up to", "images/s", "of the floor", "processor ms / image"],
        [
            [
                name,
                f"{speed.images_per_second:.0f}",
                f"{speed.images_per_second / floor:.0%}",
                f"{speed.processor_ms:.2f}",
            ]
            for name, speed in stages.items()
        ],
    )
    return f"## Step by step\n\n{table}"


def _report_pipelines(flags: Namespace, encoded: Sequence[bytes]) -> str:
    size, batch, threads = flags.image_size, flags.batch_size, flags.threads
    rounds = SHORT_ROUNDS * flags.rounds
    with tempfile.TemporaryDirectory() as directory:
        source = write_records(encoded, directory)
        equal = count_equal(source, size)
        augments: dict[str, Policy | None] = {
            "no augmentation": None,
            "AutoAugment": AutoAugment(),
            "RandAugment": RandAugment(),
        }
        published = {
            "published structure, no augmentation": None,
            "published structure, AutoAugment": published_structure(size),
        }
        datasets = {
            **pipeline_datasets(source, augments, size, batch, threads),
            **published_datasets(source, published, size, batch, threads),
        }
        speeds = _measure(flags, datasets)
        turns = measure_in_short_turns(datasets, batch, rounds)
    table = _table(
        ["pipeline", "images/s", "processor ms / image", "in short turns", "plain / this one"],
        [
            [
                name,
                f"{speed.images_per_second:.0f}",
                f"{speed.processor_ms:.2f}",
                f"{np.median(turns[name]):.2f}",
                f"{median_ratio(turns['no augmentation'], turns[name])[0]:.0%}",
            ]
            for name, speed in speeds.items()
        ],
    )
    share = median_ratio(turns["no augmentation"], turns["AutoAugment"])
    speedup = median_ratio(turns["published structure, AutoAugment"], turns["AutoAugment"])
    return (
        f"## The training pipeline, from records to batches\n\n"
        f"Ratios are of processor time in {rounds} rounds of short turns of {SHORT_TURN * batch} images, "
        f"median and its standard error.\n\n{table}\n\n"
        f"AutoAugment against no augmentation: {_verdict(*share, LEAST_SHARE)}\n"
        f"AutoAugment against its published structure: {_verdict(*speedup, LEAST_SPEEDUP)}\n"
        f"Equal pixels of the two: {equal} of {CHECKED_IMAGES} images."
    )


def _report_operations(flags: Namespace, encoded: Sequence[bytes]) -> str:
    speeds = _measure(flags, operation_datasets(encoded, flags.image_size, flags.batch_size))
    nothing = speeds.pop("nothing").processor_ms
    table = _table(
        ["operation", "processor ms / image"],
        [[name, f"{speed.processor_ms - nothing:.3f}"] for name, speed in speeds.items()],
    )
    return f"## Operation by operation\n\n{table}"


def _measure(flags: Namespace, datasets: Mapping[str, tf.data.Dataset]) -> dict[str, PipelineSpeed]:
    elements = max(1, flags.images // flags.batch_size)
    return measure_in_turns(datasets, flags.batch_size, elements, flags.rounds)


def _verdict(ratio: float, error: float, least: float) -> str:
    found = "reached" if ratio >= least else "missed"
    return f"{ratio:.3f} ± {error:.3f}, at least {least}: {found}."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ruler = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ruler, *rows])


# -- the command --------------------------------------------------------------------------------


@command("benchmarks.input_pipeline")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    parser = Parser("benchmarks.input_pipeline", __doc__)
    parser.add_argument("--data_dir", type=Path, help="folder tree of JPEGs")
    parser.add_argument("--image_size", type=positive, default=224, help="pixels")
    parser.add_argument("--batch_size", type=positive, default=64, help="images of a batch")
    parser.add_argument("--images", type=positive, default=512, help="images of a measurement")
    parser.add_argument("--rounds", type=positive, default=5, help="measurements of everything")
    parser.add_argument("--threads", type=positive, default=os.cpu_count(), help="of a pipeline")
    parser.add_argument("--output", type=Path, help="also write the page to this file")
    flags = parser.parse_args(argv)
    encoded, origin = jpegs(flags.data_dir)
    limit_malloc_arenas()  # as main.py does
    page = report(flags, encoded, origin)
    print(page)
    if flags.output:
        flags.output.parent.mkdir(parents=True, exist_ok=True)
        flags.output.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
