"""Describe an error raised while iterating over a data set in one line that names the file."""

import re

import tensorflow as tf

from input_pipeline.errors import DatasetError, plain_message
from input_pipeline.sources.dataset_info import HEADER_BYTES, record_starts
from input_pipeline.sources.source import ShardedExamples, Source


def describe_data_error(error: BaseException, source: Source | None = None) -> str:
    """Return one line about an error raised while iterating over a dataset of this package.

    Args:
      error: the exception.
      source: source of the images; if given, a damaged record file is located and named.
    """
    message = getattr(error, "message", None) or str(error)
    assertion = re.search(r"assertion failed: \[(.*?)\](?:\s|$)", message, re.DOTALL)
    if assertion:
        return assertion.group(1)
    plain = plain_message(message)
    if isinstance(error, tf.errors.DataLossError):
        where = (source and _damaged_record(plain, source)) or "a record file"
        return f"{where}: damaged ({plain}); copy the file again, or set data.on_error=skip"
    if isinstance(error, tf.errors.NotFoundError):
        return f"file not found: {plain}"
    if isinstance(error, tf.errors.OpError):
        return f"cannot read the images: {plain}"
    return plain


def _damaged_record(message: str, source: Source) -> str | None:
    """Return file and record by the offset in a TFRecord error, which does not name the file."""
    offset = re.search(r"record at (\d+)", message)
    if offset is None:
        return None
    for examples in source.splits.values():
        if isinstance(examples, ShardedExamples):
            for path in examples.files:
                record = _record_at(path, int(offset.group(1)))
                if record is not None and not _is_readable(path):
                    return f"{path}, record {record}"
    return None


def _record_at(path: str, offset: int) -> int | None:
    """Return the number of the record whose header or payload starts at `offset`, or None."""
    number = -1
    try:
        for number, start in enumerate(record_starts(path)):
            if offset in (start, start + HEADER_BYTES):
                return number
            if start > offset:
                return None
    except DatasetError:
        return number + 1
    return None


def _is_readable(path: str) -> bool:
    try:
        for _ in tf.data.TFRecordDataset(path):
            pass
    except tf.errors.OpError:
        return False
    return True
