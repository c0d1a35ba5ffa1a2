"""Annotations from anybody: objects, or one line that names the file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from input_pipeline.errors import DatasetError
from input_pipeline.images.framing import ScaleJitter
from input_pipeline.images.view import EvalView, TrainView
from input_pipeline.sources.boxed import BoxedImages, read_boxed
from input_pipeline.sources.coco import list_coco
from input_pipeline.sources.voc_boxes import list_voc_boxes
from input_pipeline.sources.yolo import list_yolo
from input_pipeline.targets.boxes import BOX_FEATURES, NO_CLASS, Boxes
from tests.fuzz import bounded, damaged
from tests.input_pipeline.sources.boxed_folders import coco, write_coco, write_voc, write_yolo

pytestmark = pytest.mark.slow

# By layout: how a sound set is written and listed, and the files that are damaged.
LAYOUTS: dict[str, tuple[Callable[[Path], None], Callable[[str], BoxedImages], tuple[str, ...]]] = {
    "coco": (write_coco, list_coco, ("annotations/instances_train2017.json",)),
    "voc": (write_voc, list_voc_boxes, ("Annotations/a.xml", "ImageSets/Main/train.txt")),
    "yolo": (write_yolo, list_yolo, ("labels/train/a.txt", "data.yaml")),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("layouts")
    for name, (write, _, _) in LAYOUTS.items():
        (root / name).mkdir()
        write(root / name)
    return {name: root / name for name in LAYOUTS}


def assert_listed_or_one_line(listing: Callable[[str], BoxedImages], folder: Path) -> None:
    message = ""
    try:
        found = listing(str(folder))
    except DatasetError as error:
        message = str(error)
    if message:
        assert len(message.splitlines()) == 1
        assert str(folder) in message
        return
    for members in found.splits.values():
        for _, objects in members:
            assert len(objects.boxes) == len(objects.classes) == len(objects.crowd)
            assert all(0 <= label < len(found.class_names) for label in objects.classes)
    read_boxed("fuzzed", found)


@pytest.mark.parametrize("layout", LAYOUTS)
@bounded(150)
@given(data=st.data())
def test_fuzz_of_damaged_annotations(
    folders: dict[str, Path], layout: str, data: st.DataObject
) -> None:
    _, listing, names = LAYOUTS[layout]
    file = folders[layout] / data.draw(st.sampled_from(names))
    sound = file.read_bytes()
    try:
        file.write_bytes(data.draw(damaged({"file": sound})))
        assert_listed_or_one_line(listing, folders[layout])
    finally:
        file.write_bytes(sound)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@bounded(150)
@given(data=st.data())
def test_fuzz_of_values_in_coco(folders: dict[str, Path], data: st.DataObject) -> None:
    """Any value may be where another is expected."""
    content = coco("train")
    where: Any = content
    place: Any = data.draw(st.sampled_from(sorted(content)))
    while isinstance(where[place], list | dict) and where[place] and data.draw(st.booleans()):
        where = where[place]
        places = range(len(where)) if isinstance(where, list) else sorted(where)
        place = data.draw(st.sampled_from(places))
    where[place] = data.draw(JSON)
    file = folders["coco"] / "annotations" / "instances_train2017.json"
    sound = file.read_bytes()
    try:
        file.write_text(json.dumps(content))
        assert_listed_or_one_line(list_coco, folders["coco"])
    finally:
        file.write_bytes(sound)


NUMBERS = st.sampled_from(
    [0.0, 1.0, 0.5, -0.5, 1.01, 1e30, float("nan"), float("inf")]
) | st.floats(-1, 2, width=32)
IMAGE = np.zeros([24, 32, 3], np.uint8)
SIZE = 48


@pytest.fixture(scope="module")
def place() -> Callable[..., Any]:
    image, target = tf.io.encode_png(IMAGE), Boxes(3)
    seed = tf.constant([1, 2], tf.int64)
    views = [EvalView(SIZE), TrainView(SIZE, ScaleJitter())]
    seen = [views[0].show(image).seen, views[1].show(image, seed, seed).seen]

    @tf.function(
        input_signature=[{name: tf.TensorSpec([None], x.dtype) for name, x in BOX_FEATURES.items()}]
    )
    def run(features: dict[str, tf.Tensor]) -> Any:
        value, problem = target.check(features, num_classes=2, label_offset=1)
        sound = problem == ""
        empty = {name: part[:0] for name, part in value.items()}
        value = {
            name: tf.cond(sound, lambda n=name: value[n], lambda n=name: empty[n]) for name in value
        }
        return problem, [target.place(value, each) for each in seen]

    return run


@bounded(200)
@given(data=st.data())
def test_fuzz_of_boxes_in_records(place: Callable[..., Any], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 4))
    features = {}
    for name, feature in BOX_FEATURES.items():
        here = data.draw(st.sampled_from([count] * 6 + [0, 5]))
        numbers = NUMBERS if feature.dtype == tf.float32 else st.sampled_from([1, 1, 1, 2, 0, -5])
        values = data.draw(st.lists(numbers, min_size=here, max_size=here))
        features[name] = tf.constant(values, feature.dtype, [here])
    problem, ((evaluated, over), (trained, _)) = place(features)
    if problem != b"" or over != b"":
        assert len((problem.numpy() or over.numpy()).decode().splitlines()) == 1
        return
    for row, limit in ((evaluated, [24, 32]), (trained, [SIZE, SIZE])):
        real = row["classes"].numpy() != NO_CLASS
        boxes = row["boxes"].numpy()
        assert (np.diff(real.astype(int)) <= 0).all()
        assert ((boxes >= 0) & (boxes <= limit * 2)).all()
        assert (boxes[real, 2:] > boxes[real, :2]).all()
        assert (boxes[~real] == 0).all()
