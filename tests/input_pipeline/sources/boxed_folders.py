"""Small sets of images with boxes, in the layouts of COCO, VOC and YOLO."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

HEIGHT, WIDTH = 24, 32
NAMES = ("cat", "dog")
# By split, the images with their objects: class, ymin, xmin, ymax, xmax in pixels.
OBJECTS: dict[str, dict[str, list[tuple[int, float, float, float, float]]]] = {
    "train": {
        "a": [(0, 2.0, 4.0, 10.0, 16.0), (1, 12.0, 8.0, 20.0, 30.0)],
        "b": [],
        "c": [(1, 0.0, 0.0, 24.0, 32.0)],
    },
    "val": {"d": [(0, 6.0, 6.0, 12.0, 12.0)]},
}


def write_images(folder: Path, names: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        pixels = np.full([HEIGHT, WIDTH, 3], 20 * ord(name[0]) % 256, np.uint8)
        (folder / f"{name}.jpg").write_bytes(tf.io.encode_jpeg(pixels).numpy())


def coco(split: str) -> dict[str, Any]:
    """Annotations whose category ids are 3 and 7, and of which the image "c" is a crowd."""
    images = [
        {"id": n, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH}
        for n, name in enumerate(OBJECTS[split])
    ]
    annotations = [
        {
            "id": 100 + n,
            "image_id": n,
            "category_id": (3, 7)[label],
            "bbox": [left, top, right - left, bottom - top],
            "area": 10.5,
            "iscrowd": int(name == "c"),
        }
        for n, (name, objects) in enumerate(OBJECTS[split].items())
        for label, top, left, bottom, right in objects
    ]
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(path: Path) -> None:
    for split in OBJECTS:
        write_images(path / f"{split}2017", OBJECTS[split])
        (path / "annotations").mkdir(exist_ok=True)
        file = path / "annotations" / f"instances_{split}2017.json"
        file.write_text(json.dumps(coco(split)))


def voc(name: str, objects: Any) -> str:
    parts = [
        f"<object><name>{NAMES[label]}</name><difficult>0</difficult><bndbox><xmin>{left}</xmin>"
        f"<ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>\n"
        for label, top, left, bottom, right in objects
    ]
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>\n"
    return f"<annotation>\n<filename>{name}.jpg</filename>\n{size}{''.join(parts)}</annotation>\n"


def write_voc(path: Path) -> None:
    (path / "ImageSets" / "Main").mkdir(parents=True)
    (path / "Annotations").mkdir()
    for split, images in OBJECTS.items():
        write_images(path / "JPEGImages", images)
        (path / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(images))
        for name, objects in images.items():
            (path / "Annotations" / f"{name}.xml").write_text(voc(name, objects))


def write_yolo(path: Path) -> None:
    for split, images in OBJECTS.items():
        write_images(path / "images" / split, images)
        (path / "labels" / split).mkdir(parents=True)
        for name, objects in images.items():
            lines = [
                f"{label} {(left + right) / 2 / WIDTH} {(top + bottom) / 2 / HEIGHT}"
                f" {(right - left) / WIDTH} {(bottom - top) / HEIGHT}"
                for label, top, left, bottom, right in objects
            ]
            if objects:
                (path / "labels" / split / f"{name}.txt").write_text("\n".join(lines))
    (path / "data.yaml").write_text("names:\n  0: cat\n  1: dog\n")
