"""The 1,797 handwritten digits that ship with scikit-learn, written once in ImageNet's format.

They are read exactly as ImageNet is: TFRecords of encoded images, labels from 1.
"""

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources import records
from input_pipeline.sources.dataset_info import (
    DatasetInfo,
    ShardInfo,
    SplitInfo,
    check_shards,
    read_dataset_info,
    write_dataset_info,
)
from input_pipeline.sources.source import Source, SourceRequest, sharded_examples

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUM_SHARDS = {"train": 8, "validation": 2}
VALIDATION_EVERY = 5  # of each class, every fifth image
IMAGE_SIZE = 32  # pixels; the originals have 8, too few for crops at fractions of a pixel


def open_digits(request: SourceRequest) -> Source:
    """Open the digits in `request.data_dir` (default: data/digits); write them if missing."""
    data_dir = request.data_dir or "data/digits"
    info = _read_existing(data_dir) or write_digits(data_dir)
    splits = {
        name: sharded_examples(data_dir, split, request.target)
        for name, split in info.splits.items()
    }
    return Source(info, splits)


def write_digits(data_dir: str) -> DatasetInfo:
    """Write the digits as TFRecords of PNGs; the description last, which marks them complete."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    examples = [
        records.serialize(
            records.ImageRecord(
                encoded=encoded,
                label=int(label) + 1,
                height=IMAGE_SIZE,
                width=IMAGE_SIZE,
                image_format="PNG",
                file_name=f"digit_{number:04d}.png",
                synset=CLASS_NAMES[label],
            )
        )
        for number, (encoded, label) in enumerate(zip(_encode_pngs(images), labels, strict=True))
    ]
    splits = {
        split: _write_split(data_dir, split, [examples[n] for n in members], labels[members])
        for split, members in _split(labels).items()
    }
    info = DatasetInfo("digits", len(CLASS_NAMES), CLASS_NAMES, splits)
    write_dataset_info(info, data_dir)
    return info


def _read_existing(data_dir: str) -> DatasetInfo | None:
    """Return the description in `data_dir`, or None if the digits must be written."""
    try:
        info = read_dataset_info(data_dir)
        check_shards(info, data_dir)
    except DatasetError:
        return None
    if info.name != "digits":
        raise DatasetError(
            f"{data_dir}: holds the data set {info.name!r}; use another data_dir for the digits"
        )
    return info


def _split(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the indices of each split, stratified, each in one fixed random order."""
    place_in_class = np.zeros(len(labels), np.int64)
    for digit in range(len(CLASS_NAMES)):
        members = np.flatnonzero(labels == digit)
        place_in_class[members] = np.arange(len(members))
    held_out = place_in_class % VALIDATION_EVERY == VALIDATION_EVERY - 1
    order = np.random.default_rng(0).permutation(len(labels))
    return {"train": order[~held_out[order]], "validation": order[held_out[order]]}


def _write_split(data_dir: str, split: str, examples: list[bytes], labels: np.ndarray) -> SplitInfo:
    total = NUM_SHARDS[split]
    shards = []
    for number in range(total):
        name = f"{split}-{number:05d}-of-{total:05d}"
        path = f"{data_dir}/{name}"
        count = records.write_shard(path, examples[number::total])
        shards.append(ShardInfo(name, count, tf.io.gfile.stat(path).length))
    counts = np.bincount(labels, minlength=len(CLASS_NAMES))
    return SplitInfo(len(examples), tuple(shards), tuple(int(count) for count in counts))


def _encode_pngs(images: np.ndarray) -> list[bytes]:
    """Encode 8 x 8 images of levels 0..16 [n, 64] as PNGs of IMAGE_SIZE x IMAGE_SIZE RGB pixels."""
    with tf.device("CPU"):
        grey = tf.reshape(tf.constant(images, tf.float32), [-1, 8, 8, 1]) * (255.0 / 16.0)
        large = tf.image.resize(grey, [IMAGE_SIZE, IMAGE_SIZE], method="bicubic")
        levels = tf.cast(tf.clip_by_value(tf.round(large), 0.0, 255.0), tf.uint8)
        colours = tf.repeat(levels, 3, axis=-1).numpy()
        return [tf.io.encode_png(image).numpy() for image in colours]
