"""Image files in class folders, read directly, without preparation; each epoch opens every file.

For many epochs, or from gs://, records are faster: see input_pipeline.prepare.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo
from input_pipeline.sources.listing import (
    ClassImages,
    Labelled,
    list_classes,
    parse_fraction,
)
from input_pipeline.sources.source import (
    ClassGroups,
    IndexedExamples,
    Sampling,
    Source,
    SourceRequest,
)
from input_pipeline.targets.target import Features
from input_pipeline.targets.whole_image import LABELS

ASSUMED_BYTES = (
    110_000  # of one image file, the mean of ImageNet's; reading each size would take long
)


def open_image_folder(request: SourceRequest) -> Source:
    """Open the images under `request.data_dir`; "image_folder:0.2" holds out 20 % of each class.

    Raises:
      DatasetError: no data_dir, or no images in class folders there.
    """
    if request.data_dir is None:
        raise DatasetError(
            "data source image_folder needs data_dir: a folder with one folder per class"
        )
    if not tf.io.gfile.isdir(request.data_dir):
        raise DatasetError(f"{request.data_dir}: no such folder; data_dir must hold class folders")
    fraction = parse_fraction("image_folder", request.argument)
    images = list_classes(request.data_dir, fraction)
    return read_files(request.data_dir.rstrip("/").rsplit("/", 1)[-1], images, request.sampling)


def read_files(name: str, images: ClassImages, sampling: Sampling = "uniform") -> Source:
    """Return the source of listed image files.

    Raises:
      DatasetError: balanced sampling of images that have no class or several.
    """
    num_classes = len(images.class_names)
    info = DatasetInfo(
        name=name,
        num_classes=num_classes,
        class_names=images.class_names,
        splits={
            split: SplitInfo(len(files), class_counts=_class_counts(files, num_classes))
            for split, files in images.splits.items()
        },
        label_offset=0,
    )
    splits = {split: _examples(files) for split, files in images.splits.items()}
    if sampling == "balanced":
        groups = _class_groups(images.splits["train"])
        splits["train"] = replace(splits["train"], classes=groups)
    return Source(info, splits, images.notes)


def _class_counts(files: Sequence[Labelled], num_classes: int) -> tuple[int, ...]:
    counts = Counter(label for _, labels in files for label in labels)
    return tuple(counts[label] for label in range(num_classes))


def _class_groups(files: Sequence[Labelled]) -> ClassGroups:
    for image, labels in files:
        if len(labels) != 1:
            raise DatasetError(
                f"{image.name}: {len(labels)} classes, and data.sampling=balanced needs one for each image;"
                " set data.sampling=uniform"
            )
    return ClassGroups.of([label for _, (label,) in files])


def _examples(files: Sequence[Labelled]) -> IndexedExamples:
    paths = tf.constant([image.path for image, _ in files], tf.string)
    labels = tf.constant([label for _, labels in files for label in labels], tf.int64)
    starts = tf.constant(np.cumsum([0, *(len(labels) for _, labels in files)]), tf.int64)

    def read(index: tf.Tensor) -> tuple[tf.Tensor, Features]:
        return tf.io.read_file(paths[index]), {LABELS: labels[starts[index] : starts[index + 1]]}

    return IndexedExamples(
        num_examples=len(files),
        num_bytes=len(files) * ASSUMED_BYTES,
        read=read,
        file=lambda index: tf.gather(paths, index),
        image_files=True,
    )
