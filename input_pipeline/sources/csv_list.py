"""Image files listed in CSV files, with one class or several for each image.

    path,label              path,labels
    images/1.jpg,cat        images/1.jpg,cat;indoor
    images/2.jpg,dog        images/2.jpg,

A path is relative to its list's folder. Other columns are ignored. The classes are the lines of
classes.txt beside the lists, in this order, or else the sorted names in the training list.
"""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources.image_folder import read_files
from input_pipeline.sources.listing import (
    DEFAULT_VALIDATION_FRACTION,
    ClassImages,
    ImageFile,
    Labelled,
    parse_fraction,
)
from input_pipeline.sources.source import Source, SourceRequest
from input_pipeline.targets.class_label import ClassLabel
from system.files import beside

TRAIN_LIST = "train.csv"
VALIDATION_LISTS = ("validation.csv", "val.csv", "test.csv")  # the first that has labels
CLASSES_FILE = "classes.txt"
LABEL, LABELS = "label", "labels"  # columns
SEPARATOR = ";"  # of the names in the column LABELS
HEADER = f"path,{LABEL} or path,{LABELS}"


class _Row(NamedTuple):
    """A listed image: the file and line that list it, the image, and the names of its classes."""

    place: str
    image: ImageFile
    names: tuple[str, ...]


def open_csv(request: SourceRequest) -> Source:
    """Open the images that `request.data_dir` lists; "csv:0.2" holds out 20 % without a second list.

    Raises:
      DatasetError: no data_dir, or see `read_lists`.
    """
    if request.data_dir is None:
        raise DatasetError(
            f"data source csv needs data_dir: a CSV file, or a folder with {TRAIN_LIST}"
        )
    images = read_lists(
        request.data_dir,
        parse_fraction("csv", request.argument),
        one_class=isinstance(request.target, ClassLabel),
    )
    return read_files(os.path.basename(request.data_dir.rstrip("/")), images, request.sampling)


def read_lists(
    path: str,
    validation_fraction: float = DEFAULT_VALIDATION_FRACTION,
    *,
    one_class: bool = False,
) -> ClassImages:
    """Read the lists of training and evaluation images.

    Args:
      path: the training list, or the folder that holds it as train.csv. The evaluation list is beside
        it: validation.csv, val.csv, or test.csv if it has labels.
      validation_fraction: in [0, 1); fraction of the training images to hold out, at random and
        rounded, if there is no evaluation list.
      one_class: require exactly one class for each image.

    Raises:
      DatasetError: a list or an image is missing, a list is malformed or empty, an image is listed
        twice, a class is unknown, or an image has not exactly one with `one_class`.
    """
    if not 0.0 <= validation_fraction < 1.0:
        raise DatasetError(f"invalid validation fraction {validation_fraction:g}; expected [0, 1)")
    if tf.io.gfile.isdir(path):
        path = os.path.join(path, TRAIN_LIST)
    path = beside(path, os.path.basename(path))  # spelled as those of the other lists
    listed = {"train": _read_list(path, one_class)}
    notes = [f"evaluation images: {validation_fraction:.4g} of the training images"]
    for name in VALIDATION_LISTS:
        other = beside(path, name)
        if other == path or not tf.io.gfile.exists(other):
            continue
        if not _has_labels(other):
            notes.append(f"not used: {name} (no column {LABEL} or {LABELS})")
            continue
        listed["validation"] = _read_list(other, one_class)
        notes[0] = f"evaluation images: {name}"
        break
    _check_images([row for rows in listed.values() for row in rows])
    class_names = _class_names(path, listed["train"])
    splits = {split: _number_classes(rows, class_names) for split, rows in listed.items()}
    if "validation" not in splits:
        splits = _hold_out(splits["train"], validation_fraction)
    return ClassImages(class_names, splits, tuple(notes))


def _read_list(path: str, one_class: bool) -> list[_Row]:
    with _reader(path) as reader:
        column = _label_column(path, reader.fieldnames or ())
        rows = [_row(path, f"{path}, line {reader.line_num}", cells, column) for cells in reader]
    if not rows:
        raise DatasetError(f"{path}: lists no images")
    for row in rows:
        if one_class and len(row.names) != 1:
            raise DatasetError(
                f"{row.place}: {len(row.names)} labels; expected 1, or task.name=multi_label "
                "(input_pipeline.inspect: --target=classes)"
            )
    return rows


@contextmanager
def _reader(path: str) -> Iterator["csv.DictReader[str]"]:
    """Open a CSV file; turn the errors of reading it into one line."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            text = file.read().decode("utf-8-sig")
    except tf.errors.NotFoundError:
        raise DatasetError(f"{path}: no such file; expected a CSV file with {HEADER}") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text (byte {error.start})") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        yield reader
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num + 1}: {error}") from None


def _has_labels(path: str) -> bool:
    with _reader(path) as reader:
        return not {LABEL, LABELS}.isdisjoint(reader.fieldnames or ())


def _label_column(path: str, columns: Iterable[str]) -> str:
    found = {LABEL, LABELS}.intersection(columns)
    if "path" not in columns or len(found) != 1:
        given = ",".join(columns) or "nothing"
        raise DatasetError(f"{path}, line 1: the columns are {given}; expected {HEADER}")
    return found.pop()


def _row(path: str, place: str, cells: dict[str, str], column: str) -> _Row:
    name, text = cells["path"], cells[column]
    if None in cells or name is None or text is None:
        raise DatasetError(f"{place}: expected as many cells as the header has; quote commas")
    if not name.strip():
        raise DatasetError(f"{place}: no path")
    texts = text.split(SEPARATOR) if column == LABELS else [text]
    names = tuple(dict.fromkeys(each.strip() for each in texts if each.strip()))
    if column == LABEL and not names:
        raise DatasetError(
            f"{place}: no label; for images of no class or of several, name the column {LABELS}"
        )
    name = name.strip() if "://" in name else os.path.normpath(name.strip())
    return _Row(place, ImageFile(name, beside(path, name)), names)


def _check_images(rows: Sequence[_Row]) -> None:
    """Raise DatasetError if a file is missing or listed twice; each folder is read once."""
    folders: dict[str, set[str]] = {}
    places: dict[str, str] = {}
    for row in rows:
        path = row.image.path
        folder, name = os.path.split(path)
        if folder not in folders:
            there = tf.io.gfile.isdir(folder)
            folders[folder] = set(tf.io.gfile.listdir(folder)) if there else set()
        if name not in folders[folder]:
            raise DatasetError(
                f"{row.place}: no file {path}; paths are relative to the list's folder"
            )
        if path in places:
            raise DatasetError(f"{row.place}: {row.image.name} is listed already in {places[path]}")
        places[path] = row.place


def _class_names(path: str, train: Sequence[_Row]) -> tuple[str, ...]:
    given = beside(path, CLASSES_FILE)
    if not tf.io.gfile.exists(given):
        names = sorted({name for row in train for name in row.names})
        if not names:
            raise DatasetError(f"{path}: no image has a label")
        return tuple(names)
    with tf.io.gfile.GFile(given) as file:
        names = [line.strip() for line in file.read().splitlines() if line.strip()]
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice or not names:
        found = f"class {twice[0]!r} twice" if twice else "no classes"
        raise DatasetError(f"{given}: {found}; expected a class on each line")
    return tuple(names)


def _number_classes(rows: Sequence[_Row], class_names: Sequence[str]) -> tuple[Labelled, ...]:
    number = {name: n for n, name in enumerate(class_names)}
    for row in rows:
        for name in row.names:
            if name not in number:
                raise DatasetError(
                    f"{row.place}: unknown class {name!r}; expected a class of {CLASSES_FILE} or, "
                    "without that file, of the training list"
                )
    return tuple((row.image, tuple(number[name] for name in row.names)) for row in rows)


def _hold_out(train: Sequence[Labelled], fraction: float) -> dict[str, tuple[Labelled, ...]]:
    """Split at random, with a fixed seed; each part in the order of the list."""
    order = np.random.default_rng(0).permutation(len(train))
    held_out = set(order[: round(fraction * len(train))].tolist())
    return {
        "train": tuple(each for n, each in enumerate(train) if n not in held_out),
        "validation": tuple(each for n, each in enumerate(train) if n in held_out),
    }
