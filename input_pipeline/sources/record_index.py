"""Read records by their byte offsets, so that record files can be read in any order.

input_pipeline.prepare writes the offsets to record_offsets.json; without that file the headers of all
records are read once, which is quick on a local disk and slow on gs://.
"""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources.dataset_info import record_starts
from input_pipeline.sources.source import IndexedExamples, ShardedExamples
from input_pipeline.targets.target import Features
from system import files

OFFSETS_NAME = "record_offsets.json"
READ_BYTES = 1 << 18  # of one read; most images fit


def index_records(examples: ShardedExamples) -> IndexedExamples:
    """Return the same examples with the same indices, read one by one.

    Raises:
      DatasetError: a file is damaged, or holds another number of records than counted.
    """
    starts = _all_starts(examples.files)
    for path, count, found in zip(examples.files, examples.counts, starts, strict=True):
        if len(found) != count:
            raise DatasetError(
                f"{path}: {len(found)} records, but {count} were counted before; delete "
                "dataset_info.json and record_offsets.json to count them again"
            )
    paths = tf.constant(examples.files)
    ends = tf.cumsum(tf.constant(examples.counts, tf.int64))
    offsets = tf.constant(np.concatenate(starts), tf.int64)

    def file_number(index: tf.Tensor) -> tf.Tensor:
        flat = tf.searchsorted(ends, tf.reshape(index, [-1]), side="right")
        return tf.reshape(flat, tf.shape(index))

    def read(index: tf.Tensor) -> tuple[tf.Tensor, Features]:
        return examples.parse(read_record(paths[file_number(index)], offsets[index]))

    return IndexedExamples(
        num_examples=examples.num_examples,
        num_bytes=examples.num_bytes,
        read=read,
        file=lambda index: tf.gather(paths, file_number(index)),
    )


def read_record(path: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Read the record of a TFRecord file that starts at byte `offset`: string []."""
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=path[tf.newaxis],
        compression_type="",
        buffer_size=READ_BYTES,
        byte_offsets=offset[tf.newaxis],
    )
    records = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
    return records.take(1).get_single_element()


def write_offsets(output: str, starts: Mapping[str, Sequence[int]]) -> None:
    """Write record_offsets.json: by file name, the byte at which each record starts."""
    text = json.dumps(starts, separators=(",", ":"))
    files.write_text(os.path.join(output, OFFSETS_NAME), text)


def _all_starts(files: tuple[str, ...]) -> list[np.ndarray]:
    written = _read_offsets(os.path.dirname(files[0]))
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda path: _starts(path, written), files))


def _read_offsets(folder: str) -> Mapping[str, Sequence[int]]:
    path = os.path.join(folder, OFFSETS_NAME)
    if not tf.io.gfile.exists(path):
        return {}
    try:
        with tf.io.gfile.GFile(path, "r") as file:
            return dict(json.loads(file.read()))
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{path}: unusable ({error}); delete it") from None


def _starts(path: str, written: Mapping[str, Sequence[int]]) -> np.ndarray:
    known = written.get(os.path.basename(path))
    if known is not None:
        return np.array(known, np.int64)
    return np.fromiter(record_starts(path), np.int64)
