"""Images with labels of a network's own classes, to evaluate it on: ImageNet-V2, ReaL, and others.

    DIR/CLASS/...          ImageNet-V2: folders named by class index, from 0. Names of classes are taken, too.
    DIR and FILE.json      ReaL: a list of the right labels of image number 1, 2, ..., a number that ends its
                           name as in ILSVRC2012_val_00000001.JPEG; or a mapping from file names to labels.

In JSON a label is a class index or the name of a class. An image may have several right labels; one without
any is left out.
"""

import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources.dataset_info import DatasetInfo
from input_pipeline.sources.image_folder import read_files
from input_pipeline.sources.listing import ClassImages, ImageFile, Labelled, list_images
from input_pipeline.sources.source import Source
from input_pipeline.targets.class_labels import ClassLabels
from input_pipeline.targets.target import Target
from system.files import read_text

FOLDERS = "folders"  # labels that are the names of folders
MOST_BYTES = 1 << 28  # of a JSON file; ReaL's has 0.4 MB

_NUMBER = re.compile(r"(\d+)\.[^.]+$")  # at the end of a file's name


def open_labelled(
    data_dir: str, labels: str, classes: DatasetInfo, *, split: str, target: Target
) -> Source:
    """Open the images in a folder with labels of known classes.

    Args:
      data_dir: folder of image files, at any depth.
      labels: FOLDERS, or the path of a JSON file.
      classes: the data that a network was trained on, for the number of its classes and their names.
      split: name of the only split of the result.
      target: what the images of FOLDERS have, which is one class each; those of a JSON file have
        ClassLabels.

    Raises:
      DatasetError: no image with a label, a label that is no class, or a file that cannot be read.
    """
    if not tf.io.gfile.isdir(data_dir):
        raise DatasetError(f"{data_dir}: no such folder; with eval.labels, data_dir holds images")
    images = list_images(data_dir)
    if labels == FOLDERS:
        labelled = _by_folder(images, data_dir, classes)
    else:
        labelled = _by_file(images, labels, classes)
        target = ClassLabels(max((len(each) for _, each in labelled), default=1))
    if not labelled:
        raise DatasetError(f"{labels}: no label for any image in {data_dir}")
    left_out = len(images) - len(labelled)
    notes = (f"left out, without a label: {left_out:,} images",) if left_out else ()
    names = classes.class_names or tuple(map(str, range(classes.num_classes)))
    name = posixpath.basename(data_dir.rstrip("/"))
    source = read_files(name, ClassImages(names, {split: labelled}, notes))
    return replace(source, target=target)


def _by_folder(
    images: Sequence[ImageFile], data_dir: str, classes: DatasetInfo
) -> tuple[Labelled, ...]:
    folder_of = {image.name: image.name.partition("/")[0] for image in images}
    for name, folder in folder_of.items():
        if name == folder:
            raise DatasetError(f"{data_dir}/{name}: not in the folder of a class")
    folders = sorted(set(folder_of.values()))
    are_names = not all(folder.isdecimal() for folder in folders)
    if classes.class_names is None and are_names and len(folders) == classes.num_classes:
        # As in ImageNet, classes of which only the number is known are in the order of their names.
        classes = replace(classes, class_names=tuple(folders))
    index_of = _class_index(classes)
    numbers = {folder: index_of(folder, f"{data_dir}/{folder}") for folder in folders}
    return tuple((image, (numbers[folder_of[image.name]],)) for image in images)


def _by_file(images: Sequence[ImageFile], path: str, classes: DatasetInfo) -> tuple[Labelled, ...]:
    content, index_of = _read(path), _class_index(classes)
    labelled = []
    for image in images:
        given = _labels_of(image, content, path)
        several = given if isinstance(given, list) else [given]
        numbers = dict.fromkeys(index_of(label, f"{path}, {image.name}") for label in several)
        if numbers:
            labelled.append((image, tuple(numbers)))
    return tuple(labelled)


def _read(path: str) -> list[Any] | dict[str, Any]:
    try:
        content = json.loads(read_text(path, limit=MOST_BYTES))
    except FileNotFoundError:
        raise DatasetError(
            f"eval.labels={path}: no such file; expected {FOLDERS}, or a JSON file of labels"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not a JSON file of labels ({error})") from None
    if not isinstance(content, list | dict):
        raise DatasetError(f"{path}: expected a list or a mapping of labels")
    return content


def _labels_of(image: ImageFile, content: list[Any] | dict[str, Any], path: str) -> Any:
    name = posixpath.basename(image.name)
    if isinstance(content, dict):
        return content.get(name, [])
    number = _NUMBER.search(name)
    if not number or not 1 <= int(number[1]) <= len(content):
        raise DatasetError(
            f"{image.name}: no number from 1 to {len(content)} at the end of its name, by which the"
            f" list {path} would label it, as in ILSVRC2012_val_00000001.JPEG"
        )
    return content[int(number[1]) - 1]


def _class_index(classes: DatasetInfo) -> Callable[[Any, str], int]:
    """Return a function from a label and its place, for errors, to the index of its class."""
    names: Mapping[str, int] = {name: n for n, name in enumerate(classes.class_names or ())}

    def index_of(label: Any, place: str) -> int:
        text = str(label)
        if isinstance(label, str) and text in names:
            return names[text]
        if text.isdecimal() and int(text) < classes.num_classes:
            return int(text)
        known = f" or a name such as {next(iter(names))}" if names else ""
        raise DatasetError(
            f"{place}: {text[:80]!r} is no class of {classes.name}; expected an index in"
            f" [0, {classes.num_classes}){known}"
        )

    return index_of
