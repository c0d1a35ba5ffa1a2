"""Labels of a flat folder or tar of validation images, as ImageNet's come.

Four forms are read: one class name per line in the order of the file names; lines "FILE CLASS"; the
CSV of the Kaggle edition; and the development kit's ILSVRC2012_validation_ground_truth.txt. The
last one holds the kit's own numbers, which are NOT in the order of the sorted class names: the
kit's meta.mat maps them to names.
"""

import os
from collections.abc import Sequence

import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources.listing import ImageFile, Labelled
from system.files import open_binary

META = "meta.mat"


def label_validation(
    images: Sequence[ImageFile], labels_path: str, class_names: Sequence[str]
) -> tuple[Labelled, ...]:
    """Return (file, class) of every image, sorted by class and name.

    Args:
      images: the validation images, sorted by name.
      labels_path: one of the forms above.
      class_names: folder names of the training classes, sorted.

    Raises:
      DatasetError: an unknown form or class, or labels that do not match the images.
    """
    names = _class_of_each(images, labels_path, set(class_names))
    number = {name: n for n, name in enumerate(class_names)}
    unknown = [name for name in names if name not in number]
    if unknown:
        raise DatasetError(f"{labels_path}: class {unknown[0]!r} has no training images")
    labelled = [(image, (number[name],)) for image, name in zip(images, names, strict=True)]
    return tuple(sorted(labelled, key=lambda pair: (pair[1], pair[0].name)))


def _class_of_each(images: Sequence[ImageFile], path: str, known: set[str]) -> list[str]:
    lines = _lines(path)
    if lines[0].startswith("ImageId,"):
        by_name = dict(_kaggle_row(path, line) for line in lines[1:])
    elif len(lines[0].split()) == 2:
        by_name = dict(line.split() for line in lines)
    else:
        if len(lines) != len(images):
            raise DatasetError(
                f"{path}: {len(lines)} labels, but there are {len(images)} validation images"
            )
        are_numbers = all(line.isdigit() for line in lines) and not set(lines) <= known
        return _synsets(path, lines) if are_numbers else lines
    stems = {_stem(name): label for name, label in by_name.items()}
    missing = [image.name for image in images if _stem(image.name) not in stems]
    if missing:
        raise DatasetError(f"{path}: no label for {missing[0]}")
    return [stems[_stem(image.name)] for image in images]


def _lines(path: str) -> list[str]:
    try:
        with open_binary(path) as file:
            text = file.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error})") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DatasetError(f"{path}: the file has no labels")
    return lines


def _kaggle_row(path: str, line: str) -> tuple[str, str]:
    """ "ILSVRC2012_val_00000001,n01751748 111 108 441 193": the first word names the class."""
    name, _, boxes = line.partition(",")
    if not boxes.split():
        raise DatasetError(f"{path}: no class in line {line!r}")
    return name, boxes.split()[0]


def _synsets(path: str, lines: list[str]) -> list[str]:
    """Return the class names of the development kit's numbers, from the meta.mat beside the labels."""
    for folder in (os.path.dirname(path), os.path.join(os.path.dirname(path), "data")):
        meta = os.path.join(folder, META)
        if tf.io.gfile.exists(meta):
            break
    else:
        raise DatasetError(
            f"{path}: these are class numbers of the development kit; put its {META} in the same folder"
        )
    from scipy.io import loadmat  # type: ignore[import-untyped]

    try:
        with open_binary(meta) as file:
            table = loadmat(file, squeeze_me=True)["synsets"]
        names = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in table}
        return [names[int(line)] for line in lines]
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise DatasetError(f"{meta}: does not match the labels of {path} ({error})") from None


def _stem(name: str) -> str:
    return os.path.splitext(os.path.basename(name))[0]
