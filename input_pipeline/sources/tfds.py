"""Classification sets of TensorFlow Datasets, already prepared in its TFRecord format.

Only its records are used; order, shuffling and sharding are those of this package. Images stay
encoded until they are cropped.
"""

from typing import Any

import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo
from input_pipeline.sources.source import Parse, ShardedExamples, Source, SourceRequest
from input_pipeline.targets.class_label import LABELS
from input_pipeline.targets.target import Features
from system.errors import first_line

VALIDATION_SPLITS = ("validation", "val", "test")  # the first that the set has


def open_tfds(request: SourceRequest) -> Source:
    """Open "tfds:NAME", "tfds:NAME/CONFIG" or "tfds:NAME:VERSION" in `request.data_dir`.

    Raises:
      DatasetError: tensorflow_datasets is not installed or does not know the set; the set is not
        prepared, has no image with a label, or is not in TFRecord files.
    """
    name = request.argument
    if not name:
        raise DatasetError("data source tfds needs a name, as in tfds:imagenet2012")
    builder = _builder(name, request.data_dir)
    image_key, label_key = _keys(name, builder.info)
    there = builder.info.splits
    if "train" not in there:
        raise DatasetError(f"tfds:{name}: no train split; it has {', '.join(there)}")
    splits = {"train": there["train"]}
    validation = [split for split in VALIDATION_SPLITS if split in there]
    if validation:
        splits["validation"] = there[validation[0]]
    labels = builder.info.features[label_key]
    info = DatasetInfo(
        name=name,
        num_classes=labels.num_classes,
        class_names=tuple(labels.names) if labels.names else None,
        splits={split: SplitInfo(part.num_examples) for split, part in splits.items()},
        label_offset=0,
    )
    parse = _parser(builder.info.features, image_key, label_key)
    return Source(info, {split: _examples(part, parse) for split, part in splits.items()})


def _builder(name: str, data_dir: str | None) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise DatasetError(
            f"tfds:{name} needs the package tensorflow-datasets: pip install tensorflow-datasets"
        ) from None
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        line = first_line(error)
        raise DatasetError(f"tfds:{name}: {line}") from None
    if not tf.io.gfile.exists(str(builder.data_path)):
        raise DatasetError(
            f"tfds:{name}: not prepared in {builder.data_path}; run "
            f"tfds build {name} --file_format=tfrecord --data_dir={data_dir or '~/tensorflow_datasets'}"
        )
    if builder.info.file_format.value != "tfrecord":
        raise DatasetError(
            f"tfds:{name}: stored as {builder.info.file_format.value}; prepare it again with "
            "--file_format=tfrecord"
        )
    return builder


def _keys(name: str, info: Any) -> tuple[str, str]:
    """Return the names of the image and of the label among the features."""
    import tensorflow_datasets as tfds

    def only(kind: type) -> str:
        keys = [key for key, feature in info.features.items() if isinstance(feature, kind)]
        supervised = [key for key in info.supervised_keys or () if key in keys]
        if not keys:
            raise DatasetError(
                f"tfds:{name}: no {kind.__name__} among its features ({', '.join(info.features)})"
            )
        return (supervised or keys)[0]

    return only(tfds.features.Image), only(tfds.features.ClassLabel)


def _parser(features: Any, image_key: str, label_key: str) -> Parse:
    import tensorflow_datasets as tfds

    wanted = tfds.features.FeaturesDict(
        {image_key: features[image_key], label_key: features[label_key]}
    )
    decoders = {image_key: tfds.decode.SkipDecoding()}

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, Features]:
        example = wanted.deserialize_example(record, decoders=decoders)
        return example[image_key], {LABELS: tf.cast(example[label_key], tf.int64)[tf.newaxis]}

    return parse


def _examples(split: Any, parse: Parse) -> ShardedExamples:
    return ShardedExamples(
        files=tuple(str(path) for path in split.filepaths),
        counts=tuple(split.shard_lengths),
        num_bytes=split.num_bytes,
        parse=parse,
    )
