"""Images with boxes in annotation files: the shared parts of coco, voc_boxes and yolo."""

import os
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo
from input_pipeline.sources.listing import ImageFile, parse_fraction
from input_pipeline.sources.source import IndexedExamples, Source, SourceRequest
from input_pipeline.targets.boxes import AREA, BOX_LABELS, CROWD, ENDS
from input_pipeline.targets.target import Features

ASSUMED_BYTES = 160_000  # of a photograph; reading the size of each would be slow
FILES_NAMED = 3  # in a message
LARGEST = 1e9  # of coordinates, in pixels; larger values are malformed
LABEL_OFFSET = 1  # labels of records count from 1, as published


@dataclass(frozen=True)
class Objects:
    """The objects of an image, as annotated and unchecked.

    Attributes:
      boxes: float32 [n, 4], [ymin, xmin, ymax, xmax] in 0..1 of the image's sides.
      classes: int64 [n], from 0.
      crowd: int64 [n], 1 for a box around many objects.
      area: float32 [n], of the objects in pixels; None if it is not annotated.
      size: height and width of the image, as annotated; None if they are not.
      source_id: of the image; "" if it has none.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    area: np.ndarray | None = None
    size: tuple[float, float] | None = None
    source_id: str = ""


BoxedImage = tuple[ImageFile, Objects]


@dataclass(frozen=True)
class BoxedImages:
    """The images of each split with their objects.

    Attributes:
      class_names: in the order of the classes.
      splits: images and objects.
      notes: lines for the user.
    """

    class_names: tuple[str, ...]
    splits: Mapping[str, tuple[BoxedImage, ...]]
    notes: tuple[str, ...] = ()


def make_objects(
    corners: Sequence[Sequence[float]],
    classes: Sequence[int],
    size: tuple[float, float] | None = None,
    *,
    crowd: Sequence[int] | None = None,
    area: Sequence[float] | None = None,
    source_id: str = "",
) -> Objects:
    """Build objects from rows of ymin, xmin, ymax, xmax.

    With `size` they are in pixels of the image, else in 0..1 of its sides.
    """
    boxes = np.array(corners, np.float64).reshape(-1, 4) / np.tile(size or (1.0, 1.0), 2)
    return Objects(
        boxes.astype(np.float32),
        np.array(classes, np.int64),
        np.array(crowd or [0] * len(boxes), np.int64),
        None if area is None else np.array(area, np.float32),
        size,
        source_id,
    )


def is_coordinate(value: Any) -> bool:
    """Return whether a value is a number in the range of coordinates."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def open_boxed(
    request: SourceRequest,
    source: str,
    expected: str,
    list_images: Callable[[str, float], BoxedImages],
) -> Source:
    """Open the folder of a source of boxes.

    Args:
      request: the folder and, in the argument, the fraction that is held out for validation.
      source: name of the source.
      expected: what the folder should hold, for messages.
      list_images: takes the folder and the fraction, and lists images and boxes.

    Raises:
      DatasetError: the folder is missing, the target has no boxes, or see `list_images`.
    """
    path = request.data_dir
    if path is None:
        raise DatasetError(f"data source {source} needs data_dir: {expected}")
    if not tf.io.gfile.isdir(path):
        raise DatasetError(f"{path}: no such folder; expected {expected}")
    if BOX_LABELS not in request.target.features:
        raise DatasetError(
            f"{path}: data source {source} holds boxes; set task.name=detection, or another source"
        )
    images = list_images(path, parse_fraction(source, request.argument))
    return read_boxed(os.path.basename(path.rstrip("/")), images)


def read_boxed(name: str, images: BoxedImages) -> Source:
    """Return the source of listed images and boxes."""
    info = DatasetInfo(
        name=name,
        num_classes=len(images.class_names),
        class_names=images.class_names,
        splits={split: SplitInfo(len(members)) for split, members in images.splits.items()},
        label_offset=LABEL_OFFSET,
    )
    splits = {split: _examples(members) for split, members in images.splits.items()}
    return Source(info, splits, images.notes)


def complete(path: str, images: BoxedImages, validation_fraction: float) -> BoxedImages:
    """Hold out validation images if there are none, and refuse splits without boxes.

    Raises:
      DatasetError: a split has no box, or the fraction is out of range.
    """
    if not 0.0 <= validation_fraction < 1.0:
        raise DatasetError(f"invalid validation fraction {validation_fraction:g}; expected [0, 1)")
    splits, notes = dict(images.splits), images.notes
    if "validation" not in splits:
        splits = _hold_out(splits["train"], validation_fraction)
        notes = (*notes, f"evaluation images: {validation_fraction:.4g} of the training images")
    for split, members in splits.items():
        if members and not any(len(objects.boxes) for _, objects in members):
            raise DatasetError(
                f"{path}: none of the {len(members)} images of the split {split} has a box"
            )
    return BoxedImages(images.class_names, splits, notes)


def read_text(path: str) -> str:
    """Read a text file.

    Raises:
      DatasetError: it is not UTF-8.
    """
    try:
        with tf.io.gfile.GFile(path) as file:
            return str(file.read())
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text ({error})") from None


def read_names(path: str) -> tuple[str, ...]:
    """Read the names of classes, one on each line.

    Raises:
      DatasetError: there are none, or one occurs twice.
    """
    names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not names or len(set(names)) < len(names):
        raise DatasetError(f"{path}: {len(names)} lines; expected a different class on each")
    return names


def names_in(folder: str) -> tuple[str, ...]:
    """List the content of a folder, sorted; empty if there is no such folder."""
    if not tf.io.gfile.isdir(folder):
        return ()
    return tuple(sorted(name.rstrip("/") for name in tf.io.gfile.listdir(folder)))


def first_present(path: str, candidates: Iterable[str]) -> str | None:
    """Return the first of the files or folders below `path` that exists, as a whole path."""
    paths = (posixpath.join(path, name) for name in candidates)
    return next((each for each in paths if tf.io.gfile.exists(each)), None)


def refuse_missing(where: str, missing: Sequence[str], total: int, folder: str) -> None:
    """Refuse a list or an annotation file that names missing files.

    Raises:
      DatasetError: some are `missing` of the `total`; the message has their number and the first names.
    """
    if missing:
        some = ", ".join(missing[:FILES_NAMED])
        more = f" and {len(missing) - FILES_NAMED} more" if len(missing) > FILES_NAMED else ""
        raise DatasetError(
            f"{where}: {len(missing)} of its {total} files are not in {folder}: {some}{more}"
        )


def _hold_out(train: Sequence[BoxedImage], fraction: float) -> dict[str, tuple[BoxedImage, ...]]:
    """Split at random, with a fixed seed; keep the order within each part."""
    order = np.random.default_rng(0).permutation(len(train))
    held_out = set(order[: round(fraction * len(train))].tolist())
    return {
        "train": tuple(each for n, each in enumerate(train) if n not in held_out),
        "validation": tuple(each for n, each in enumerate(train) if n in held_out),
    }


def _examples(members: Sequence[BoxedImage]) -> IndexedExamples:
    paths = tf.constant([image.path for image, _ in members], tf.string)
    counts = [len(objects.classes) for _, objects in members]
    starts = tf.constant([0, *np.cumsum(counts, dtype=np.int64)], tf.int64)
    table = {name: tf.constant(column) for name, column in _columns(members).items()}

    def read(index: tf.Tensor) -> tuple[tf.Tensor, Features]:
        first, last = starts[index], starts[index + 1]
        return tf.io.read_file(paths[index]), {
            name: column[first:last] for name, column in table.items()
        }

    return IndexedExamples(
        num_examples=len(members),
        num_bytes=len(members) * ASSUMED_BYTES,
        read=read,
        file=lambda index: tf.gather(paths, index),
        image_files=True,
    )


def _columns(members: Sequence[BoxedImage]) -> dict[str, np.ndarray]:
    """Concatenate the features of all images."""
    every = [objects_features(objects) for _, objects in members]
    nothing = objects_features(make_objects([], [], area=[]))
    if not all(AREA in each for each in every):
        every = [{**each, AREA: nothing[AREA]} for each in every]
    return {
        name: np.concatenate([empty, *(x[name] for x in every)]) for name, empty in nothing.items()
    }


def objects_features(objects: Objects) -> dict[str, np.ndarray]:
    """Return the objects of an image as features with the published keys."""
    features = {
        **{end: objects.boxes[:, place] for place, end in enumerate(ENDS)},
        BOX_LABELS: objects.classes + LABEL_OFFSET,
        CROWD: objects.crowd,
    }
    return features if objects.area is None else {**features, AREA: objects.area}
