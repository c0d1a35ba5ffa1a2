"""Images with boxes in the text files of YOLO.

    images/train/NAME.jpg, labels/train/NAME.txt, images/val, labels/val
    train/images, train/labels, valid/images, valid/labels
    images, labels

A line of a text file is CLASS CENTRE_X CENTRE_Y WIDTH HEIGHT, the class from 0 and the rest in 0..1 of the
image's sides. data.yaml or classes.txt has the names of the classes.
"""

import posixpath
import re
from collections.abc import Sequence

import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources.boxed import (
    BoxedImage,
    BoxedImages,
    Objects,
    complete,
    first_present,
    is_coordinate,
    make_objects,
    names_in,
    open_boxed,
    read_names,
    read_text,
)
from input_pipeline.sources.listing import (
    DEFAULT_VALIDATION_FRACTION,
    list_images,
)
from input_pipeline.sources.source import Source, SourceRequest

EXPECTED = (
    "a folder with images/train, labels/train and data.yaml, or train/images and train/labels"
)
SPLITS = {"train": ("train",), "validation": ("val", "valid", "validation", "test")}
# By split, the folders of its images and of its text files.
FOLDERS = (("images/{}", "labels/{}"), ("{}/images", "{}/labels"))
WITHOUT_SPLITS = ("images", "labels")
YAML_FILES = ("data.yaml", "data.yml", "dataset.yaml")
NAME_FILES = ("classes.txt", "labels/classes.txt", "obj.names")
# A line below `names:`, "- cat" or "0: cat".
_ENTRY = re.compile(r"\s*(?:-|(?P<key>\d+)\s*:)\s+(?P<name>.*\S)\s*")
FORMAT = "CLASS CENTRE_X CENTRE_Y WIDTH HEIGHT"


def open_yolo(request: SourceRequest) -> Source:
    """Open the images and boxes in `request.data_dir`; "yolo:0.2" holds out 20 % without val images.

    Raises:
      DatasetError: see `list_yolo`.
    """
    return open_boxed(request, "yolo", EXPECTED, list_yolo)


def is_yolo(path: str) -> bool:
    """Return whether a folder has the training folders of YOLO."""
    return _folders(path, "train") is not None


def list_yolo(path: str, validation_fraction: float = DEFAULT_VALIDATION_FRACTION) -> BoxedImages:
    """List the images of every split and read their text files.

    An image without a text file is an example without objects.

    Raises:
      DatasetError: a folder or the names of the classes are missing, a line is malformed, a class is
        unknown, or a split has no box.
    """
    if not is_yolo(path):
        raise DatasetError(f"{path}: no folders of training images and labels; expected {EXPECTED}")
    class_names = _class_names(path)
    splits: dict[str, tuple[BoxedImage, ...]] = {}
    notes: list[str] = []
    for split, names in SPLITS.items():
        for name in names:
            folders = _folders(path, name)
            if folders is not None:
                splits[split] = _boxed_images(*folders, len(class_names))
                notes.append(f"{split} images: {posixpath.relpath(folders[0], path)}/")
                break
    return complete(path, BoxedImages(class_names, splits, tuple(notes)), validation_fraction)


def _folders(path: str, split: str) -> tuple[str, str] | None:
    """Return the folders of the images and of the text files of a split; None unless both exist."""
    pairs = [tuple(each.format(split) for each in pair) for pair in FOLDERS]
    for pair in [*pairs, *([WITHOUT_SPLITS] if split == "train" else [])]:
        images, labels = (posixpath.join(path, each) for each in pair)
        if tf.io.gfile.isdir(images) and tf.io.gfile.isdir(labels):
            return images, labels
    return None


def _class_names(path: str) -> tuple[str, ...]:
    described = first_present(path, YAML_FILES)
    if described is not None:
        return _names_of_yaml(described)
    listed = first_present(path, NAME_FILES)
    if listed is not None:
        return read_names(listed)
    raise DatasetError(
        f"{path}: the names of the classes are not known; expected {' or '.join(YAML_FILES[:1])} with names,"
        f" or {NAME_FILES[0]} with one on each line"
    )


def _names_of_yaml(file: str) -> tuple[str, ...]:
    """Return the entries of `names`: [a, b], or lines of the form "- a" or "0: a".

    Other YAML is not supported: YOLO's files need nothing else.
    """
    lines = [line.split(" #")[0].rstrip() for line in read_text(file).splitlines()]
    start = next((n for n, line in enumerate(lines) if line.startswith("names:")), None)
    if start is None:
        raise DatasetError(f"{file}: no key 'names'; expected the names of the classes")
    inline = lines[start].removeprefix("names:").strip()
    items: list[str] = []
    for number, line in enumerate(lines[start + 1 :]):
        if inline.startswith("[") and not inline.endswith("]"):
            inline += line.strip()
        elif not inline and (entry := _ENTRY.fullmatch(line)):
            if entry["key"] not in (None, str(len(items))):
                place = f"{file}, line {start + number + 2}"
                raise DatasetError(f"{place}: class {entry['key']}; expected {len(items)}")
            items.append(entry["name"])
        elif line.strip():
            break
    if inline.startswith("[") and inline.endswith("]"):
        items = [each.strip() for each in inline[1:-1].split(",") if each.strip()]
    names = tuple(each.strip("'\"") for each in items)
    if not names or len(set(names)) < len(names):
        raise DatasetError(
            f"{file}, line {start + 1}: names are {', '.join(names)[:60] or 'none'}; expected a different"
            f" name for each class, as [cat, dog]; or write them into {NAME_FILES[0]} instead"
        )
    return names


def _boxed_images(images: str, labels: str, num_classes: int) -> tuple[BoxedImage, ...]:
    here = set(_text_files(labels))
    found = []
    for image in list_images(images):
        name = f"{image.name.rpartition('.')[0]}.txt"
        objects = make_objects([], [])
        if name in here:
            objects = read_objects(posixpath.join(labels, name), num_classes)
        found.append((image, objects))
    return tuple(found)


def _text_files(folder: str) -> list[str]:
    """List the text files in a folder and below, relative to it."""
    found = []
    for name in names_in(folder):
        if name.endswith(".txt"):
            found.append(name)
        elif "." not in name:
            found += [f"{name}/{each}" for each in _text_files(posixpath.join(folder, name))]
    return found


def read_objects(file: str, num_classes: int) -> Objects:
    """Read one text file.

    Raises:
      DatasetError: a line is malformed, or a class is unknown.
    """
    corners, classes = [], []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        values = _values(line.split())
        if values is None:
            raise DatasetError(f"{file}, line {number}: {line!r:.60}; expected {FORMAT}")
        label, x, y, width, height = values
        if label not in range(num_classes):
            raise DatasetError(
                f"{file}, line {number}: class {label:g} is outside 0..{num_classes - 1}"
            )
        corners.append([y - height / 2, x - width / 2, y + height / 2, x + width / 2])
        classes.append(int(label))
    return make_objects(corners, classes)


def _values(words: Sequence[str]) -> list[float] | None:
    """Return the five numbers of a line; None if they are malformed."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        return None
    return values if len(values) == 5 and all(map(is_coordinate, values)) else None
