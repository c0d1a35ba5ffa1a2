from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import inspect
from input_pipeline.errors import DatasetError
from input_pipeline.images.view import EvalView
from input_pipeline.prepare.__main__ import gather
from input_pipeline.prepare.contents import ClassContent
from input_pipeline.prepare.convert import prepare
from input_pipeline.sources import get_source
from input_pipeline.sources.cache import cache_source
from input_pipeline.sources.csv_list import read_lists
from input_pipeline.targets.class_labels import ClassLabels
from tests.input_pipeline.datasets import eval_dataset, train_dataset

SEVERAL = "path,labels\nimages/0.png,red;blue\nimages/1.png,\nimages/2.png,blue\n"
TARGET = ClassLabels(3)


def write(folder: Path, **lists: str) -> str:
    """Four images in one grey level each, and lists of them."""
    (folder / "images").mkdir(parents=True)
    for number in range(4):
        pixels = np.full([6, 7, 3], 20 * number, np.uint8)
        (folder / "images" / f"{number}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    for name, text in lists.items():
        (folder / f"{name}.csv").write_text(text)
    return str(folder)


def labels_of(data_dir: str, split: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(image.name, labels) for image, labels in read_lists(data_dir).splits[split]]


@pytest.mark.slow
def test_one_class_each_trains_and_evaluates(tmp_path: Path):
    train = "id,path,label\n7,images/0.png,a\n8,images/1.png,b\n9,./images/2.png,b\n"
    data_dir = write(tmp_path, train=train, val="path,label\nimages/3.png,b\n")
    source = get_source("csv", data_dir)
    assert source.info.class_names == ("a", "b")
    assert source.info.splits["train"].class_counts == (1, 2)
    assert source.notes == ("evaluation images: val.csv",)
    dataset = train_dataset(source, image_size=4, host_batch_size=3, seed=0)
    (batch,) = dataset.take(1).as_numpy_iterator()
    assert dict(zip(batch["image"][:, 0, 0, 0], batch["label"], strict=True)) == {
        0: 0,
        20: 1,
        40: 1,
    }
    (batch,) = eval_dataset(source, image_size=4, host_batch_size=1)
    assert batch["label"].numpy().tolist() == [1]


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True])
def test_several_classes_reach_the_batch_padded(tmp_path: Path, cached: bool):
    source = get_source("csv:0", write(tmp_path, train=SEVERAL), target=TARGET)
    if cached:
        source = cache_source(source, "memory", splits=["train"])
    dataset = eval_dataset(source, "train", image_size=4, host_batch_size=3)
    assert dataset.element_spec["label"] == TARGET.batch_spec(3, EvalView(4))["label"]
    (batch,) = dataset
    assert batch["label"].numpy().tolist() == [[1, 0, -1], [-1, -1, -1], [0, -1, -1]]


@pytest.mark.slow
def test_mixed_images_show_shares_of_all_their_classes(tmp_path: Path):
    source = get_source("csv:0", write(tmp_path, train=SEVERAL), target=TARGET)
    dataset = train_dataset(
        source, image_size=4, host_batch_size=3, seed=0, mixup_alpha=1.0, cutmix_alpha=1.0
    )
    (batch,) = dataset.take(1)
    assert batch["label"].dtype == tf.float32
    assert batch["label"].shape == [3, 2]
    # The one image without a partner keeps its labels; blue is in both labelled images.
    assert set(np.unique(batch["label"][2])) <= {0.0, 1.0}


@pytest.mark.slow
def test_lists_become_records(tmp_path: Path):
    data_dir = write(
        tmp_path / "lists", train=SEVERAL, validation="path,labels\nimages/3.png,red\n"
    )
    images = gather(f"{data_dir}/train.csv")
    info, _ = prepare(ClassContent(images), str(tmp_path / "records"), name="colours")
    assert info is not None
    assert info.splits["train"].num_examples == 3
    assert info.splits["train"].class_counts == (2, 1)
    source = get_source("tfrecord", str(tmp_path / "records"), target=TARGET)
    dataset = eval_dataset(source, "train", image_size=4, host_batch_size=3)
    (batch,) = dataset
    by_level = zip(batch["image"][:, 0, 0, 0].numpy() // 19, batch["label"].numpy(), strict=True)
    assert {int(level): label.tolist() for level, label in by_level} == {
        0: [1, 0, -1],
        1: [-1, -1, -1],
        2: [0, -1, -1],
    }
    with pytest.raises(DatasetError, match="leave out --validation"):
        gather(f"{data_dir}/train.csv", validation="val")


def test_a_survey_counts_every_label_of_an_image(tmp_path: Path, capsys: pytest.CaptureFixture):
    data_dir = write(tmp_path, train=SEVERAL, validation="path,labels\nimages/3.png,red\n")
    arguments = [f"--data_dir={data_dir}", "--source=csv", "--sheet="]
    assert inspect.main([*arguments, "--target=classes"]) == 0
    assert "rarest: red (1), blue (2)" in capsys.readouterr().out
    assert inspect.main(arguments) == 1
    assert "line 2: 2 labels; expected 1" in capsys.readouterr().err


ONE = "path,labels\nimages/0.png,red\nimages/1.png,blue\n"


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": SEVERAL}, "train.csv, line 2: 2 labels; expected 1, or task.name=multi_label"),
        (
            {"train": ONE, "validation": "path,labels\nimages/2.png,\n"},
            "validation.csv, line 2: 0 labels; expected 1, or task.name=multi_label",
        ),
    ],
)
def test_several_classes_are_refused_where_one_is_expected(
    tmp_path: Path, lists: dict[str, str], message: str
):
    data_dir = write(tmp_path, **lists)
    with pytest.raises(DatasetError) as raised:
        get_source("csv", data_dir)
    assert str(raised.value).startswith(f"{data_dir}/{message}")
    assert get_source("csv:0.5", data_dir, target=TARGET).info.num_classes == 2


def test_a_list_of_images_without_any_label_is_refused(tmp_path: Path):
    data_dir = write(tmp_path, train="path,labels\nimages/0.png,\n")
    with pytest.raises(DatasetError, match=r"train\.csv: no image has a label$"):
        get_source("csv", data_dir, target=TARGET)


def test_one_class_in_the_column_of_several_is_read(tmp_path: Path):
    source = get_source("csv:0", write(tmp_path, train=ONE))
    assert source.info.splits["train"].class_counts == (1, 1)


def test_classes_are_numbered_by_their_file(tmp_path: Path):
    data_dir = write(tmp_path, train=SEVERAL)
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    assert read_lists(data_dir).class_names == ("red", "green", "blue")
    assert dict(labels_of(data_dir, "train"))["images/0.png"] == (0, 2)
    (tmp_path / "classes.txt").write_text("red\nred\n")
    with pytest.raises(DatasetError, match=r"classes\.txt: class 'red' twice"):
        read_lists(data_dir)


def test_a_fraction_is_held_out_where_there_is_no_second_list(tmp_path: Path):
    data_dir = write(tmp_path, train=SEVERAL, test="path\nimages/3.png\n")
    images = read_lists(data_dir, 1 / 3)
    assert [len(images.splits[split]) for split in ("train", "validation")] == [2, 1]
    assert read_lists(f"{data_dir}/train.csv", 1 / 3) == images
    assert images.notes == (
        "evaluation images: 0.3333 of the training images",
        "not used: test.csv (no column label or labels)",
    )
    with pytest.raises(DatasetError, match=r"csv:many: invalid fraction .* as in csv:0\.1"):
        get_source("csv:many", data_dir)


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (
            "",
            None,
            "train.csv, line 1: the columns are nothing; expected path,label or path,labels",
        ),
        ("path,class\n", None, "train.csv, line 1: the columns are path,class; expected"),
        ("path,label,labels\n", None, "train.csv, line 1: the columns are path,label,labels"),
        ("path,label\n", None, "train.csv: lists no images"),
        ("path,labels\nimages/0.png,\n", None, "train.csv, line 2: 0 labels; expected 1"),
        (
            "path,label\nimages/0.png,a\n\nimages/1.png\n",
            None,
            "train.csv, line 4: expected as many",
        ),
        ("path,label\nimages/0.png,a,b\n", None, "train.csv, line 2: expected as many cells"),
        ("path,label\nimages/0.png,\n", None, "train.csv, line 2: no label; for images of no"),
        ("path,label\n,a\n", None, "train.csv, line 2: no path"),
        ('path,label\n"images/0.png"x,a\n', None, "train.csv, line 2: "),
        ("path,label\nimages/9.png,a\n", None, "train.csv, line 2: no file "),
        ("path,label\nnowhere/0.png,a\n", None, "train.csv, line 2: no file "),
        (
            "path,label\nimages/0.png,a\n./images/0.png,a\n",
            None,
            "train.csv, line 3: images/0.png is listed already in ",
        ),
        (
            "path,label\nimages/0.png,a\n",
            "path,label\nimages/0.png,a\n",
            "validation.csv, line 2: images/0.png is listed already in ",
        ),
        (
            "path,label\nimages/0.png,a\n",
            "path,label\nimages/1.png,b\n",
            "validation.csv, line 2: unknown class 'b'; expected a class of classes.txt",
        ),
    ],
)
def test_a_mistake_in_a_list_is_one_line_with_its_place(
    tmp_path: Path, train: str, validation: str | None, message: str
):
    lists = {"train": train} if validation is None else {"train": train, "validation": validation}
    data_dir = write(tmp_path, **lists)
    with pytest.raises(DatasetError) as raised:
        get_source("csv", data_dir)
    assert str(raised.value).startswith(f"{data_dir}/{message}")
    assert "\n" not in str(raised.value)


def test_a_list_that_is_not_there_is_one_line(tmp_path: Path):
    with pytest.raises(
        DatasetError, match=r"train\.csv: no such file; expected a CSV file with path"
    ):
        get_source("csv", str(tmp_path))
    with pytest.raises(DatasetError, match="needs data_dir"):
        get_source("csv")
    (tmp_path / "train.csv").write_bytes(b"path,label\n\xff,a\n")
    with pytest.raises(DatasetError, match="not UTF-8 text"):
        get_source("csv", str(tmp_path))


def test_images_of_several_classes_cannot_be_balanced(tmp_path: Path):
    data_dir = write(tmp_path, train=SEVERAL)
    with pytest.raises(DatasetError, match=r"0\.png: 2 classes, and data\.sampling=balanced needs"):
        get_source("csv", data_dir, target=TARGET, sampling="balanced")
