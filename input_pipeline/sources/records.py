"""ImageNet's record format: one tf.train.Example per image, labels from 1.

The keys are those of the published ImageNet conversion, so that these records can be read by the
original code, and those written by it can be read here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from input_pipeline.targets.class_label import LABEL_FEATURES, LABELS
from input_pipeline.targets.target import Features
from system.files import replacing


@dataclass(frozen=True)
class ImageRecord:
    """One image as it is written.

    Attributes:
      encoded: a JPEG or PNG file.
      label: its class, or its classes, from 1.
      synset: name of each class.
    """

    encoded: bytes
    label: int | tuple[int, ...]
    height: int
    width: int
    image_format: str = "JPEG"
    file_name: str = ""
    synset: str | tuple[str, ...] = ""


def serialize(record: ImageRecord) -> bytes:
    """Serialize `record` as a tf.train.Example; equal records give equal bytes."""

    def text(value: str | tuple[str, ...]) -> tf.train.Feature:
        texts = [value] if isinstance(value, str) else value
        encoded = [each.encode() for each in texts]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))

    def number(value: int | tuple[int, ...]) -> tf.train.Feature:
        numbers = [value] if isinstance(value, int) else value
        return tf.train.Feature(int64_list=tf.train.Int64List(value=numbers))

    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[record.encoded])),
        LABELS: number(record.label),
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


def parse(
    serialized: tf.Tensor, features: Mapping[str, Any] = LABEL_FEATURES
) -> tuple[tf.Tensor, Features]:
    """Parse a serialized Example.

    Args:
      serialized: string [].
      features: those to parse besides the image, as `Target.features`.

    Returns:
      The encoded image, string [], and the values of `features` as written. A missing image gives "":
      only the caller knows the file and the record to name in an error.
    """
    image = {"image/encoded": tf.io.FixedLenFeature([], tf.string, "")}
    parsed = tf.io.parse_single_example(serialized, {**image, **features})
    return parsed.pop("image/encoded"), parsed


def write_shard(path: str, examples: Iterable[bytes]) -> int:
    """Write serialized examples atomically as one TFRecord file; return their number."""
    count = 0
    with replacing(path) as temporary, tf.io.TFRecordWriter(temporary) as writer:
        for example in examples:
            writer.write(example)
            count += 1
    return count
