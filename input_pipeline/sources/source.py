"""The interface of sources: a description, and for each split one of two ways to read it.

Examples in shards can only be read file by file; indexed examples can be read one by one, which
allows a full shuffle. order.py decides the order of the examples.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources import records
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo
from input_pipeline.targets.class_label import CLASS_LABEL
from input_pipeline.targets.target import Features, Target

Parse = Callable[[tf.Tensor], tuple[tf.Tensor, Features]]
Sampling = Literal["uniform", "balanced"]


@dataclass(frozen=True)
class SourceRequest:
    """The user's settings of the data; every source reads those it needs."""

    data_dir: str | None = None
    argument: str = ""  # what followed the colon in "name:argument"
    num_classes: int | None = None
    num_train_examples: int | None = None
    image_size: tuple[int, int] | None = None
    skip_damage: bool = False  # warn of damaged files instead of refusing them
    target: Target = CLASS_LABEL  # what is read beside the images
    sampling: Sampling = "uniform"  # how training examples are drawn


@dataclass(frozen=True)
class ShardedExamples:
    """TFRecord files with a known number of records each.

    `parse` turns a serialized record into (bytes: string [], features of the target).
    """

    files: tuple[str, ...]  # full paths
    counts: tuple[int, ...]  # records of each file
    num_bytes: int  # of all files
    parse: Parse = records.parse

    @property
    def num_examples(self) -> int:
        """Records of all files."""
        return sum(self.counts)

    def part(self, first: int, last: int | None) -> "ShardedExamples":
        """Return the files [first:last]; sizes are assumed proportional to the counts."""
        counts = self.counts[first:last]
        share = sum(counts) / max(1, self.num_examples)
        return ShardedExamples(
            self.files[first:last], counts, round(self.num_bytes * share), self.parse
        )


@dataclass(frozen=True)
class ClassGroups:
    """The examples of each class, for training on all classes equally often.

    Attributes:
      members: indices of all examples, class by class.
      counts: examples of each class, at least 1.
    """

    members: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, labels: Sequence[int]) -> "ClassGroups":
        """Group examples by their class, given in the order of their indices; leave out empty classes."""
        return cls(
            tuple(np.argsort(labels, kind="stable").tolist()),
            tuple(np.unique(labels, return_counts=True)[1].tolist()),
        )


@dataclass(frozen=True)
class IndexedExamples:
    """Examples that can be read in any order, by their index (int64 [], in [0, num_examples)).

    `read` returns (bytes: string [], features of the target) of an index; `file` returns the name of
    its file (string []) and never fails.
    """

    num_examples: int
    num_bytes: int  # of all encoded images
    read: Parse
    file: Callable[[tf.Tensor], tf.Tensor]
    in_memory: bool = False
    image_files: bool = False  # each image is a file, not a feature of a record
    classes: ClassGroups | None = None  # to be trained on equally often; None: as the examples are


Examples = ShardedExamples | IndexedExamples


@dataclass(frozen=True)
class Source:
    """A data set that can be read.

    Attributes:
      info: its description.
      splits: the examples of each split.
      notes: lines for the user about the data.
      target: what the examples hold beside their images.
    """

    info: DatasetInfo
    splits: Mapping[str, Examples]
    notes: tuple[str, ...] = ()
    target: Target = CLASS_LABEL

    def examples(self, split: str) -> Examples:
        """Return the examples of `split`; raise DatasetError with the known splits if there are none."""
        if split not in self.splits:
            raise DatasetError(
                f"{self.info.name}: no split {split!r}; it has {', '.join(self.splits) or 'none'}"
            )
        if self.splits[split].num_examples == 0:
            raise DatasetError(f"{self.info.name}: split {split!r} has no examples")
        return self.splits[split]


def sharded_examples(data_dir: str, split: SplitInfo, target: Target) -> ShardedExamples:
    """Return the record files of `split` in `data_dir`."""
    return ShardedExamples(
        files=tuple(os.path.join(data_dir, shard.file) for shard in split.shards),
        counts=tuple(shard.num_examples for shard in split.shards),
        num_bytes=split.num_bytes,
        parse=functools.partial(records.parse, features=target.features),
    )
