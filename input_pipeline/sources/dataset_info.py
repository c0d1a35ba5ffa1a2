"""Describe a data set in dataset_info.json: splits, shards, exact counts and class names.

The file is in the folder of the records, so users need not pass the number of training images.
Records without it are counted once, by their headers.
"""

import json
import os
import re
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import tensorflow as tf

from input_pipeline.errors import DatasetError
from system import files
from system.console import log

FILE_NAME = "dataset_info.json"
FORMAT_VERSION = 1
IMAGENET_TRAIN_SHARDS = 1024
IMAGENET_CLASSES = 1000
SHARD_NAME = re.compile(r"(train|validation)-(\d{5})-of-(\d{5})")

# A TFRecord is: uint64 payload length, uint32 CRC of it, payload, uint32 CRC of the payload.
HEADER_BYTES = 12
_FOOTER_BYTES = 4
RECORD_OVERHEAD_BYTES = HEADER_BYTES + _FOOTER_BYTES


@dataclass(frozen=True)
class ShardInfo:
    """One record file: its name (without folder), examples in it, and size."""

    file: str
    num_examples: int
    num_bytes: int
    checksum: str | None = None  # "sha256:..." of the whole file


@dataclass(frozen=True)
class SplitInfo:
    """One split. `shards` is empty when the images do not come from record files."""

    num_examples: int
    shards: tuple[ShardInfo, ...] = ()
    class_counts: tuple[int, ...] | None = None  # examples of class 0, 1, ...
    image_sizes: Mapping[str, Any] | None = None  # quantiles of height, width and encoded bytes

    @property
    def num_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.num_bytes for shard in self.shards)


@dataclass(frozen=True)
class DatasetInfo:
    """A data set: what its labels mean and how many examples each split has.

    `label_offset` is added to the class index in records: ImageNet's records hold 1..N, the pipeline
    returns 0..N-1.
    """

    name: str
    num_classes: int
    class_names: tuple[str, ...] | None = None
    splits: Mapping[str, SplitInfo] = field(default_factory=dict)
    label_offset: int = 1

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise DatasetError(
                f"{self.name}: num_classes is {self.num_classes}; expected at least 1"
            )
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise DatasetError(
                f"{self.name}: {len(self.class_names)} class names for {self.num_classes} classes"
            )
        for split, info in self.splits.items():
            in_shards = sum(shard.num_examples for shard in info.shards)
            if info.shards and in_shards != info.num_examples:
                raise DatasetError(
                    f"{self.name}: split {split} has num_examples={info.num_examples}, but its "
                    f"shards hold {in_shards}"
                )

    @property
    def shown_names(self) -> tuple[str, ...]:
        """The names of the classes, or their numbers from 0; for people."""
        return self.class_names or tuple(map(str, range(self.num_classes)))


def write_dataset_info(info: DatasetInfo, data_dir: str) -> None:
    """Write `info` as data_dir/dataset_info.json, atomically."""
    content = {"format_version": FORMAT_VERSION, **_without_none(asdict(info))}
    path = os.path.join(data_dir, FILE_NAME)
    files.write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_dataset_info(data_dir: str) -> DatasetInfo:
    """Read data_dir/dataset_info.json.

    Raises:
      DatasetError: the file is missing, is not JSON, or lacks a key.
    """
    path = os.path.join(data_dir, FILE_NAME)
    try:
        with tf.io.gfile.GFile(path, "r") as file:
            content = json.loads(file.read())
    except tf.errors.NotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path}: not valid JSON ({error}); delete it to count the records again"
        ) from None
    try:
        return _from_json(content)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DatasetError(
            f"{path}: unusable ({type(error).__name__}: {error}); "
            "delete it to count the records again"
        ) from None


def find_dataset_info(
    data_dir: str, *, num_classes: int | None = None, skip_damage: bool = False
) -> DatasetInfo:
    """Read the description of the records in `data_dir`, or count them and save it.

    Args:
      data_dir: folder (local or gs://) with train-00000-of-N and validation-00000-of-N files.
      num_classes: for records without dataset_info.json; 1024 training shards mean ImageNet's
        1000 classes.
      skip_damage: only warn of shards that are not as dataset_info.json describes them.

    Raises:
      DatasetError: no such folder, no records in it, a missing or changed shard, or an unknown
        number of classes.
    """
    if not tf.io.gfile.isdir(data_dir):
        raise DatasetError(f"{data_dir}: no such folder; data_dir must hold TFRecord files")
    if tf.io.gfile.exists(os.path.join(data_dir, FILE_NAME)):
        info = read_dataset_info(data_dir)
        try:
            check_shards(info, data_dir)
        except DatasetError as error:
            if not skip_damage:
                raise
            log(str(error))
        return info
    info = count_records(data_dir, num_classes=num_classes)
    try:
        write_dataset_info(info, data_dir)
    except (tf.errors.OpError, OSError):
        log(f"{data_dir}: not writable; its records will be counted at every start")
    return info


def count_records(data_dir: str, *, num_classes: int | None = None) -> DatasetInfo:
    """Describe the records in `data_dir` by counting them, without reading a payload."""
    names = _shard_names(data_dir)
    if num_classes is None:
        if len(names.get("train", ())) != IMAGENET_TRAIN_SHARDS:
            raise DatasetError(
                f"{data_dir}: without {FILE_NAME} the number of classes is unknown; set "
                "model.num_classes, or write the records with input_pipeline.prepare"
            )
        num_classes = IMAGENET_CLASSES
    splits = {}
    with ThreadPoolExecutor(16) as pool:
        for split, files in names.items():
            shards = tuple(pool.map(lambda name: _count_shard(data_dir, name), files))
            splits[split] = SplitInfo(sum(shard.num_examples for shard in shards), shards)
    name = os.path.basename(os.path.normpath(data_dir))
    return DatasetInfo(name=name, num_classes=num_classes, splits=splits)


def count_tfrecords(path: str) -> int:
    """Return the number of records in a TFRecord file by its headers; raises as record_starts."""
    return sum(1 for _ in record_starts(path))


def record_starts(path: str) -> Iterator[int]:
    """Yield the byte at which each record of a TFRecord file starts, without reading payloads.

    Raises:
      DatasetError: the file ends inside a record.
    """
    size = tf.io.gfile.stat(path).length
    position = count = 0
    with tf.io.gfile.GFile(path, "rb") as file:
        while position < size:
            file.seek(position)
            header = file.read(HEADER_BYTES)
            start = position
            if len(header) == HEADER_BYTES:
                position += HEADER_BYTES + struct.unpack("<Q", header[:8])[0] + _FOOTER_BYTES
            if len(header) < HEADER_BYTES or position > size:
                raise DatasetError(f"{path}: truncated or damaged at record {count}; copy it again")
            yield start
            count += 1


def check_shards(info: DatasetInfo, data_dir: str) -> None:
    """Raise DatasetError when a shard is missing or its size differs from `info`."""
    with ThreadPoolExecutor(16) as pool:
        for split in info.splits.values():
            for _ in pool.map(lambda shard: _check_shard(data_dir, shard), split.shards):
                pass


def _check_shard(data_dir: str, shard: ShardInfo) -> None:
    path = os.path.join(data_dir, shard.file)
    try:
        size = tf.io.gfile.stat(path).length
    except tf.errors.NotFoundError:
        raise DatasetError(f"{path}: missing, but listed in {FILE_NAME}") from None
    if size != shard.num_bytes:
        raise DatasetError(
            f"{path}: {size} bytes, but {shard.num_bytes} in {FILE_NAME}; copy it again, or delete "
            f"{FILE_NAME} to count the records again"
        )


def _shard_names(data_dir: str) -> dict[str, list[str]]:
    """Return the record files by split, in order; raise DatasetError if one is missing."""
    matches = [SHARD_NAME.fullmatch(name) for name in tf.io.gfile.listdir(data_dir)]
    found = sorted(match.groups() for match in matches if match)
    if not found:
        raise DatasetError(
            f"{data_dir}: no train-00000-of-N or validation-00000-of-N TFRecord files and no "
            f"{FILE_NAME}; input_pipeline.prepare writes both. To read image files as they are, set "
            "data.source, such as data.source=image_folder"
        )
    names: dict[str, list[str]] = {}
    for split in sorted({split for split, _, _ in found}):
        totals = {total for name, _, total in found if name == split}
        if len(totals) > 1:
            raise DatasetError(
                f"{data_dir}: {split} files of {' and of '.join(sorted(totals))} shards; keep one set"
            )
        total = totals.pop()
        here = {number for name, number, _ in found if name == split}
        missing = [n for n in range(int(total)) if f"{n:05d}" not in here]
        if missing:
            raise DatasetError(
                f"{data_dir}: {split}-{missing[0]:05d}-of-{total} is missing "
                f"({len(missing)} of {int(total)} {split} shards are)"
            )
        names[split] = [f"{split}-{n:05d}-of-{total}" for n in range(int(total))]
    return names


def _count_shard(data_dir: str, name: str) -> ShardInfo:
    path = os.path.join(data_dir, name)
    return ShardInfo(name, count_tfrecords(path), tf.io.gfile.stat(path).length)


def _from_json(content: dict[str, Any]) -> DatasetInfo:
    version = content["format_version"]
    if version != FORMAT_VERSION:
        raise DatasetError(f"format_version is {version}; expected {FORMAT_VERSION}")
    splits = {}
    for name, split in content["splits"].items():
        shards = tuple(
            ShardInfo(
                str(shard["file"]),
                int(shard["num_examples"]),
                int(shard["num_bytes"]),
                shard.get("checksum"),
            )
            for shard in split.get("shards", ())
        )
        counts = split.get("class_counts")
        splits[name] = SplitInfo(
            int(split["num_examples"]),
            shards,
            None if counts is None else tuple(int(count) for count in counts),
            split.get("image_sizes"),
        )
    class_names = content.get("class_names")
    return DatasetInfo(
        name=str(content["name"]),
        num_classes=int(content["num_classes"]),
        class_names=None if class_names is None else tuple(str(name) for name in class_names),
        splits=splits,
        label_offset=int(content["label_offset"]),
    )


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
