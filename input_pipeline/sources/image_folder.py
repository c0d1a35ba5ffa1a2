"""Image files in class folders, read directly, without preparation; each epoch opens every file.

For many epochs, or from gs://, records are faster: see input_pipeline.prepare.
"""

import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo
from input_pipeline.sources.listing import (
    DEFAULT_VALIDATION_FRACTION,
    ImageFile,
    arrange,
    list_images,
)
from input_pipeline.sources.source import IndexedExamples, Source, SourceRequest

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
    files = list_images(request.data_dir)
    images = arrange(files, request.data_dir, _fraction(request.argument))
    counts = {
        split: tf.math.bincount(
            tf.constant([label for _, label in files], tf.int32), minlength=len(images.class_names)
        ).numpy()
        for split, files in images.splits.items()
    }
    info = DatasetInfo(
        name=request.data_dir.rstrip("/").rsplit("/", 1)[-1],
        num_classes=len(images.class_names),
        class_names=images.class_names,
        splits={
            split: SplitInfo(len(files), class_counts=tuple(int(n) for n in counts[split]))
            for split, files in images.splits.items()
        },
        label_offset=0,
    )
    splits = {split: _examples(files) for split, files in images.splits.items()}
    return Source(info, splits, images.notes)


def _fraction(argument: str) -> float:
    try:
        return float(argument) if argument else DEFAULT_VALIDATION_FRACTION
    except ValueError:
        raise DatasetError(
            f"data source image_folder:{argument}: invalid fraction {argument!r}; expected the fraction "
            "of each class to validate on, as in image_folder:0.1"
        ) from None


def _examples(files: tuple[tuple[ImageFile, int], ...]) -> IndexedExamples:
    paths = tf.constant([image.path for image, _ in files], tf.string)
    labels = tf.constant([label for _, label in files], tf.int64)

    def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.io.read_file(paths[index]), labels[index]

    return IndexedExamples(
        num_examples=len(files),
        num_bytes=len(files) * ASSUMED_BYTES,
        read=read,
        file=lambda index: tf.gather(paths, index),
    )
