"""Images with boxes in the XML files of PASCAL VOC.

    ImageSets/Main/train.txt, val.txt; Annotations/NAME.xml; JPEGImages/NAME.jpg
    train.txt, val.txt (or test.txt); annotations/NAME.xml; images/NAME.jpg

Lists name images without extension. As in the published conversion, coordinates are not changed, although
VOC's count pixels from 1, and objects marked as difficult are objects like others.
"""

import math
import posixpath
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from input_pipeline.errors import DatasetError
from input_pipeline.sources.boxed import (
    BoxedImage,
    BoxedImages,
    complete,
    first_present,
    is_coordinate,
    make_objects,
    names_in,
    open_boxed,
    read_names,
    read_text,
    refuse_missing,
)
from input_pipeline.sources.listing import (
    DEFAULT_VALIDATION_FRACTION,
    EXTENSIONS,
    ImageFile,
)
from input_pipeline.sources.source import Source, SourceRequest

EXPECTED = (
    "a folder with ImageSets/Main, Annotations and JPEGImages, or train.txt, annotations and images"
)
LISTS = ("ImageSets/Main/{}.txt", "{}.txt")
SPLITS = {"train": ("train",), "validation": ("val", "validation", "test")}
ANNOTATIONS, IMAGES = ("Annotations", "annotations"), ("JPEGImages", "images")
CLASS_FILES = ("classes.txt", "labels.txt")
CORNERS = ("ymin", "xmin", "ymax", "xmax")


class Annotated(NamedTuple):
    """The content of an XML file: the size of its image, and rows of CORNERS in pixels with class names."""

    height: float
    width: float
    corners: list[list[float]]
    names: list[str]


def open_voc_boxes(request: SourceRequest) -> Source:
    """Open the images and boxes in `request.data_dir`; "voc_boxes:0.2" holds out 20 % without a val list.

    Raises:
      DatasetError: see `list_voc_boxes`.
    """
    return open_boxed(request, "voc_boxes", EXPECTED, list_voc_boxes)


def is_voc(path: str) -> bool:
    """Return whether a folder has a training list and XML files."""
    has_list = first_present(path, [name.format("train") for name in LISTS]) is not None
    return has_list and first_present(path, ANNOTATIONS) is not None


def list_voc_boxes(
    path: str, validation_fraction: float = DEFAULT_VALIDATION_FRACTION
) -> BoxedImages:
    """Read the lists of every split, their annotations, and find the images.

    The classes are the lines of classes.txt (or labels.txt), or else the sorted names in the training
    annotations, which is the order of VOC's own twenty classes.

    Raises:
      DatasetError: a list or folder is missing, a file is malformed, images or annotations are missing, a
        class is unknown, or a split has no box.
    """
    annotations, images = (_folder(path, names) for names in (ANNOTATIONS, IMAGES))
    listed, notes = {}, []
    for split, names in SPLITS.items():
        candidates = [each.format(name) for name in names for each in LISTS]
        file = first_present(path, candidates)
        if file is not None:
            listed[split] = _read_list(file, annotations, images)
            notes.append(f"{split} images: {posixpath.relpath(file, path)}")
    if "train" not in listed:
        raise DatasetError(f"{path}: no list of training images; expected {EXPECTED}")
    read = {
        split: [(image, file, read_annotation(file)) for image, file in pairs]
        for split, pairs in listed.items()
    }
    class_names = _class_names(path, [found for _, _, found in read["train"]])
    number = {name: n for n, name in enumerate(class_names)}
    splits = {
        split: tuple(_boxed_image(image, file, found, number) for image, file, found in rows)
        for split, rows in read.items()
    }
    return complete(path, BoxedImages(class_names, splits, tuple(notes)), validation_fraction)


def read_annotation(file: str) -> Annotated:
    """Read one XML file.

    Raises:
      DatasetError: it is malformed, or a value is missing or not a number.
    """
    text = read_text(file)
    if "<!ENTITY" in text:  # entities of entities grow without bound
        raise DatasetError(f"{file}: defines XML entities, which annotations do not need")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DatasetError(f"{file}, line {error.position[0]}: not XML ({error})") from None
    except ValueError as error:  # unknown declared encoding
        raise DatasetError(f"{file}: not XML ({error})") from None
    height, width = (_number(file, root, f"size/{side}") for side in ("height", "width"))
    if height <= 0 or width <= 0:
        raise DatasetError(f"{file}: size is {height:g} x {width:g}; expected more than 0")
    corners, names = [], []
    for number, found in enumerate(root.findall("object"), 1):
        where = f"{file}, object {number}"
        corners.append([_number(where, found, f"bndbox/{corner}") for corner in CORNERS])
        names.append((found.findtext("name") or "").strip())
        if not names[-1]:
            raise DatasetError(f"{where}: no name")
    return Annotated(height, width, corners, names)


def _folder(path: str, names: Iterable[str]) -> str:
    found = first_present(path, names)
    if found is None:
        raise DatasetError(f"{path}: no folder {' or '.join(names)} in it; expected {EXPECTED}")
    return found


def _read_list(file: str, annotations: str, images: str) -> list[tuple[ImageFile, str]]:
    """Return the images that a list names, with their XML files."""
    names = [line.split()[0] for line in read_text(file).splitlines() if line.strip()]
    if not names:
        raise DatasetError(f"{file}: empty; expected a name of an image on each line")
    described = set(names_in(annotations))
    missing = [f"{name}.xml" for name in names if f"{name}.xml" not in described]
    refuse_missing(file, missing, len(names), f"{annotations}/")
    present = {
        stem: name
        for name in names_in(images)
        for stem, dot, ending in [name.rpartition(".")]
        if f"{dot}{ending}".lower() in EXTENSIONS
    }
    refuse_missing(file, [name for name in names if name not in present], len(names), f"{images}/")
    return [
        (
            ImageFile(present[name], posixpath.join(images, present[name])),
            posixpath.join(annotations, f"{name}.xml"),
        )
        for name in names
    ]


def _number(where: str, element: ElementTree.Element, path: str) -> float:
    text = element.findtext(path)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not is_coordinate(value):
        raise DatasetError(f"{where}: {path} is {text!r:.60}; expected a number")
    return value


def _class_names(path: str, train: Sequence[Annotated]) -> tuple[str, ...]:
    given = first_present(path, CLASS_FILES)
    if given is not None:
        return read_names(given)
    return tuple(sorted({name for each in train for name in each.names}))


def _boxed_image(
    image: ImageFile, file: str, found: Annotated, number: dict[str, int]
) -> BoxedImage:
    for place, name in enumerate(found.names, 1):
        if name not in number:
            raise DatasetError(
                f"{file}, object {place}: no class {name!r:.60}; known: {', '.join(list(number)[:10])}"
            )
    classes = [number[name] for name in found.names]
    return image, make_objects(found.corners, classes, (found.height, found.width))
