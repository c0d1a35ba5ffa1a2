"""From a source to batches: deterministic, resumable at any step, every example counted.

Training images come as uint8 and are normalised on the device, so that a quarter of the bytes
travel. Every random choice follows from (seed, epoch, index of the example): neither threads,
hosts, workers nor restarts change a pixel. See order.py for which example comes when, decode.py
for what happens to a broken one.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import tensorflow as tf

from input_pipeline.augment import mixing
from input_pipeline.augment.published_mixing import mix_reversed
from input_pipeline.data_service import from_service
from input_pipeline.errors import DatasetError
from input_pipeline.images.view import EvalView, Shown, TrainView
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
    THE_START,
    Position,
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
    "Position",
    "Reading",
    "describe_data_error",
    "eval_steps",
    "make_eval_dataset",
    "make_train_dataset",
    "show_train",
    "train_rows",
]

# Splits up to this size are read once and kept, encoded, so that they can be shuffled as a whole.
IN_MEMORY_BYTES = 64 << 20
MOST_BYTES_SENT = 256 << 20  # images in memory that go with the pipeline to service workers
DEFAULT_SHUFFLE_BUFFER_MIB = 1024.0

# Which random stream of an example a choice draws from; above the bits of any index or position.
CROP, AUGMENT, _MIX = 1 << 48, 2 << 48, 3 << 48


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the images of a split are read.

    Attributes:
      on_error: "fail" stops at a broken image, naming file and example; "skip" puts another image of
        the batch in its place in training, and gives it mask 0 in evaluation.
      max_error_fraction: fraction of an epoch's examples, rounded down, that "skip" may skip in an epoch;
        training may always skip one. Beyond it the iteration fails.
      shuffle_buffer_mib: in training, MiB of encoded images held for shuffling and reading ahead, when
        the split is larger than IN_MEMORY_BYTES.
      service: in training, grpc://HOST:PORT of a data service whose workers decode the images. Records
        are then read one by one, in another order than without it; see data_service.py.
      num_parallel_calls: groups of images decoded at once; changes speed only.
      num_threads: size of a thread pool of this pipeline's own; None shares TensorFlow's.
    """

    on_error: OnError = "fail"
    max_error_fraction: float = 0.001
    shuffle_buffer_mib: float = DEFAULT_SHUFFLE_BUFFER_MIB
    service: str | None = None
    num_parallel_calls: int = tf.data.AUTOTUNE
    num_threads: int | None = None

    def options(self) -> tf.data.Options:
        """Return options for a deterministic order, without automatic sharding: hosts read their parts.

        Each operation uses one thread: images are decoded in parallel already, and splitting the
        operations on one image as well only adds overhead.
        """
        options = tf.data.Options()
        options.deterministic = True
        options.threading.max_intra_op_parallelism = 1
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        if self.num_threads is not None:
            options.threading.private_threadpool_size = self.num_threads
        return options


AS_USUAL = Reading()


# No function here needs AutoGraph, whose conversion takes seconds of a program's start.
@tf.autograph.experimental.do_not_convert
def make_train_dataset(
    source: Source,
    view: TrainView,
    *,
    host_batch_size: int,
    seed: int,
    position: Position = THE_START,
    reading: Reading = AS_USUAL,
) -> tf.data.Dataset:
    """Endless batches of cropped and augmented training images of one host.

    The stream is a pure function of (source, seed, position, host_batch_size), and a later
    `position.start_step` continues it exactly where an uninterrupted stream is after as many batches.
    Every epoch shows every image once, unless the examples have `classes`; batches straddle epochs.

    Args:
      source: its split "train" is read.
      view: makes the network's input of an image.
      host_batch_size: examples per step on this host; global_batch_size / position.num_hosts.
      seed: in [0, 2**31).
      position: the host, and the step to begin at.
      reading: errors, buffers and threads.

    Returns:
      Dataset of {"image": uint8 [host_batch_size, H, W, 3], "index": int32 [host_batch_size], the
      example's number within the split} and the parts of `source.target`, as "label": int32
      [host_batch_size] in [0, num_classes). With mixup or cutmix "label" is float32
      [host_batch_size, num_classes], the shares of the classes. If the framing pads, "valid" is int32
      [host_batch_size, 2], height and width of what is not padding.

    Raises:
      DatasetError: no such split, or fewer examples than hosts. While iterating, tf.errors.OpError,
      which describe_data_error turns into one line.
    """
    skips = reading.on_error == "skip"
    examples = resident(source.examples("train"), reading.on_error)
    if reading.service is not None:
        examples = _by_index(source, examples)
    _check_enough(source, examples.num_examples, position.num_hosts)

    def batches(first_step: int) -> tf.data.Dataset:
        rows = train_rows(
            examples,
            seed=seed,
            host_batch_size=host_batch_size,
            position=dataclasses.replace(position, start_step=first_step),
            shuffle_buffer_mib=reading.shuffle_buffer_mib,
            skip_damage=skips,
        )
        decoded = decode_batches(
            rows,
            source.info,
            source.target,
            examples,
            lambda encoded, row: show_train(encoded, row, view, seed=seed),
            view=view,
            host_batch_size=host_batch_size,
            num_parallel_calls=reading.num_parallel_calls,
        )
        return decoded.with_options(reading.options())

    if reading.service is not None:
        dataset = from_service(batches, address=reading.service, start_step=position.start_step)
    else:
        dataset = batches(position.start_step)
    if skips:
        per_epoch = -(-examples.num_examples // position.num_hosts)
        dataset = replace_broken(
            count_broken(
                dataset,
                max_error_fraction=reading.max_error_fraction,
                num_examples=per_epoch,
                at_least=1,
                start=position.first_of_host(host_batch_size) % per_epoch,
            )
        )
    else:
        dataset = stop_at_broken(dataset)
    dataset = dataset.map(_without("problem", "step"))
    if view.mixes:
        starts = tf.data.Dataset.range(
            position.first_of_all(host_batch_size), ENDLESS, position.num_hosts * host_batch_size
        )
        mix = partial(
            mix_batch,
            seed=seed,
            view=view,
            target=source.target,
            num_classes=source.info.num_classes,
        )
        dataset = tf.data.Dataset.zip(starts, dataset).map(
            mix, num_parallel_calls=reading.num_parallel_calls, deterministic=True
        )
    return dataset.prefetch(2).with_options(reading.options())


def train_rows(
    examples: Examples,
    *,
    seed: int,
    host_batch_size: int,
    position: Position = THE_START,
    shuffle_buffer_mib: float = DEFAULT_SHUFFLE_BUFFER_MIB,
    skip_damage: bool = False,
) -> tf.data.Dataset:
    """Return the rows that one host trains on, in order, not yet read or decoded; see order.py."""
    if isinstance(examples, IndexedExamples):
        return indexed_order(
            examples.num_examples,
            seed=seed,
            host_batch_size=host_batch_size,
            position=position,
            classes=examples.classes,
        )
    return sharded_order(
        examples,
        seed=seed,
        buffer_bytes=int(shuffle_buffer_mib * (1 << 20)),
        start=position.first_of_host(host_batch_size),
        host_index=position.host_index,
        num_hosts=position.num_hosts,
        skip_damage=skip_damage,
    )


def show_train(encoded: tf.Tensor, row: Row, view: TrainView, *, seed: int) -> Shown:
    """Make the training view of one encoded image, without its padding.

    All random choices depend on `seed`, row["epoch"] and row["index"] alone.
    """
    return view.show(encoded, seed_of_choice(seed, row, CROP), seed_of_choice(seed, row, AUGMENT))


def seed_of_choice(seed: int, row: Row, choice: int) -> tf.Tensor:
    """Return the seed, int64 [2], of a random choice about one example; `choice`: CROP or AUGMENT."""
    return tf.stack([seed + row["epoch"] * EPOCH_STRIDE, row["index"] + choice])


def mix_batch(
    start: tf.Tensor, batch: Row, *, seed: int, view: TrainView, target: Target, num_classes: int
) -> Row:
    """Mix the images of a training batch, and return "label" as float32 [b, num_classes].

    The choices depend on `seed` and the place of each image in the stream of all hosts; `start`,
    int64 [], is the place of the first one.
    """
    places = start + tf.range(batch["image"].shape[0], dtype=tf.int64)
    mix = {"neighbours": mixing.mix, "reversed": mix_reversed}[view.pairing]
    image, label = mix(
        batch["image"],
        target.shares(batch.get("label"), num_classes),
        tf.stack([tf.fill(tf.shape(places), tf.constant(seed, tf.int64)), places + _MIX], axis=1),
        mixup_alpha=view.mixup_alpha,
        cutmix_alpha=view.cutmix_alpha,
        num_classes=num_classes,
    )
    return {**batch, "image": image, "label": label}


@tf.autograph.experimental.do_not_convert
def make_eval_dataset(
    source: Source,
    view: EvalView,
    split: str = "validation",
    *,
    host_batch_size: int,
    position: Position = THE_START,
    reading: Reading = AS_USUAL,
) -> tf.data.Dataset:
    """Return every image of a split once, over all hosts, in batches of one static size.

    All hosts have the same number of batches, `eval_steps`. Rows that hold no image have mask 0.

    Args:
      source: data set to read.
      view: makes the network's input of an image.
      split: "validation", "minival" or "train".
      host_batch_size: rows per batch on this host.
      position: the host; an evaluation begins at its first step.
      reading: errors and threads.

    Returns:
      Dataset of {"image": uint8 [host_batch_size, H, W, 3], "mask": float32 [host_batch_size], 1 for
      images and 0 for padding} and the parts of `source.target`, as "label": int32
      [host_batch_size]. If the framing pads, "valid" is int32 [host_batch_size, 2], height and width of
      what is not padding in each image.
    """
    examples = source.examples(split)
    host_index, num_hosts = position.host_index, position.num_hosts
    if isinstance(examples, IndexedExamples):
        rows = indexed_once(examples.num_examples, host_index=host_index, num_hosts=num_hosts)
    else:
        rows = sharded_once(
            examples,
            host_index=host_index,
            num_hosts=num_hosts,
            skip_damage=reading.on_error == "skip",
        )
    first, last = host_range(examples.num_examples, host_index, num_hosts)
    steps = eval_steps(examples.num_examples, host_batch_size, num_hosts)
    dataset = decode_batches(
        rows.concatenate(padding(rows, steps * host_batch_size - (last - first))),
        source.info,
        source.target,
        examples,
        lambda encoded, _: view.show(encoded),
        view=view,
        host_batch_size=host_batch_size,
        num_parallel_calls=reading.num_parallel_calls,
    )
    if reading.on_error == "skip":
        dataset = count_broken(
            dataset, max_error_fraction=reading.max_error_fraction, num_examples=last - first
        )
    else:
        dataset = stop_at_broken(dataset)
    dataset = dataset.map(_with_mask).prefetch(2).with_options(reading.options())
    return dataset.apply(tf.data.experimental.assert_cardinality(steps))


def eval_steps(num_examples: int, host_batch_size: int, num_hosts: int = 1) -> int:
    """Return the batches that every host needs so that all examples are seen once."""
    largest_share = -(-num_examples // num_hosts)
    return -(-largest_share // host_batch_size)


def _with_mask(batch: Row) -> Row:
    counts = (batch["index"] != NO_EXAMPLE) & (batch["problem"] == "")
    return {**_without("problem", "index")(batch), "mask": tf.cast(counts, tf.float32)}


def _without(*keys: str) -> Callable[[Row], Row]:
    return lambda batch: {key: part for key, part in batch.items() if key not in keys}


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


def _check_enough(source: Source, num_examples: int, num_hosts: int) -> None:
    if num_examples < num_hosts:
        raise DatasetError(
            f"{source.info.name}: {num_examples} training examples cannot be shared by "
            f"{num_hosts} hosts"
        )
