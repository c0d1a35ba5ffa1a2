"""ImageNet's record format: one tf.train.Example per image, labels from 1.

The keys are those of the published ImageNet conversion, so that these records can be read by the
original code, and those written by it can be read here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import tensorflow as tf

from system.files import replacing

MISSING_LABEL = tf.int64.min


@dataclass(frozen=True)
class ImageRecord:
    """One image as it is written: labels count from 1, `encoded` is a JPEG or PNG file."""

    encoded: bytes
    label: int
    height: int
    width: int
    image_format: str = "JPEG"
    file_name: str = ""
    synset: str = ""


def serialize(record: ImageRecord) -> bytes:
    """Serialize `record` as a tf.train.Example; equal records give equal bytes."""

    def text(value: str) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))

    def number(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[record.encoded])),
        "image/class/label": number(record.label),
        "image/class/synset": text(record.synset),
        "image/height": number(record.height),
        "image/width": number(record.width),
        "image/colorspace": text("RGB"),
        "image/channels": number(3),
        "image/format": text(record.image_format),
        "image/filename": text(record.file_name),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def parse(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the encoded image (string []) and label (int64 [], from 1) of a serialized Example.

    A missing feature gives "" or MISSING_LABEL: only the caller knows the file and the record to
    name in an error.
    """
    features = tf.io.parse_single_example(
        serialized,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string, ""),
            "image/class/label": tf.io.FixedLenFeature([], tf.int64, MISSING_LABEL),
        },
    )
    return features["image/encoded"], features["image/class/label"]


def write_shard(path: str, examples: Iterable[bytes]) -> int:
    """Write serialized examples atomically as one TFRecord file; return their number."""
    count = 0
    with replacing(path) as temporary, tf.io.TFRecordWriter(temporary) as writer:
        for example in examples:
            writer.write(example)
            count += 1
    return count
