"""Small data sets of real image files, made on the spot."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.sources import records
from input_pipeline.targets.target import Features
from input_pipeline.targets.whole_image import LABELS


def encode(number: int, *, height: int = 12, width: int = 16, image_format: str = "PNG") -> bytes:
    """A small image file whose pixels depend on `number`."""
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3)).astype(np.uint8)
    encoder = tf.io.encode_png if image_format == "PNG" else tf.io.encode_jpeg
    return encoder(pixels).numpy()


def example(number: int, label: int) -> bytes:
    """A serialized record of that image; `label` from 1."""
    return records.serialize(records.ImageRecord(encode(number), label, 12, 16, "PNG"))


def label_of(read: tuple[tf.Tensor, Features]) -> int:
    """The one label of an example, as written."""
    (label,) = read[1][LABELS].numpy()
    return int(label)


def write_split(directory: Path, split: str, counts: Sequence[int], classes: int) -> None:
    """One record file for each of `counts`; example i of the split has class i % classes."""
    number = 0
    for shard, count in enumerate(counts):
        members = range(number, number + count)
        records.write_shard(
            str(directory / f"{split}-{shard:05d}-of-{len(counts):05d}"),
            [example(n, n % classes + 1) for n in members],
        )
        number += count


@pytest.fixture
def make_records(tmp_path: Path) -> Callable[..., str]:
    """Writes records without dataset_info.json into a new folder and returns that."""
    numbers = itertools.count()

    def make(train: Sequence[int] = (), validation: Sequence[int] = (), classes: int = 5) -> str:
        directory = tmp_path / f"records_{next(numbers)}"
        write_split(directory, "train", train, classes)
        write_split(directory, "validation", validation, classes)
        return str(directory)

    return make
