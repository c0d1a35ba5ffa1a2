"""From a source to batches: deterministic, resumable at any step, every example counted.

Training images come as uint8 and are normalised on the device, so that a quarter of the bytes
travel. Every random choice follows from (seed, epoch, index of the example): neither threads,
hosts, workers nor restarts change a pixel. See order.py for which example comes when, decode.py
for what happens to a broken one.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import tensorflow as tf

import input_pipeline.images.crop as crop
from input_pipeline.augment import mixing
from input_pipeline.data_service import from_service
from input_pipeline.errors import DatasetError
from input_pipeline.sources.cache import load_into_memory
from input_pipeline.sources.record_index import index_records
from input_pipeline.sources.source import (
    Examples,
    IndexedExamples,
    ShardedExamples,
    Source,
)
from input_pipeline.stream.decode import (
    NO_EXAMPLE,
    OnError,
    count_broken,
    decode_batches,
    padding,
    replace_broken,
    stop_at_broken,
)
from input_pipeline.stream.failures import describe_data_error
from input_pipeline.stream.order import (
    ENDLESS,
    EPOCH_STRIDE,
    Row,
    host_range,
    indexed_once,
    indexed_order,
    sharded_once,
    sharded_order,
)
from input_pipeline.targets.target import Target

__all__ = [
    "DEFAULT_SHUFFLE_BUFFER_MIB",
    "IN_MEMORY_BYTES",
    "describe_data_error",
    "eval_steps",
    "make_eval_dataset",
    "make_train_dataset",
    "train_image",
    "train_rows",
]

Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# Splits up to this size are read once and kept, encoded, so that they can be shuffled as a whole.
IN_MEMORY_BYTES = 64 << 20
MOST_BYTES_SENT = 256 << 20  # images in memory that go with the pipeline to service workers
DEFAULT_SHUFFLE_BUFFER_MIB = 1024.0

# Which random stream of an example a choice draws from; above the bits of any index or position.
CROP, AUGMENT, _MIX = 1 << 48, 2 << 48, 3 << 48


# No function here needs AutoGraph, whose conversion takes seconds of a program's start.
@tf.autograph.experimental.do_not_convert
def make_train_dataset(
    source: Source,
    *,
    image_size: int,
    host_batch_size: int,
    seed: int,
    first_example: int = 0,
    start_step: int = 0,
    host_index: int = 0,
    num_hosts: int = 1,
    augment: Augment | None = None,
    random_erasing: float = 0.0,
    area_range: tuple[float, float] = (0.08, 1.0),
    aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = True,
    resize: Literal["bicubic", "bilinear"] = "bicubic",
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
    shuffle_buffer_mib: float = DEFAULT_SHUFFLE_BUFFER_MIB,
    on_error: OnError = "fail",
    max_error_fraction: float = 0.001,
    service: str | None = None,
    num_parallel_calls: int = tf.data.AUTOTUNE,
    num_threads: int | None = None,
) -> tf.data.Dataset:
    """Endless batches of cropped and augmented training images of one host.

    The stream is a pure function of (source, seed, first_example, host_batch_size, host_index,
    num_hosts), and `start_step=k` continues it exactly where an uninterrupted stream is after k
    batches. Every epoch shows every image once; batches straddle epochs.

    Args:
      source: its split "train" is read.
      image_size: pixels per side of the result.
      host_batch_size: examples per step on this host; global_batch_size / num_hosts.
      seed: in [0, 2**31).
      first_example: place in the stream of all hosts where step 0 begins, after batches of another
        size; a multiple of num_hosts.
      start_step: batches to skip, without decoding them.
      host_index: in [0, num_hosts).
      num_hosts: number of hosts that share an epoch.
      augment: (uint8 [S, S, 3], seed int64 [2]) -> uint8 [S, S, 3], applied after crop and flip.
      random_erasing: share of the images of which a part is erased, after `augment`.
      area_range: share of the image's area that a crop covers.
      aspect_ratio_range: width / height of a crop.
      flip: mirror half of the images.
      resize: kernel of the resizing.
      mixup_alpha: of mixing.mix, applied to finished batches; 0: no mixup.
      cutmix_alpha: the same for cutmix. With both, pairs of images alternate.
      shuffle_buffer_mib: MiB of encoded images held for shuffling and reading ahead, when the split
        is larger than IN_MEMORY_BYTES.
      on_error: "fail" stops at a broken image, naming file and example; "skip" puts another image
        of the batch in its place, and stops only beyond `max_error_fraction`.
      max_error_fraction: of the examples read, or of one epoch if that is more.
      service: grpc://HOST:PORT of a data service whose workers decode the images. Records are then
        read one by one, in another order than without it; see data_service.py.
      num_parallel_calls: groups of images decoded at once; changes speed only.
      num_threads: size of a thread pool of this pipeline's own; None shares TensorFlow's.

    Returns:
      Dataset of {"image": uint8 [host_batch_size, S, S, 3], "index": int32 [host_batch_size], the
      example's number within the split} and the parts of `source.target`, as "label": int32
      [host_batch_size] in [0, num_classes). With mixup or cutmix "label" is float32
      [host_batch_size, num_classes], the shares of the classes.

    Raises:
      DatasetError: no such split, or fewer examples than hosts. While iterating, tf.errors.OpError,
      which describe_data_error turns into one line.
    """
    if first_example % num_hosts:
        raise ValueError(f"first_example {first_example} is no multiple of num_hosts={num_hosts}")
    examples = resident(source.examples("train"), on_error)
    if service is not None:
        examples = _by_index(source, examples)
    _check_hosts(source, examples.num_examples, host_index, num_hosts)
    make_image = partial(
        train_image,
        seed=seed,
        image_size=image_size,
        augment=augment,
        random_erasing=random_erasing,
        area_range=area_range,
        aspect_ratio_range=aspect_ratio_range,
        flip=flip,
        resize=resize,
    )

    def batches(first_step: int) -> tf.data.Dataset:
        rows = train_rows(
            examples,
            seed=seed,
            host_batch_size=host_batch_size,
            first_example=first_example,
            start_step=first_step,
            host_index=host_index,
            num_hosts=num_hosts,
            shuffle_buffer_mib=shuffle_buffer_mib,
            skip_damage=on_error == "skip",
        )
        decoded = decode_batches(
            rows,
            source.info,
            source.target,
            examples,
            make_image,
            image_size=image_size,
            host_batch_size=host_batch_size,
            num_parallel_calls=num_parallel_calls,
        )
        return decoded.with_options(_options(num_threads))

    if service is not None:
        dataset = from_service(batches, address=service, start_step=start_step)
    else:
        dataset = batches(start_step)
    if on_error == "skip":
        per_epoch = -(-examples.num_examples // num_hosts)
        dataset = replace_broken(
            count_broken(dataset, max_error_fraction=max_error_fraction, num_examples=per_epoch)
        )
    else:
        dataset = stop_at_broken(dataset)
    kept = ("image", *source.target.batch_spec(1), "index")
    dataset = dataset.map(lambda batch: {key: batch[key] for key in kept})
    if mixup_alpha or cutmix_alpha:
        first = first_example + (start_step * num_hosts + host_index) * host_batch_size
        starts = tf.data.Dataset.range(first, ENDLESS, num_hosts * host_batch_size)
        mix = partial(
            mix_batch,
            seed=seed,
            mixup_alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha,
            target=source.target,
            num_classes=source.info.num_classes,
        )
        dataset = tf.data.Dataset.zip(starts, dataset).map(
            mix, num_parallel_calls=num_parallel_calls, deterministic=True
        )
    return dataset.prefetch(2).with_options(_options(num_threads))


def train_rows(
    examples: Examples,
    *,
    seed: int,
    host_batch_size: int,
    first_example: int = 0,
    start_step: int = 0,
    host_index: int = 0,
    num_hosts: int = 1,
    shuffle_buffer_mib: float = DEFAULT_SHUFFLE_BUFFER_MIB,
    skip_damage: bool = False,
) -> tf.data.Dataset:
    """Return the rows that one host trains on, in order, not yet read or decoded; see order.py."""
    if isinstance(examples, IndexedExamples):
        return indexed_order(
            examples.num_examples,
            seed=seed,
            host_batch_size=host_batch_size,
            first_example=first_example,
            start_step=start_step,
            host_index=host_index,
            num_hosts=num_hosts,
        )
    return sharded_order(
        examples,
        seed=seed,
        buffer_bytes=int(shuffle_buffer_mib * (1 << 20)),
        start=first_example // num_hosts + start_step * host_batch_size,
        host_index=host_index,
        num_hosts=num_hosts,
        skip_damage=skip_damage,
    )


def train_image(
    encoded: tf.Tensor,
    row: Row,
    *,
    seed: int,
    image_size: int,
    augment: Augment | None = None,
    random_erasing: float = 0.0,
    area_range: tuple[float, float] = (0.08, 1.0),
    aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = True,
    resize: Literal["bicubic", "bilinear"] = "bicubic",
) -> tf.Tensor:
    """Crop and augment one encoded image for training: uint8 [S, S, 3].

    All random choices depend on `seed`, row["epoch"] and row["index"] alone; the other parameters
    are those of make_train_dataset.
    """
    image = crop.train_crop(
        encoded,
        seed_of_choice(seed, row, CROP),
        image_size=image_size,
        area_range=area_range,
        aspect_ratio_range=aspect_ratio_range,
        resize=resize,
        flip=flip,
    )
    augment_seed = seed_of_choice(seed, row, AUGMENT)
    if augment is not None:
        image = augment(image, augment_seed)
    if random_erasing:
        image = mixing.random_erasing(image, augment_seed, probability=random_erasing)
    return image


def seed_of_choice(seed: int, row: Row, choice: int) -> tf.Tensor:
    """Return the seed, int64 [2], of a random choice about one example; `choice`: CROP or AUGMENT."""
    return tf.stack([seed + row["epoch"] * EPOCH_STRIDE, row["index"] + choice])


def mix_batch(
    start: tf.Tensor,
    batch: Row,
    *,
    seed: int,
    mixup_alpha: float,
    cutmix_alpha: float,
    target: Target,
    num_classes: int,
) -> Row:
    """Mix the images of a training batch, and return "label" as float32 [b, num_classes].

    The choices depend on `seed` and the place of each image in the stream of all hosts; `start`,
    int64 [], is the place of the first one.
    """
    places = start + tf.range(batch["image"].shape[0], dtype=tf.int64)
    image, label = mixing.mix(
        batch["image"],
        target.shares(batch["label"], num_classes),
        tf.stack([tf.fill(tf.shape(places), tf.constant(seed, tf.int64)), places + _MIX], axis=1),
        mixup_alpha=mixup_alpha,
        cutmix_alpha=cutmix_alpha,
        num_classes=num_classes,
    )
    return {**batch, "image": image, "label": label}


@tf.autograph.experimental.do_not_convert
def make_eval_dataset(
    source: Source,
    split: str = "validation",
    *,
    image_size: int,
    host_batch_size: int,
    crop_padding: int | None = None,
    host_index: int = 0,
    num_hosts: int = 1,
    resize: Literal["bicubic", "bilinear"] = "bicubic",
    on_error: OnError = "fail",
    max_error_fraction: float = 0.001,
    num_parallel_calls: int = tf.data.AUTOTUNE,
    num_threads: int | None = None,
) -> tf.data.Dataset:
    """Return every image of a split once, over all hosts, in batches of one static size.

    All hosts have the same number of batches, `eval_steps`. Rows that hold no image have mask 0.

    Args:
      source: data set to read.
      split: "validation", "minival" or "train".
      image_size: pixels per side of the result.
      host_batch_size: rows per batch on this host.
      crop_padding: see crop.eval_crop.
      host_index: in [0, num_hosts).
      num_hosts: number of hosts that share the split.
      resize: kernel of the resizing.
      on_error: "fail" stops at a broken image; "skip" gives it mask 0.
      max_error_fraction: fraction of the split that may be skipped.
      num_parallel_calls: groups of images decoded at once; changes speed only.
      num_threads: size of a thread pool of this pipeline's own; None shares TensorFlow's.

    Returns:
      Dataset of {"image": uint8 [host_batch_size, S, S, 3], "mask": float32 [host_batch_size], 1 for
      images and 0 for padding} and the parts of `source.target`, as "label": int32
      [host_batch_size].
    """
    examples = source.examples(split)
    _check_host_index(host_index, num_hosts)
    if isinstance(examples, IndexedExamples):
        rows = indexed_once(examples.num_examples, host_index=host_index, num_hosts=num_hosts)
    else:
        rows = sharded_once(
            examples,
            host_index=host_index,
            num_hosts=num_hosts,
            skip_damage=on_error == "skip",
        )
    first, last = host_range(examples.num_examples, host_index, num_hosts)
    steps = eval_steps(examples.num_examples, host_batch_size, num_hosts)
    dataset = decode_batches(
        rows.concatenate(padding(rows, steps * host_batch_size - (last - first))),
        source.info,
        source.target,
        examples,
        lambda encoded, _: crop.eval_crop_uint8(
            encoded, image_size=image_size, crop_padding=crop_padding, resize=resize
        ),
        image_size=image_size,
        host_batch_size=host_batch_size,
        num_parallel_calls=num_parallel_calls,
    )
    if on_error == "skip":
        dataset = count_broken(
            dataset, max_error_fraction=max_error_fraction, num_examples=last - first
        )
    else:
        dataset = stop_at_broken(dataset)
    dataset = dataset.map(partial(_with_mask, source.target)).prefetch(2)
    dataset = dataset.with_options(_options(num_threads))
    return dataset.apply(tf.data.experimental.assert_cardinality(steps))


def eval_steps(num_examples: int, host_batch_size: int, num_hosts: int = 1) -> int:
    """Return the batches that every host needs so that all examples are seen once."""
    largest_share = -(-num_examples // num_hosts)
    return -(-largest_share // host_batch_size)


def _with_mask(target: Target, batch: Row) -> Row:
    counts = (batch["index"] != NO_EXAMPLE) & (batch["problem"] == "")
    kept = {key: batch[key] for key in ("image", *target.batch_spec(1))}
    return {**kept, "mask": tf.cast(counts, tf.float32)}


def resident(examples: Examples, on_error: OnError) -> Examples:
    """Load `examples` into memory if they are small, so that they can be shuffled as a whole."""
    if isinstance(examples, ShardedExamples) and examples.num_bytes <= IN_MEMORY_BYTES:
        return load_into_memory(examples, skip_damage=on_error == "skip")
    return examples


def _by_index(source: Source, examples: Examples) -> IndexedExamples:
    """Return `examples` read by index, so that any machine can make any batch alone."""
    if isinstance(examples, ShardedExamples):
        return index_records(examples)
    if examples.in_memory and examples.num_bytes > MOST_BYTES_SENT:
        raise DatasetError(
            f"{source.info.name}: {examples.num_bytes >> 20} MiB in memory would be sent to every "
            f"worker of data.service; expected at most {MOST_BYTES_SENT >> 20} MiB. "
            "Set data.cache=none"
        )
    return examples


def _check_hosts(source: Source, num_examples: int, host_index: int, num_hosts: int) -> None:
    _check_host_index(host_index, num_hosts)
    if num_examples < num_hosts:
        raise DatasetError(
            f"{source.info.name}: {num_examples} training examples cannot be shared by "
            f"{num_hosts} hosts"
        )


def _check_host_index(host_index: int, num_hosts: int) -> None:
    if not 0 <= host_index < num_hosts:
        raise ValueError(f"host_index {host_index} is not in [0, num_hosts={num_hosts})")


def _options(num_threads: int | None) -> tf.data.Options:
    """Return options for a deterministic order, without automatic sharding: hosts read their parts.

    Each operation uses one thread: images are decoded in parallel already, and splitting the
    operations on one image as well only adds overhead.
    """
    options = tf.data.Options()
    options.deterministic = True
    options.threading.max_intra_op_parallelism = 1
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    if num_threads is not None:
        options.threading.private_threadpool_size = num_threads
    return options
