"""Which example comes when: a pure function of the seed and the position in the stream.

A stream is the endless concatenation of epochs; nothing is dropped between them. Because the
position of every example follows from arithmetic, a run resumes at step k without a saved
iterator: whole epochs and whole groups of files are skipped by counting, the rest of one group by
reading past it. The reasons are in docs/decisions/0003-deterministic-input.md.
"""

from dataclasses import dataclass

import tensorflow as tf

from input_pipeline.sources.source import ClassGroups, ShardedExamples

Row = dict[str, tf.Tensor]

ENDLESS = tf.int64.max
PARALLEL_FILES = 8  # files read at once; fixed, because it decides the order
READ_BUFFER_BYTES = 1 << 20  # of each open file
_ORDER = 1  # first of the three numbers that choose a permutation, next to seed and epoch
_CLASS_ORDER = 4 << 48  # random stream that orders the classes; pipeline.py has 1 to 3
EPOCH_STRIDE = 1 << 32  # seed + epoch * EPOCH_STRIDE: one number for each (seed, epoch)


@dataclass(frozen=True)
class Position:
    """Where a host is in the stream of training examples.

    Attributes:
      first_example: place in the stream of all hosts where step 0 begins, after batches of another
        size; a multiple of num_hosts.
      start_step: batches to skip, without decoding them.
      host_index: in [0, num_hosts).
      num_hosts: number of hosts that share an epoch.
    """

    first_example: int = 0
    start_step: int = 0
    host_index: int = 0
    num_hosts: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.host_index < self.num_hosts:
            raise ValueError(
                f"host_index {self.host_index} is not in [0, num_hosts={self.num_hosts})"
            )
        if self.first_example % self.num_hosts:
            raise ValueError(
                f"first_example {self.first_example} is no multiple of num_hosts={self.num_hosts}"
            )

    def first_of_all(self, host_batch_size: int) -> int:
        """Return the place of this host's first example in the stream of all hosts."""
        steps = self.start_step * self.num_hosts + self.host_index
        return self.first_example + steps * host_batch_size

    def first_of_host(self, host_batch_size: int) -> int:
        """Return the place of this host's first example in its own stream."""
        return self.first_example // self.num_hosts + self.start_step * host_batch_size


THE_START = Position()  # of the stream, on a single host


def host_range(num_examples: int, host_index: int, num_hosts: int) -> tuple[int, int]:
    """Return the places [first, last) of an epoch that one host reads; sizes differ by at most 1."""
    return (
        num_examples * host_index // num_hosts,
        num_examples * (host_index + 1) // num_hosts,
    )


def shuffled_index(
    place: tf.Tensor,
    num_examples: int | tf.Tensor,
    seed: int,
    epoch: tf.Tensor,
    *,
    order: int | tf.Tensor = _ORDER,
) -> tf.Tensor:
    """Return the index of the example at `place` of an epoch: a permutation of [0, num_examples).

    Args:
      place: int64 [] or [n], in [0, num_examples).
      num_examples: a number, or int64 [n].
      seed: in [0, 2**31).
      epoch: int64 [] or [n], in [0, 2**31).
      order: chooses between permutations of one seed and epoch: a number, or int64 [n].

    Returns:
      int64, shaped as `place`.
    """
    parts = [
        tf.broadcast_to(tf.convert_to_tensor(part, tf.int64), tf.shape(epoch))
        for part in (order, seed)
    ]
    return tf.raw_ops.RandomIndexShuffle(
        index=place,
        seed=tf.stack([*parts, epoch], axis=-1),
        max_index=tf.convert_to_tensor(num_examples - 1, tf.int64),
        rounds=4,
    )


def indexed_order(
    num_examples: int,
    *,
    seed: int,
    host_batch_size: int,
    position: Position = THE_START,
    classes: ClassGroups | None = None,
) -> tf.data.Dataset:
    """Return the endless training order of indexed examples.

    Step k of all hosts together covers the places first_example + [k*B, (k+1)*B) of the global
    stream, where B = host_batch_size * num_hosts, and host h reads the h-th part of it: the global
    batch is the same for any number of hosts.

    Args:
      num_examples: size of an epoch.
      seed: in [0, 2**31).
      host_batch_size: examples of a step on this host.
      position: the host, and the step to begin at.
      classes: groups to draw from equally often, see `balanced_example`; None shows every example once
        in each epoch.

    Returns:
      Dataset of {"step", "epoch", "index"}, int64 scalars; no two rows have the same epoch and index.
    """

    def rows_of_step(step: tf.Tensor) -> tf.data.Dataset:
        turn = step * position.num_hosts + position.host_index
        first = position.first_example + turn * host_batch_size
        places = first + tf.range(host_batch_size, dtype=tf.int64)
        if classes:
            epoch, index = balanced_example(places, classes, seed)
        else:
            epoch = places // num_examples
            index = shuffled_index(places % num_examples, num_examples, seed, epoch)
        steps = tf.fill([host_batch_size], step)
        return tf.data.Dataset.from_tensor_slices({"step": steps, "epoch": epoch, "index": index})

    return tf.data.Dataset.range(position.start_step, ENDLESS).flat_map(rows_of_step)


def balanced_example(
    places: tf.Tensor, classes: ClassGroups, seed: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the examples at consecutive `places` of a stream that shows all classes equally often.

    With K classes, every K places from a multiple of K on have each class once, in a random order. A class
    shows all of its examples, in a random order, before it shows one again.

    Args:
      places: int64 [n], consecutive, n static.
      classes: examples of each class.
      seed: in [0, 2**31).

    Returns:
      (number of times that the example was shown before, index of the example), int64 [n] each.
    """
    num_classes, n = len(classes.counts), places.shape[0]
    turns = places // num_classes  # a class is drawn once in each turn

    def class_order(turn: tf.Tensor) -> tf.Tensor:
        key = tf.stack([seed + turn * EPOCH_STRIDE, tf.constant(_CLASS_ORDER, tf.int64)])
        draws = tf.random.stateless_uniform([num_classes], seed=key, alg="philox")
        return tf.argsort(draws, stable=True)

    several = turns[0] + tf.range((n - 1) // num_classes + 2, dtype=tf.int64)
    orders = tf.map_fn(class_order, several, fn_output_signature=tf.int32)
    group = tf.gather_nd(orders, tf.stack([turns - turns[0], places % num_classes], -1))
    counts = tf.constant(classes.counts, tf.int64)
    count, start = tf.gather(counts, group), tf.gather(tf.cumsum(counts, exclusive=True), group)
    shown = turns // count
    # Each class has permutations of its own.
    member = shuffled_index(
        turns % count, count, seed, shown, order=_ORDER + 1 + tf.cast(group, tf.int64)
    )
    return shown, tf.gather(tf.constant(classes.members, tf.int64), start + member)


def epoch_slices(
    counts: tf.Tensor, files: tf.Tensor, first: int, last: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Cut the places [first, last) out of the concatenation of `files`.

    Args:
      counts: int64 [F], records of each file.
      files: int64 [F], file numbers in the order of the epoch.
      first, last: a part of [0, sum(counts)).

    Returns:
      (file number, records to skip, records to take), int64 [n], for the files that are touched.
    """
    counts = tf.gather(counts, files)
    ends = tf.cumsum(counts)
    starts = ends - counts
    skip = tf.maximum(starts, first) - starts
    take = tf.minimum(ends, last) - starts - skip
    touched = take > 0
    return files[touched], skip[touched], take[touched]


def sharded_order(
    examples: ShardedExamples,
    *,
    seed: int,
    buffer_bytes: int,
    start: int = 0,
    host_index: int = 0,
    num_hosts: int = 1,
    skip_damage: bool = False,
) -> tf.data.Dataset:
    """Return the endless stream of one host's records, from its position `start` on.

    Each epoch permutes the files and gives host h the h-th part of their concatenation. Files are
    read in groups; a group is shuffled as a whole when it fits into half of `buffer_bytes`, else
    through a buffer of that size. The other half holds what is read ahead while a group drains.

    Args:
      examples: files with known counts, at least one example for each host.
      seed: in [0, 2**31).
      buffer_bytes: bytes of serialized examples held on this host.
      start: examples of this host's stream to skip.
      host_index: in [0, num_hosts).
      num_hosts: number of hosts that share an epoch.
      skip_damage: return an empty record for each one lost in a damaged file, instead of raising
        an error.

    Returns:
      Dataset of {"epoch": int64 [], "index": int64 [], "file": string [], "record": string []}.
    """
    first, last = host_range(examples.num_examples, host_index, num_hosts)
    per_epoch = last - first
    buffer_examples, group_files = _buffer_sizes(examples, buffer_bytes)
    counts = tf.constant(examples.counts, tf.int64)
    start_epoch, start_place = divmod(start, per_epoch)

    def read_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        files = shuffled_index(
            tf.range(len(examples.files), dtype=tf.int64), len(examples.files), seed, epoch
        )
        slices = epoch_slices(counts, files, first, last)
        ends = tf.cumsum(slices[2])
        num_groups = -(-tf.size(ends, tf.int64) // group_files)
        group_ends = tf.gather(
            ends, tf.minimum(tf.range(1, num_groups + 1) * group_files, tf.size(ends, tf.int64)) - 1
        )
        place = tf.where(epoch == start_epoch, tf.constant(start_place, tf.int64), 0)
        first_group = tf.searchsorted(group_ends, place[None], side="right", out_type=tf.int64)[0]
        before = tf.where(first_group > 0, tf.gather(group_ends, tf.maximum(first_group - 1, 0)), 0)

        def read_group(group: tf.Tensor) -> tf.data.Dataset:
            members = tuple(
                part[group * group_files : (group + 1) * group_files] for part in slices
            )
            dataset = _read_slices(examples, members, skip_damage)
            key = tf.random.stateless_uniform(
                [2],
                seed=tf.stack([seed + epoch * EPOCH_STRIDE, group * num_hosts + host_index]),
                minval=None,
                dtype=tf.int64,
                alg="philox",
            )
            dataset = _shuffle(dataset, buffer_examples, key)
            return dataset.skip(tf.where(group == first_group, place - before, 0))

        groups = tf.data.Dataset.range(first_group, num_groups).flat_map(read_group)
        return groups.map(lambda *record: _row(epoch, *record))

    epochs = tf.data.Dataset.range(start_epoch, ENDLESS).flat_map(read_epoch)
    return epochs.prefetch(buffer_examples)


def sharded_once(
    examples: ShardedExamples,
    *,
    host_index: int = 0,
    num_hosts: int = 1,
    skip_damage: bool = False,
) -> tf.data.Dataset:
    """Return one host's part of all examples, once, unshuffled; rows are those of sharded_order."""
    counts = tf.constant(examples.counts, tf.int64)
    files = tf.range(len(examples.files), dtype=tf.int64)
    first, last = host_range(examples.num_examples, host_index, num_hosts)
    slices = epoch_slices(counts, files, first, last)
    return _read_slices(examples, slices, skip_damage).map(
        lambda *record: _row(tf.constant(0, tf.int64), *record)
    )


def sharded_sample(
    examples: ShardedExamples, limit: int, *, num_files: int = 16
) -> tf.data.Dataset:
    """Return about `limit` records from the starts of evenly spread files; damage is skipped."""
    total = len(examples.files)
    chosen = sorted({total * n // min(num_files, total) for n in range(min(num_files, total))})
    each = -(-limit // len(chosen))
    takes = [min(each, examples.counts[number]) for number in chosen]
    slices = tuple(tf.constant(part, tf.int64) for part in (chosen, [0] * len(chosen), takes))
    return _read_slices(examples, slices, skip_damage=True).map(
        lambda *record: _row(tf.constant(0, tf.int64), *record)
    )


def indexed_once(num_examples: int, *, host_index: int = 0, num_hosts: int = 1) -> tf.data.Dataset:
    """Return one host's part of all examples, once, unshuffled: {"epoch", "index"}, int64 scalars."""
    first, last = host_range(num_examples, host_index, num_hosts)
    return tf.data.Dataset.range(first, last).map(
        lambda index: {"epoch": tf.constant(0, tf.int64), "index": index}
    )


def _row(epoch: tf.Tensor, index: tf.Tensor, file: tf.Tensor, record: tf.Tensor) -> Row:
    return {"epoch": epoch, "index": index, "file": file, "record": record}


def _buffer_sizes(examples: ShardedExamples, buffer_bytes: int) -> tuple[int, int]:
    """Return the examples in half of the buffer, and the files of a group: what fits, at least 8."""
    mean_bytes = max(1, examples.num_bytes // examples.num_examples)
    buffer_examples = max(1, buffer_bytes // 2 // mean_bytes)
    mean_count = max(1, -(-examples.num_examples // len(examples.files)))
    return buffer_examples, max(PARALLEL_FILES, buffer_examples // mean_count)


def _read_slices(
    examples: ShardedExamples, slices: tuple[tf.Tensor, tf.Tensor, tf.Tensor], skip_damage: bool
) -> tf.data.Dataset:
    """Read the records of (file number, skip, take), several files at once, in one fixed order."""
    paths, counts = tf.constant(examples.files), tf.constant(examples.counts, tf.int64)
    offsets = tf.cumsum(counts, exclusive=True)

    def read_slice(number: tf.Tensor, skip: tf.Tensor, take: tf.Tensor) -> tf.data.Dataset:
        path, offset = paths[number], offsets[number]
        records = _read_padded(path, counts[number]) if skip_damage else _read_file(path)
        return (
            records.enumerate()
            .skip(skip)
            .take(take)
            .map(lambda place, record: (offset + place, path, record))
        )

    return tf.data.Dataset.from_tensor_slices(slices).interleave(
        read_slice,
        cycle_length=PARALLEL_FILES,
        num_parallel_calls=PARALLEL_FILES,
        deterministic=True,
    )


def _read_file(paths: tf.Tensor) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(paths, buffer_size=READ_BUFFER_BYTES)


def _read_padded(path: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
    """Return `count` records of a file that may be damaged or missing; lost ones are "".

    ignore_errors would try to open a missing file for ever; matching_files leaves it out.
    """
    records = _read_file(tf.io.matching_files(_escape_pattern(path))).ignore_errors(
        log_warning=True
    )
    lost = tf.data.Dataset.from_tensors("").repeat(count)
    return records.concatenate(lost).take(count)


def _escape_pattern(path: tf.Tensor) -> tf.Tensor:
    """Return the glob pattern that matches `path` alone, whatever characters it contains."""
    return tf.strings.regex_replace(path, r"([*?\[\]\\])", r"\\\1")


def _shuffle(dataset: tf.data.Dataset, buffer_size: int, key: tf.Tensor) -> tf.data.Dataset:
    """Shuffle `dataset` through a buffer, in an order that depends on `key` (int64 [2]) alone.

    Dataset.shuffle would mix in the global seed of tf.random.set_seed.
    """
    spec = dataset.element_spec
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(dataset),
        buffer_size=buffer_size,
        seed=key[0],
        seed2=key[1],
        output_types=[part.dtype for part in spec],
        output_shapes=[part.shape for part in spec],
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(variant, spec)
