"""An error met while iterating over a data set, told in one line that names the culprit."""

import re

import tensorflow as tf

from input_pipeline.errors import DatasetError, plain_message
from input_pipeline.sources.dataset_info import HEADER_BYTES, record_starts
from input_pipeline.sources.source import ShardedExamples, Source


def explain_error(error: BaseException, source: Source | None = None) -> str:
    """One clear line about an error met while iterating over a dataset of this package.

    Args:
      error: what was raised.
      source: where the images come from; with it a damaged record file is found and named.
    """
    message = getattr(error, "message", None) or str(error)
    said = re.search(r"assertion failed: \[(.*?)\](?:\s|$)", message, re.DOTALL)
    if said:
        return said.group(1)
    plain = plain_message(message)
    if isinstance(error, tf.errors.DataLossError):
        where = (source and _damaged_record(plain, source)) or "a record file"
        return f"{where}: damaged ({plain}); copy the file again, or set data.on_error=skip"
    if isinstance(error, tf.errors.NotFoundError):
        return f"a file has gone: {plain}"
    if isinstance(error, tf.errors.OpError):
        return f"the images cannot be read: {plain}"
    return plain


def _damaged_record(message: str, source: Source) -> str | None:
    """File and record, from the offset that TFRecord errors tell; they do not tell the file."""
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
    """The number of the record whose header or payload starts at `offset`, if there is one."""
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
