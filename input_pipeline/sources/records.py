"""ImageNet's record format: one tf.train.Example per image, labels from 1.

The keys are those of the published ImageNet conversion, so that these records can be read by the
original code, and those written by it can be read here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from input_pipeline.targets.target import Features
from input_pipeline.targets.whole_image import LABEL_FEATURES, LABELS
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
    return serialize_features(image_features(record))


def image_features(record: ImageRecord) -> dict[str, Any]:
    """Return the values of ImageNet's features."""
    return {
        "image/encoded": record.encoded,
        LABELS: np.array(record.label, np.int64).reshape(-1),  # may be empty
        "image/class/synset": record.synset,
        "image/height": record.height,
        "image/width": record.width,
        "image/colorspace": "RGB",
        "image/channels": 3,
        "image/format": record.image_format,
        "image/filename": record.file_name,
    }


def serialize_features(values: Mapping[str, Any]) -> bytes:
    """Serialize values by feature as a tf.train.Example; equal values give equal bytes.

    Args:
      values: bytes, text, a whole or a real number, or a list or an array of them. An empty list has no
        type; an empty array has that of its numbers.
    """
    example = tf.train.Example(
        features=tf.train.Features(feature={name: _feature(x) for name, x in values.items()})
    )
    return example.SerializeToString(deterministic=True)


def _feature(value: Any) -> tf.train.Feature:
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f":
            return tf.train.Feature(float_list=tf.train.FloatList(value=value))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=value))
    many = value if isinstance(value, list | tuple) else [value]
    if many and isinstance(many[0], int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=many))
    if many and isinstance(many[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=many))
    encoded = [each.encode() if isinstance(each, str) else each for each in many]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=encoded))


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
