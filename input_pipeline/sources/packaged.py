"""Small data sets that ship inside packages, written once in ImageNet's format.

They are read exactly as ImageNet is: TFRecords of encoded images, labels from 1.
"""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources import records
from input_pipeline.sources.dataset_info import (
    FILE_NAME,
    DatasetInfo,
    ShardInfo,
    SplitInfo,
    check_shards,
    read_dataset_info,
    write_dataset_info,
)
from input_pipeline.sources.source import Source, SourceRequest, sharded_examples

NUM_SHARDS = {"train": 8, "validation": 2}
# Files that an interrupted `write` leaves: shards, and the temporary file of `system.files.replacing`.
OWN_FILE = re.compile(
    rf"({'|'.join(f'{split}-[0-9]{{5}}-of-{total:05d}' for split, total in NUM_SHARDS.items())}"
    rf"|{re.escape(FILE_NAME)}|[0-9a-f]{{16}}\.tmp)"
)


class Picture(NamedTuple):
    """A picture: uint8 [height, width, 3], its class from 0, and its name without a suffix."""

    pixels: np.ndarray
    label: int
    name: str


@dataclass(frozen=True)
class PackagedSet:
    """A data set inside a package.

    Attributes:
      name: of the data set, and of its folder under data/.
      class_names: in the order of the labels.
      read: returns the pictures of each split of `NUM_SHARDS`, in the order of the records.
    """

    name: str
    class_names: tuple[str, ...]
    read: Callable[[], Mapping[str, Sequence[Picture]]]

    def open(self, request: SourceRequest) -> Source:
        """Open the records in `request.data_dir` (default: data/NAME); write them if missing."""
        data_dir = request.data_dir or f"data/{self.name}"
        info = find_written(data_dir, self.name, self.class_names) or self.write(data_dir)
        splits = {
            name: sharded_examples(data_dir, split, request.target)
            for name, split in info.splits.items()
        }
        return Source(info, splits)

    def write(self, data_dir: str) -> DatasetInfo:
        """Write TFRecords of PNGs; the description last, which marks them complete."""
        splits = {
            split: self._write_split(data_dir, split, pictures)
            for split, pictures in self.read().items()
        }
        info = DatasetInfo(self.name, len(self.class_names), self.class_names, splits)
        write_dataset_info(info, data_dir)
        return info

    def _write_split(self, data_dir: str, split: str, pictures: Sequence[Picture]) -> SplitInfo:
        labels = [picture.label for picture in pictures]
        counts = np.bincount(labels, minlength=len(self.class_names))
        return write_shards(data_dir, split, [self._serialize(each) for each in pictures], counts)

    def _serialize(self, picture: Picture) -> bytes:
        with tf.device("CPU"):
            encoded = tf.io.encode_png(picture.pixels).numpy()
        height, width, _ = picture.pixels.shape
        return records.serialize(
            records.ImageRecord(
                encoded=encoded,
                label=picture.label + 1,
                height=height,
                width=width,
                image_format="PNG",
                file_name=f"{picture.name}.png",
                synset=self.class_names[picture.label],
            )
        )


def find_written(
    data_dir: str,
    name: str,
    class_names: Sequence[str],
    *,
    own_images: str = "configs/finetune.yaml",
) -> DatasetInfo | None:
    """Return the description of the set called `name` in `data_dir`, or None if it must be written.

    Args:
      data_dir: folder (local or gs://) of the records, which may be missing.
      name: of the set.
      class_names: of the set.
      own_images: the recipe to recommend to users who have images of their own.

    Raises:
      DatasetError: the folder holds another data set, or files that are not records of this one.
    """
    info = None
    with contextlib.suppress(DatasetError):
        info = read_dataset_info(data_dir)
        check_shards(info, data_dir)
        if info.name == name:
            return info
    if info and info.name != name:
        raise DatasetError(
            f"{data_dir}: holds the data set {info.name!r}; use another data_dir for the {name}"
        )
    _check_only_own(data_dir, name, class_names, own_images)
    return None


def _check_only_own(data_dir: str, name: str, class_names: Sequence[str], own_images: str) -> None:
    """Raise DatasetError if records of the set would be written among files of the user, or over them."""
    if not tf.io.gfile.exists(data_dir):
        return
    if not tf.io.gfile.isdir(data_dir):
        raise DatasetError(f"{data_dir}: is a file; the {name} are written into a folder")
    for each in sorted(tf.io.gfile.listdir(data_dir)):
        if not OWN_FILE.fullmatch(each) or _holds_others(f"{data_dir}/{each}", class_names):
            raise DatasetError(
                f"{data_dir}: holds other files ({each}); the {name} are written into an empty or new folder "
                f"only. For your own images give --config={own_images}, or another --data_dir"
            )


def _holds_others(path: str, class_names: Sequence[str]) -> bool:
    """Return whether a file holds readable records, the first of which names other classes or none."""
    try:
        first = next(iter(tf.data.TFRecordDataset(path)))
    except (tf.errors.OpError, StopIteration):
        return False
    keys = ("image/class/synset", "image/object/class/text")
    try:
        found = tf.io.parse_single_example(
            first, dict.fromkeys(keys, tf.io.VarLenFeature(tf.string))
        )
    except tf.errors.OpError:
        return True
    named = {text.decode(errors="replace") for key in keys for text in found[key].values.numpy()}
    return not named or not named <= set(class_names)


def write_shards(
    data_dir: str, split: str, examples: Sequence[bytes], class_counts: np.ndarray
) -> SplitInfo:
    """Write serialized examples as record files, dealt in turn, and describe them."""
    total = NUM_SHARDS[split]
    shards = []
    for number in range(total):
        name = f"{split}-{number:05d}-of-{total:05d}"
        path = f"{data_dir}/{name}"
        count = records.write_shard(path, examples[number::total])
        shards.append(ShardInfo(name, count, tf.io.gfile.stat(path).length))
    return SplitInfo(len(examples), tuple(shards), tuple(int(count) for count in class_counts))
