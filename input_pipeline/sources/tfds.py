"""Sets of TensorFlow Datasets, already prepared in its TFRecord format.

Only its records are used; order, shuffling and sharding are those of this package. Images stay
encoded until they are cropped.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo
from input_pipeline.sources.source import Parse, ShardedExamples, Source, SourceRequest
from input_pipeline.targets.boxes import AREA, BOX_LABELS, CROWD, ENDS
from input_pipeline.targets.mask import MASK
from input_pipeline.targets.target import Features
from input_pipeline.targets.whole_image import LABELS
from system.errors import first_line

BOXES = "boxes"
OPTIONAL = {CROWD: "is_crowd", AREA: "area"}  # of objects, as COCO's sets call them
VALIDATION_SPLITS = ("validation", "val", "test")  # the first that the set has
MASK_CLASSES = {  # by set; masks of these count from 1: task.first_value=1
    "oxford_iiit_pet": ("pet", "background", "border"),
}


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
    keys = _keys(name, builder.info, request.target.features)
    there = builder.info.splits
    if "train" not in there:
        raise DatasetError(f"tfds:{name}: no train split; it has {', '.join(there)}")
    splits = {"train": there["train"]}
    validation = [split for split in VALIDATION_SPLITS if split in there]
    if validation:
        splits["validation"] = there[validation[0]]
    num_classes, class_names = _classes(name, builder.info, keys, request.num_classes)
    info = DatasetInfo(
        name=name,
        num_classes=num_classes,
        class_names=class_names,
        splits={split: SplitInfo(part.num_examples) for split, part in splits.items()},
        label_offset=0,
    )
    parse = _parser(builder.info.features, keys)
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


class _Keys(NamedTuple):
    """The features that are read: the image, and what belongs to it, by our name.

    The features of objects are below one called `objects`.
    """

    image: str
    beside: Mapping[str, str]
    objects: str = ""


def _keys(name: str, info: Any, wanted: Mapping[str, Any]) -> _Keys:
    """Find the image, and the label, mask or objects that `wanted` asks for, among the features."""
    import tensorflow_datasets as tfds

    def only(kind: type, fits: Callable[[Any], bool] = lambda feature: True) -> str:
        keys = [
            key
            for key, feature in info.features.items()
            if isinstance(feature, kind) and fits(feature)
        ]
        supervised = [key for key in info.supervised_keys or () if key in keys]
        if not keys:
            raise DatasetError(
                f"tfds:{name}: no {kind.__name__} among its features ({', '.join(info.features)})"
            )
        return (supervised or keys)[0]

    if MASK in wanted:
        image = only(tfds.features.Image, lambda feature: feature.shape[-1] == 3)
        return _Keys(image, {MASK: only(tfds.features.Image, lambda each: each.shape[-1] == 1)})
    if BOX_LABELS in wanted:
        return _object_keys(name, info, only(tfds.features.Image))
    return _Keys(only(tfds.features.Image), {LABELS: only(tfds.features.ClassLabel)})


def _object_keys(name: str, info: Any, image: str) -> _Keys:
    """Find the sequence of boxes with labels, as "objects" of COCO's and VOC's sets."""
    import tensorflow_datasets as tfds

    for key, feature in info.features.items():
        parts = dict(getattr(feature, "feature", None) or {})
        found = {
            ours: part
            for ours, kind in {
                BOXES: tfds.features.BBoxFeature,
                BOX_LABELS: tfds.features.ClassLabel,
            }.items()
            for part, inner in parts.items()
            if isinstance(inner, kind)
        }
        if len(found) == 2:
            optional = {ours: part for ours, part in OPTIONAL.items() if part in parts}
            return _Keys(image, {**found, **optional}, key)
    raise DatasetError(
        f"tfds:{name}: no sequence of boxes with labels among its features ({', '.join(info.features)})"
    )


def _classes(
    name: str, info: Any, keys: _Keys, given: int | None
) -> tuple[int, tuple[str, ...] | None]:
    """Return the number of classes, and their names if they are known."""
    if keys.objects or LABELS in keys.beside:
        if keys.objects:
            labels = info.features[keys.objects].feature[keys.beside[BOX_LABELS]]
        else:
            labels = info.features[keys.beside[LABELS]]
        return labels.num_classes, tuple(labels.names) if labels.names else None
    names = MASK_CLASSES.get(name.partition(":")[0])
    if names is None and given is None:
        raise DatasetError(
            f"tfds:{name}: the number of classes of its masks is not known; set model.num_classes"
        )
    return (len(names), names) if names else (given or 0, None)


def _parser(features: Any, keys: _Keys) -> Parse:
    import tensorflow_datasets as tfds

    beside = [keys.objects] if keys.objects else keys.beside.values()
    wanted = tfds.features.FeaturesDict({key: features[key] for key in (keys.image, *beside)})
    encoded = [key for ours, key in keys.beside.items() if ours == MASK]
    decoders = {key: tfds.decode.SkipDecoding() for key in (keys.image, *encoded)}

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, Features]:
        example = wanted.deserialize_example(record, decoders=decoders)
        if keys.objects:
            return example[keys.image], _objects(example[keys.objects], keys.beside)
        found = {
            ours: example[key] if ours == MASK else tf.cast(example[key], tf.int64)[tf.newaxis]
            for ours, key in keys.beside.items()
        }
        return example[keys.image], found

    return parse


def _objects(found: Mapping[str, tf.Tensor], beside: Mapping[str, str]) -> Features:
    """Return the published features of objects; those that are missing are empty."""
    ends = tf.unstack(tf.reshape(found[beside[BOXES]], [-1, 4]), axis=1)
    crowd, area = (
        tf.cast(found[beside[name]], dtype) if name in beside else tf.zeros([0], dtype)
        for name, dtype in ((CROWD, tf.int64), (AREA, tf.float32))
    )
    return {
        **dict(zip(ENDS, ends, strict=True)),
        BOX_LABELS: tf.cast(found[beside[BOX_LABELS]], tf.int64),
        CROWD: crowd,
        AREA: area,
    }


def _examples(split: Any, parse: Parse) -> ShardedExamples:
    return ShardedExamples(
        files=tuple(str(path) for path in split.filepaths),
        counts=tuple(split.shard_lengths),
        num_bytes=split.num_bytes,
        parse=parse,
    )
