"""Images with boxes in the JSON files of COCO.

    annotations/instances_train2017.json, annotations/instances_val2017.json, train2017/, val2017/
    train.json, val.json (or test.json), images/
    train/_annotations.coco.json, valid/_annotations.coco.json, with the images beside them

Classes are the categories in the order of their ids. COCO's own 80 categories keep their ids, 1 to 90 with
gaps, as in the published networks.
"""

import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from input_pipeline.errors import DatasetError
from input_pipeline.sources.boxed import (
    LARGEST,
    BoxedImage,
    BoxedImages,
    Objects,
    complete,
    first_present,
    is_coordinate,
    make_objects,
    names_in,
    open_boxed,
    read_text,
    refuse_missing,
)
from input_pipeline.sources.listing import (
    DEFAULT_VALIDATION_FRACTION,
    ImageFile,
)
from input_pipeline.sources.source import Source, SourceRequest
from system.errors import first_line

EXPECTED = (
    "a folder with annotations/instances_train2017.json and train2017/, or train.json and images/"
)
# By split, its names in paths; the first existing annotations are read.
SPLITS = {"train": ("train",), "validation": ("val", "valid", "validation", "test")}
FILES = (
    "annotations/instances_{}2017.json",
    "annotations/instances_{}.json",
    "annotations/{}.json",
    "{}.json",
    "{}/_annotations.coco.json",
)
FOLDERS = ("{}2017", "{}", "images/{}2017", "images/{}", "images", "")  # of the images
HIGHEST_COCO_ID = 90
COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # ids without a category
COCO_IDS = set(range(1, HIGHEST_COCO_ID + 1)) - COCO_GAPS


def open_coco(request: SourceRequest) -> Source:
    """Open the images and boxes in `request.data_dir`; "coco:0.2" holds out 20 % without a validation file.

    Raises:
      DatasetError: see `list_coco`.
    """
    return open_boxed(request, "coco", EXPECTED, list_coco)


def is_coco(path: str) -> bool:
    """Return whether a folder has training annotations at one of the known paths."""
    return first_present(path, [name.format("train") for name in FILES]) is not None


def list_coco(path: str, validation_fraction: float = DEFAULT_VALIDATION_FRACTION) -> BoxedImages:
    """Read the annotations of every split and find their images.

    Images without annotations are examples without objects.

    Raises:
      DatasetError: a file is missing or malformed, images are missing, an annotation names an unknown
        image or category, or a split has no box.
    """
    splits: dict[str, tuple[BoxedImage, ...]] = {}
    notes: list[str] = []
    categories: dict[int, str] = {}
    for split, names in SPLITS.items():
        for name in names:
            file = first_present(path, [each.format(name) for each in FILES])
            if file is not None:
                content = _load(file)
                categories = categories or _categories(file, content)
                splits[split] = _images(path, name, file, content, _numbers(categories))
                notes.append(f"{split} images: {posixpath.relpath(file, path)}")
                break
    if "train" not in splits:
        raise DatasetError(f"{path}: no annotations of training images; expected {EXPECTED}")
    images = BoxedImages(_class_names(categories), splits, tuple(notes))
    return complete(path, images, validation_fraction)


def _load(file: str) -> Mapping[str, Any]:
    try:
        content = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{file}, line {error.lineno}: not JSON ({error.msg})") from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number too long
        raise DatasetError(f"{file}: not JSON of COCO ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{file}: expected an object with images, annotations and categories")
    return content


def _rows(file: str, content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    rows = content.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DatasetError(f"{file}: {key!r} must be a list of objects")
    return rows


def _value(where: str, row: Mapping[str, Any], key: str, kinds: tuple[type, ...]) -> Any:
    value = row.get(key)
    if not isinstance(value, kinds) or isinstance(value, bool):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise DatasetError(f"{where}: {key} is {value!r:.60}; expected {expected}")
    return value


def _categories(file: str, content: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of the categories by id, in the order of the ids."""
    found = {}
    for number, row in enumerate(_rows(file, content, "categories")):
        where = f"{file}, category {number}"
        found[_value(where, row, "id", (int,))] = _value(where, row, "name", (str,))
    if not found:
        raise DatasetError(f"{file}: no categories")
    return dict(sorted(found.items()))


def _numbers(categories: Mapping[int, str]) -> dict[int, int]:
    """Return the class of each category id."""
    if set(categories) == COCO_IDS:
        return {identifier: identifier - 1 for identifier in categories}
    return {identifier: number for number, identifier in enumerate(categories)}


def _class_names(categories: Mapping[int, str]) -> tuple[str, ...]:
    if set(categories) == COCO_IDS:
        return tuple(categories.get(n, f"unused {n}") for n in range(1, HIGHEST_COCO_ID + 1))
    return tuple(categories.values())


def _images(
    path: str, split: str, file: str, content: Mapping[str, Any], numbers: Mapping[int, int]
) -> tuple[BoxedImage, ...]:
    """Return the images of one annotation file, in its order."""
    rows = {}
    for number, row in enumerate(_rows(file, content, "images")):
        where = f"{file}, image {number}"
        rows[_value(where, row, "id", (int, str))] = row
        for side in ("height", "width"):
            if not is_coordinate(row.get(side)) or row[side] <= 0:
                value = f"{row.get(side)!r:.60}"
                raise DatasetError(f"{where}: {side} is {value}; expected pixels, more than 0")
        _value(where, row, "file_name", (str,))
    annotations: dict[Any, list[Mapping[str, Any]]] = {image: [] for image in rows}
    for number, row in enumerate(_rows(file, content, "annotations")):
        where = f"{file}, annotation {row.get('id', number)}"
        image = _value(where, row, "image_id", (int, str))
        if image not in annotations:
            raise DatasetError(f"{where}: no image {image!r:.60}")
        category = _value(where, row, "category_id", (int,))
        if category not in numbers:
            known = ", ".join(map(str, list(numbers)[:10])) + (" ..." if len(numbers) > 10 else "")
            raise DatasetError(f"{where}: no category {category}; known ids: {known}")
        _check_box(where, row.get("bbox"))
        annotations[image].append(row)
    files = _find(path, split, file, [row["file_name"] for row in rows.values()])
    return tuple(
        (files[row["file_name"]], _objects(row, annotations[image], numbers))
        for image, row in rows.items()
    )


def _check_box(where: str, box: Any) -> None:
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_coordinate, box)):
        raise DatasetError(f"{where}: bbox is {box!r:.60}; expected [x, y, width, height]")


def _objects(
    image: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], numbers: Mapping[int, int]
) -> Objects:
    corners = []
    for row in rows:
        x, y, width, height = row["bbox"]
        corners.append([y, x, y + height, x + width])
    return make_objects(
        corners,
        [numbers[row["category_id"]] for row in rows],
        (image["height"], image["width"]),
        crowd=[int(bool(row.get("iscrowd", 0))) for row in rows],
        area=[_area(row) for row in rows],
        source_id=str(image["id"]),
    )


def _area(row: Mapping[str, Any]) -> float:
    """Return the annotated area of an object, in pixels, or else that of its box."""
    area = row.get("area")
    if isinstance(area, int | float) and 0 <= area <= LARGEST**2:
        return float(area)
    return float(row["bbox"][2] * row["bbox"][3])


def _find(path: str, split: str, file: str, names: Sequence[str]) -> dict[str, ImageFile]:
    """Find images in the candidate folder that has most of them."""
    folders = [
        posixpath.dirname(file),
        *(posixpath.join(path, each.format(split)) for each in FOLDERS),
    ]
    best, missing = path, list(names)
    for folder in dict.fromkeys(folder.rstrip("/") for folder in folders):
        below = {posixpath.dirname(name) for name in names}
        there = {
            posixpath.join(part, name)
            for part in below
            for name in names_in(posixpath.join(folder, part))
        }
        absent = [name for name in names if name not in there]
        if len(absent) < len(missing):
            best, missing = folder, absent
        if not missing:
            break
    refuse_missing(file, missing, len(names), f"{best}/")
    return {name: ImageFile(name, posixpath.join(best, name)) for name in names}
