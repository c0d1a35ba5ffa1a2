"""Images labelled from elsewhere: ImageNet-V2's folders, and ReaL's list of several right labels."""

import json
from pathlib import Path

import pytest
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources.dataset_info import DatasetInfo
from input_pipeline.sources.labelled import open_labelled
from input_pipeline.sources.source import Source
from input_pipeline.targets.class_label import CLASS_LABEL
from input_pipeline.targets.class_labels import ClassLabels
from input_pipeline.targets.whole_image import LABELS

NAMES = ("n01", "n02", "n03")
CLASSES = DatasetInfo("birds", 3, NAMES)


def write(folder: Path, *images: str) -> str:
    for image in images:
        path = folder / image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.encode())
    return str(folder)


def labels_of(source: Source) -> dict[str, list[int]]:
    examples = source.examples("validation")
    found = {}
    for index in tf.range(examples.num_examples, dtype=tf.int64):
        encoded, features = examples.read(index)
        found[encoded.numpy().decode()] = features[LABELS].numpy().tolist()
    return found


def opened(folder: str, labels: str = "folders", classes: DatasetInfo = CLASSES) -> Source:
    return open_labelled(folder, labels, classes, split="validation", target=CLASS_LABEL)


def test_folders_are_class_indices_or_class_names(tmp_path: Path):
    images = ("0/a.jpeg", "2/b.jpeg", "n02/deep/c.jpeg")
    source = opened(write(tmp_path, *images))
    assert labels_of(source) == {"0/a.jpeg": [0], "2/b.jpeg": [2], "n02/deep/c.jpeg": [1]}
    assert (source.target, source.info.label_offset, source.info.class_names) == (
        CLASS_LABEL,
        0,
        NAMES,
    )


def test_indices_are_numbers_and_not_sorted_as_names(tmp_path: Path):
    images = [f"{number}/{number}.jpeg" for number in range(12)]
    many = DatasetInfo("birds", 12)
    found = labels_of(opened(write(tmp_path, *images), classes=many))
    assert found == {f"{number}/{number}.jpeg": [number] for number in range(12)}


def test_names_that_are_numbers_are_names(tmp_path: Path):
    swapped = DatasetInfo("digits", 2, ("1", "0"))
    assert labels_of(opened(write(tmp_path, "1/a.png"), classes=swapped)) == {"1/a.png": [0]}


def test_classes_of_which_only_the_number_is_known_are_in_the_order_of_their_names(tmp_path: Path):
    folder = write(tmp_path, "n11/a.png", "n22/b.png", "n33/c.png")
    found = labels_of(opened(folder, classes=DatasetInfo("records", 3)))
    assert found == {"n11/a.png": [0], "n22/b.png": [1], "n33/c.png": [2]}


def test_a_list_gives_the_right_labels_of_image_number_1_2_and_so_on(tmp_path: Path):
    folder = write(tmp_path, *(f"ILSVRC2012_val_0000000{number}.JPEG" for number in (1, 2, 3)))
    real = tmp_path / "real.json"
    real.write_text(json.dumps([[2, 0, 2], [], ["n02"], [1]]))
    source = opened(folder, str(real))
    assert labels_of(source) == {
        "ILSVRC2012_val_00000001.JPEG": [2, 0],
        "ILSVRC2012_val_00000003.JPEG": [1],
    }
    assert source.target == ClassLabels(2)
    assert source.notes == ("left out, without a label: 1 images",)


def test_a_mapping_gives_the_right_labels_of_files(tmp_path: Path):
    folder = write(tmp_path, "any/a.png", "b.png")
    (tmp_path / "real.json").write_text('{"a.png": 1, "c.png": [0]}')
    assert labels_of(opened(folder, f"{folder}/real.json")) == {"any/a.png": [1]}


@pytest.mark.parametrize(
    ("images", "content", "message"),
    [
        (["3/a.png"], None, r"/3: '3' is no class of birds; expected an index in \[0, 3\) or a"),
        (["a.png"], None, r"a\.png: not in the folder of a class"),
        (["a.png"], "{", r"x\.json: not a JSON file of labels"),
        (["a.png"], "7", r"x\.json: expected a list or a mapping of labels"),
        (["a.png"], "[[0]]", r"a\.png: no number from 1 to 1 at the end of its name"),
        (["val_2.png"], "[[0]]", r"val_2\.png: no number from 1 to 1 at the end of its name"),
        (["1.png"], "[[-1]]", r"x\.json, 1\.png: '-1' is no class of birds"),
        (["1.png"], "[[true]]", r"x\.json, 1\.png: 'True' is no class of birds"),
        (["1.png"], "[[]]", r"x\.json: no label for any image in "),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, images: list[str], content: str, message: str):
    folder, labels = write(tmp_path / "images", *images), "folders"
    if content is not None:
        labels = str(tmp_path / "x.json")
        Path(labels).write_text(content)
    with pytest.raises(DatasetError, match=message) as raised:
        opened(folder, labels)
    assert "\n" not in str(raised.value)


def test_what_is_not_there_is_one_line(tmp_path: Path):
    with pytest.raises(DatasetError, match="nowhere: no such folder"):
        opened(str(tmp_path / "nowhere"))
    with pytest.raises(
        DatasetError, match=r"eval\.labels=gone: no such file; expected folders, or"
    ):
        opened(write(tmp_path, "0/a.png"), "gone")
