import os
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline import inspect
from input_pipeline.images.view import TrainView
from input_pipeline.sources import get_source, records
from input_pipeline.sources.dataset_info import find_dataset_info
from tests.input_pipeline.datasets import train_dataset

TRAIN = [7, 5, 9]


@pytest.fixture
def broken(make_records) -> str:
    """21 records, of which 2 hold no image, 1 a label that is out of range."""
    data_dir = make_records(TRAIN, [4])
    path = os.path.join(data_dir, "train-00001-of-00003")
    content = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
    content[0] = records.serialize(records.ImageRecord(b"\xff\xd8\xffno image", 1, 1, 1))
    content[2] = records.serialize(records.ImageRecord(b"", 1, 1, 1))
    content[4] = records.serialize(records.ImageRecord(b"?", 9, 1, 1))
    records.write_shard(path, content)
    find_dataset_info(data_dir, num_classes=5)
    return data_dir


def test_a_survey_counts_labels_sizes_and_failures(broken: str):
    found = inspect.survey(get_source("tfrecord", broken), "train", data_dir=broken)
    assert found.num_examples == 21
    assert found.label_range == (1, 5)
    assert sum(found.class_counts.values()) == 18
    assert found.sizes["height"] == [12] * 5
    assert found.sizes["width"] == [16] * 5
    failures = dict(found.failures)
    assert list(failures) == [f"train-00001-of-00003, example {n}" for n in (7, 9, 11)]
    assert failures["train-00001-of-00003, example 11"] == "label 9 is outside 1..5"


def test_a_truncated_file_is_surveyed_to_its_end(make_records):
    data_dir = make_records(TRAIN)
    find_dataset_info(data_dir, num_classes=5)
    path = Path(data_dir, "train-00002-of-00003")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    source = get_source("tfrecord", data_dir, skip_damage=True)
    found = inspect.survey(source, "train", data_dir=data_dir)
    assert found.num_examples == 21
    assert [place for place, _ in found.failures] == [
        f"train-00002-of-00003, example {n}" for n in (18, 19, 20)
    ]
    assert "truncated or damaged" in found.failures[0][1]


@pytest.mark.parametrize("limit", [1, 6, 100])
def test_a_limited_survey_looks_at_some_of_every_file(make_records, limit: int):
    source = get_source("tfrecord", make_records(TRAIN), num_classes=5)
    found = inspect.survey(source, "train", limit=limit)
    assert min(limit, 21) <= found.num_examples <= min(limit + 2, 21)


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--image_size=0", "not a whole number of at least 1"),
        ("--workers=0", "not a whole number of at least 1"),
        ("--images=0", "not a whole number of at least 1"),
        ("--examples=-3", "not a whole number of at least 0"),
    ],
)
def test_an_impossible_number_is_one_line(flag: str, expected: str, capsys):
    with pytest.raises(SystemExit) as stop:
        inspect.main([flag])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert flag.partition("=")[0] in error
    assert expected in error


@pytest.mark.slow
def test_the_sheet_shows_what_training_sees(make_records):
    source = get_source("tfrecord", make_records(TRAIN), num_classes=5)
    size = inspect.TILE
    sheet = inspect.contact_sheet(source, view=TrainView(size, flip=False), num_images=3, seed=4)
    assert sheet.shape == (3 * (size + inspect.CAPTION), (1 + inspect.EPOCHS_SHOWN) * size, 3)
    dataset = train_dataset(source, image_size=size, host_batch_size=21, seed=4, flip=False)
    epochs = list(dataset.take(2).as_numpy_iterator())
    place_of = {int(index): place for place, index in enumerate(epochs[1]["index"])}
    for number in range(3):
        top = number * (size + inspect.CAPTION)
        first = sheet[top : top + size, size : 2 * size]
        assert np.array_equal(first, epochs[0]["image"][number])
        second = sheet[top : top + size, 2 * size : 3 * size]
        again = epochs[1]["image"][place_of[int(epochs[0]["index"][number])]]
        assert np.array_equal(second, again)
        caption = sheet[top + size : top + size + inspect.CAPTION]
        assert caption.min() < 64


def test_the_command_tells_what_it_found_and_fails_on_broken_images(
    broken: str, tmp_path: Path, capsys
):
    sheet = tmp_path / "sheet.png"
    flags = [f"--data_dir={broken}", "--examples=0", "--policy=none", "--image_size=16"]
    assert inspect.main([*flags, "--sheet="]) == 1
    output = capsys.readouterr().out
    assert "train: 21 examples, 18 decoded" in output
    assert "example 9: feature image/encoded is missing" in output
    assert "labels 1..5, allowed 1..5" in output
    assert "train: 3 broken" in output
    assert "validation: 0 broken" in output
    assert not sheet.exists()


def test_a_broken_file_is_named_by_its_path_in_the_folder(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            path = tmp_path / "photos" / name / f"{number}.png"
            path.write_bytes(tf.io.encode_png(np.zeros([8, 8, 3], np.uint8)).numpy())
    (tmp_path / "photos/dog/1.png").write_bytes(b"")
    (tmp_path / "photos/train.csv").write_text("path,label\ndog/0.png,dog\ndog/1.png,dog\n")
    monkeypatch.chdir(tmp_path)
    for data_dir, source in (("./photos/", "image_folder:0.5"), ("photos/train.csv", "csv:0.5")):
        assert inspect.main([f"--data_dir={data_dir}", f"--source={source}", "--sheet="]) == 1
        printed = capsys.readouterr().out
        assert re.search(r"^  dog/1\.png, example \d: the file is empty$", printed, re.MULTILINE)


def test_the_command_draws_and_succeeds_on_sound_data(make_records, tmp_path: Path, capsys):
    data_dir = make_records(TRAIN)
    sheet = tmp_path / "sheet.png"
    flags = [f"--data_dir={data_dir}", "--num_classes=5", f"--sheet={sheet}", "--images=2"]
    assert inspect.main([*flags, "--image_size=16"]) == 0
    with Image.open(sheet) as drawn:
        assert drawn.size == (5 * inspect.TILE, 2 * (inspect.TILE + inspect.CAPTION))
    assert "rarest: class 2 (4), class 3 (4), class 4 (4)" in capsys.readouterr().out


def test_a_changed_shard_is_found_by_its_checksum(tmp_path: Path, capsys):
    images = tmp_path / "images"
    for name in ("a", "b"):
        (images / name).mkdir(parents=True)
        for number in range(3):
            (images / name / f"{number}.png").write_bytes(
                tf.io.encode_png(np.full([8, 8, 3], number, np.uint8)).numpy()
            )
    from input_pipeline.prepare.__main__ import main as prepare

    data_dir = tmp_path / "records"
    flags = [f"--source={images}", f"--output={data_dir}", "--validation_fraction=0"]
    assert prepare([*flags, "--train_shards=2"]) == 0
    flags = [f"--data_dir={data_dir}", "--sheet=", "--checksums", "--examples=1"]
    assert inspect.main(flags) == 0
    path = data_dir / "train-00001-of-00002"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    assert inspect.main(flags) == 1
    assert (
        "train-00001-of-00002: its SHA-256 differs from dataset_info.json"
        in capsys.readouterr().out
    )


def test_wrong_use_is_one_line(tmp_path: Path, capsys):
    assert inspect.main([f"--data_dir={tmp_path}/nowhere"]) == 1
    assert "nowhere: no such folder" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        inspect.main(["--policy=magic"])
    assert capsys.readouterr().err.count("\n") == 1
