"""Cache encoded images in memory or on a local disk.

The cache holds encoded images, so every epoch still crops and augments them differently. It is filled
before the first step, and refused before that if it cannot fit.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DatasetError, plain_message
from input_pipeline.sources.source import Examples, IndexedExamples, ShardedExamples, Source
from input_pipeline.stream.order import PARALLEL_FILES, sharded_once
from input_pipeline.targets.target import Features
from system.files import replacing
from system.memory import available_memory_bytes

Cache = Literal["none", "memory", "disk"]

EXAMPLE_OVERHEAD_BYTES = 64  # of an image in memory: its string's header, allocation and position
MEMORY_SHARE = 0.8  # of the free memory that a cache may use
GIB = 1 << 30


def cache_source(
    source: Source,
    cache: Cache,
    cache_dir: str | None = None,
    splits: Sequence[str] = ("train", "validation", "minival"),
    skip_damage: bool = False,
) -> Source:
    """Return `source` with its encoded images in memory or on a local disk.

    Args:
      source: data set to cache.
      cache: "memory" loads whole splits: random access, so every epoch is shuffled as a whole; every
        host holds all of a split. "disk" copies record files to `cache_dir` once; they are read
        from there in this run and in later ones.
      cache_dir: folder on a local disk, for "disk".
      splits: those to cache, if the source has them.
      skip_damage: see load_into_memory.

    Raises:
      DatasetError: the cache does not fit, or this source cannot be cached in this way.
    """
    if cache == "none":
        return source
    cached: dict[str, Examples]
    chosen = {name: source.splits[name] for name in splits if name in source.splits}
    if cache == "memory":
        need = sum(memory_needed(examples) for examples in chosen.values())
        check_fits(need, available_memory_bytes(), f"{source.info.name}: cache=memory")
        cached = {
            name: load_into_memory(examples, skip_damage=skip_damage)
            for name, examples in chosen.items()
        }
    else:
        cached = _copy_splits(source, chosen, cache_dir)
    return replace(source, splits={**source.splits, **cached})


def memory_needed(examples: Examples) -> int:
    """Return the bytes that the encoded images of a split take in memory."""
    return examples.num_bytes + examples.num_examples * EXAMPLE_OVERHEAD_BYTES


def check_fits(need: int, available: int, what: str) -> None:
    """Raise DatasetError with the sizes in GiB when `need` is more than its share of `available`."""
    if need > MEMORY_SHARE * available:
        raise DatasetError(
            f"{what} needs {need / GIB:.1f} GiB of memory, {available / GIB:.1f} GiB are free "
            f"({MEMORY_SHARE:.0%} of it may be used); use data.cache=disk or none"
        )


def load_into_memory(examples: Examples, *, skip_damage: bool = False) -> IndexedExamples:
    """Read every example now, so that they can be read in any order.

    Args:
      examples: what to read; its encoded images must fit.
      skip_damage: return an empty record for each one lost in a damaged file.

    Raises:
      DatasetError: a file cannot be read, or holds fewer records than were counted.
    """
    if isinstance(examples, IndexedExamples):
        return examples if examples.in_memory else _load_indexed(examples)
    return _load_sharded(examples, skip_damage)


def _load_indexed(examples: IndexedExamples) -> IndexedExamples:
    images = tf.data.Dataset.range(examples.num_examples).map(
        examples.read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    try:
        # Images have different numbers of labels.
        encoded, features = images.ragged_batch(examples.num_examples).get_single_element()
    except tf.errors.OpError as error:
        raise DatasetError(f"cannot read an image: {plain_message(error.message)}") from None

    def read(index: tf.Tensor) -> tuple[tf.Tensor, Features]:
        return encoded[index], {name: values[index] for name, values in features.items()}

    return replace(examples, read=read, in_memory=True)


def _load_sharded(examples: ShardedExamples, skip_damage: bool) -> IndexedExamples:
    """Load all records into one tensor in reading order, and find the place of each index in it.

    tf.data fills the tensor: Python never holds the records, and none is copied twice.
    """
    rows = sharded_once(examples, skip_damage=skip_damage).map(
        lambda row: (row["index"], row["record"])
    )
    total = examples.num_examples
    try:
        with tf.device("CPU"):
            index, records = rows.batch(total + 1).get_single_element()
    except tf.errors.OpError as error:
        raise DatasetError(_name_damage(examples, error)) from None
    files = np.repeat(np.arange(len(examples.files)), examples.counts)
    places = np.full(total, -1, np.int64)
    places[index.numpy()] = np.arange(len(index))
    if (places < 0).any():
        path = examples.files[files[places < 0][0]]
        raise DatasetError(
            f"{path}: fewer records than were counted before; delete dataset_info.json to "
            "count them again"
        )
    with tf.device("CPU"):
        place_of, file_of = tf.constant(places), tf.constant(files, tf.int32)
        paths = tf.constant(examples.files)
    return IndexedExamples(
        num_examples=total,
        num_bytes=examples.num_bytes,
        read=lambda index: examples.parse(records[place_of[index]]),
        file=lambda index: tf.gather(paths, tf.gather(file_of, index)),
        in_memory=True,
    )


def _name_damage(examples: ShardedExamples, error: tf.errors.OpError) -> str:
    """Describe the first damaged file and record: TensorFlow's error holds only the byte."""
    for path in examples.files:
        count = 0
        try:
            for _ in tf.data.TFRecordDataset(path):
                count += 1
        except tf.errors.OpError as found:
            return f"{path}, record {count}: damaged ({plain_message(found.message)})"
    return f"cannot read the records: {plain_message(error.message)}"


def _copy_splits(
    source: Source, splits: dict[str, Examples], cache_dir: str | None
) -> dict[str, Examples]:
    if cache_dir is None:
        raise DatasetError("data.cache=disk needs data.cache_dir, a folder on a local disk")
    cached: dict[str, Examples] = {}
    for name, examples in splits.items():
        if not isinstance(examples, ShardedExamples):
            raise DatasetError(
                f"{source.info.name}: data.cache=disk copies record files, but this source has none; "
                "use data.cache=memory, or write records with input_pipeline.prepare"
            )
        copies = tuple(_cached_path(path, cache_dir) for path in examples.files)
        _copy_files(examples.files, copies, source.info.name)
        cached[name] = replace(examples, files=copies)
    return cached


def _cached_path(path: str, cache_dir: str) -> str:
    """Return the path of the copy of `path`, in a folder per data set: names may be equal."""
    folder = hashlib.sha256(os.path.dirname(path).encode()).hexdigest()[:16]
    return os.path.join(cache_dir, folder, os.path.basename(path))


def _copy_files(files: Sequence[str], copies: Sequence[str], what: str) -> None:
    """Copy the files that are missing or incomplete, each atomically."""
    with ThreadPoolExecutor(2 * PARALLEL_FILES) as pool:
        sizes = list(pool.map(lambda path: tf.io.gfile.stat(path).length, files))
        missing = [
            (path, copy, size)
            for path, copy, size in zip(files, copies, sizes, strict=True)
            if not os.path.exists(copy) or os.path.getsize(copy) != size
        ]
        if not missing:
            return
        folder = os.path.dirname(copies[0])
        os.makedirs(folder, exist_ok=True)
        need, free = sum(size for _, _, size in missing), shutil.disk_usage(folder).free
        if need > free:
            raise DatasetError(
                f"{what}: cache=disk needs {need / GIB:.1f} GiB more in {folder}, "
                f"{free / GIB:.1f} GiB are free; use another data.cache_dir"
            )

        def copy_file(task: tuple[str, str, int]) -> None:
            path, copy, _ = task
            with replacing(copy) as temporary:
                tf.io.gfile.copy(path, temporary)

        for _ in pool.map(copy_file, missing):
            pass
