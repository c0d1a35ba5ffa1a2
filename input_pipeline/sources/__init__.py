"""Sources of images. A new source is one file here and one row in SOURCES.

`get_source("tfrecord", "gs://bucket/imagenet")` opens one by name. The result describes its content
(`source.info`) and how to read a split (`source.examples("train")`).
"""

import difflib
from collections.abc import Callable
from dataclasses import replace

from input_pipeline.errors import DatasetError
from input_pipeline.sources.coco import open_coco
from input_pipeline.sources.csv_list import open_csv
from input_pipeline.sources.dataset_info import SplitInfo
from input_pipeline.sources.digit_scenes import open_digit_scenes
from input_pipeline.sources.digits import DIGITS
from input_pipeline.sources.image_folder import open_image_folder
from input_pipeline.sources.mask_folder import open_mask_folder, open_voc
from input_pipeline.sources.source import (
    Examples,
    IndexedExamples,
    Sampling,
    ShardedExamples,
    Source,
    SourceRequest,
)
from input_pipeline.sources.synthetic import open_synthetic
from input_pipeline.sources.textures import TEXTURES
from input_pipeline.sources.tfds import open_tfds
from input_pipeline.sources.tfrecord import open_tfrecord
from input_pipeline.sources.voc_boxes import open_voc_boxes
from input_pipeline.sources.yolo import open_yolo
from input_pipeline.targets.class_label import CLASS_LABEL
from input_pipeline.targets.target import Target
from input_pipeline.targets.whole_image import LABELS

__all__ = [
    "SOURCES",
    "Examples",
    "IndexedExamples",
    "ShardedExamples",
    "Source",
    "SourceRequest",
    "get_source",
]

SOURCES: dict[str, Callable[[SourceRequest], Source]] = {
    "tfrecord": open_tfrecord,
    "digits": DIGITS.open,
    "digit_scenes": open_digit_scenes,
    "textures": TEXTURES.open,
    "synthetic": open_synthetic,
    "image_folder": open_image_folder,
    "csv": open_csv,
    "mask_folder": open_mask_folder,
    "voc": open_voc,
    "coco": open_coco,
    "voc_boxes": open_voc_boxes,
    "yolo": open_yolo,
    "tfds": open_tfds,
}
# Sources of the classes of whole images alone.
OF_CLASSES = ("digits", "textures", "image_folder", "csv")


def get_source(
    name: str,
    data_dir: str | None = None,
    *,
    num_classes: int | None = None,
    num_train_examples: int | None = None,
    image_size: tuple[int, int] | None = None,
    holdout_shards: int = 0,
    skip_damage: bool = False,
    target: Target = CLASS_LABEL,
    sampling: Sampling = "uniform",
) -> Source:
    """Open the source called `name`.

    Args:
      name: a key of SOURCES, with what follows a colon handed to the source ("tfds:imagenet2012").
      data_dir: folder or gs:// path, for those sources that read one.
      num_classes: for data without class names (records without dataset_info.json, synthetic).
      num_train_examples: number of synthetic images.
      image_size: height and width of synthetic images.
      holdout_shards: the first n train shards leave the train split and become the split "minival".
      skip_damage: for on_error="skip"; only warn of files that are not as they were described.
      target: what to read beside the images.
      sampling: "balanced" trains on all classes equally often, where each image has one class; for
        image_folder and csv.

    Raises:
      DatasetError: unknown name (the known ones are listed), or data that are missing or unusable.
    """
    kind, _, argument = name.partition(":")
    if kind not in SOURCES:
        near = difflib.get_close_matches(kind, SOURCES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise DatasetError(f"unknown data source {name!r}{hint}; known: {', '.join(SOURCES)}")
    if kind in OF_CLASSES and LABELS not in target.features:
        needed = ", ".join(target.features)
        raise DatasetError(
            f"data source {kind} holds classes of whole images, and the task needs {needed}; take"
            " another source"
        )
    source = SOURCES[kind](
        SourceRequest(
            data_dir=data_dir or None,
            argument=argument,
            num_classes=num_classes,
            num_train_examples=num_train_examples,
            image_size=image_size,
            skip_damage=skip_damage,
            target=target,
            sampling=sampling,
        )
    )
    source = replace(source, target=target)
    return hold_out(source, holdout_shards) if holdout_shards else source


def hold_out(source: Source, num_shards: int) -> Source:
    """Move the first train shards of `source` into the split "minival"."""
    train = source.splits.get("train")
    if not isinstance(train, ShardedExamples):
        raise DatasetError(
            f"{source.info.name}: holdout_shards needs training data in shards; set it to 0"
        )
    if not 0 < num_shards < len(train.files):
        raise DatasetError(
            f"{source.info.name}: cannot hold out {num_shards} of {len(train.files)} train shards; "
            f"expected at most {len(train.files) - 1}"
        )
    kept, minival = train.part(num_shards, None), train.part(0, num_shards)
    shards = source.info.splits["train"].shards
    return replace(
        source,
        info=replace(
            source.info,
            splits={
                **source.info.splits,
                "train": SplitInfo(kept.num_examples, shards[num_shards:]),
                "minival": SplitInfo(minival.num_examples, shards[:num_shards]),
            },
        ),
        splits={**source.splits, "train": kept, "minival": minival},
    )
