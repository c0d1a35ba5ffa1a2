import os
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources import (
    SOURCES,
    IndexedExamples,
    ShardedExamples,
    get_source,
    records,
)
from input_pipeline.sources.cache import load_into_memory
from input_pipeline.sources.dataset_info import (
    DatasetInfo,
    ShardInfo,
    SplitInfo,
    write_dataset_info,
)
from input_pipeline.targets import parse_target
from tests.input_pipeline.conftest import label_of


def _labels(examples: IndexedExamples) -> list[int]:
    return [label_of(examples.read(tf.constant(n))) for n in range(examples.num_examples)]


def test_an_unknown_source_lists_the_known_ones():
    known = re.escape(", ".join(SOURCES))
    with pytest.raises(DatasetError, match=rf"'tfrecords' \(did you mean tfrecord\?\).*{known}"):
        get_source("tfrecords")


def test_tfrecords_need_a_folder():
    with pytest.raises(DatasetError, match="needs data_dir"):
        get_source("tfrecord")


def test_an_unknown_split_lists_those_there_are(make_records):
    source = get_source("tfrecord", make_records(train=[3]), num_classes=5)
    with pytest.raises(DatasetError, match="no split 'validation'; it has train"):
        source.examples("validation")


def test_held_out_shards_leave_training_and_become_minival(make_records):
    data_dir = make_records(train=[3, 4, 5], validation=[2])
    source = get_source("tfrecord", data_dir, num_classes=5, holdout_shards=1)
    counts = {name: split.num_examples for name, split in source.info.splits.items()}
    assert counts == {"train": 9, "validation": 2, "minival": 3}
    train, minival = source.examples("train"), source.examples("minival")
    assert isinstance(train, ShardedExamples)
    assert isinstance(minival, ShardedExamples)
    assert [os.path.basename(file) for file in minival.files] == ["train-00000-of-00003"]
    assert train.counts == (4, 5)
    assert not set(train.files) & set(minival.files)


@pytest.mark.parametrize("shards", [3, 4, -1])
def test_not_all_shards_can_be_held_out(make_records, shards: int):
    with pytest.raises(DatasetError, match=f"cannot hold out {shards} of 3"):
        get_source("tfrecord", make_records(train=[1, 1, 1]), num_classes=5, holdout_shards=shards)


def test_data_without_shards_cannot_hold_out():
    with pytest.raises(DatasetError, match="needs training data in shards"):
        get_source("synthetic", num_classes=2, num_train_examples=10, holdout_shards=1)


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    data_dir = str(tmp_path_factory.mktemp("digits"))
    get_source("digits", data_dir)
    return data_dir


def test_digits_are_all_there_stratified_and_in_imagenets_format(digits_dir):
    source = get_source("digits", digits_dir)
    assert source.info.num_classes == 10
    assert source.info.class_names[3] == "three"
    train, validation = (source.info.splits[split] for split in ("train", "validation"))
    assert train.num_examples + validation.num_examples == 1797
    assert len(train.shards) > 1
    for of_class, held_out in zip(train.class_counts, validation.class_counts, strict=True):
        assert held_out == (of_class + held_out) // 5
    loaded = load_into_memory(source.examples("validation"))
    assert np.array_equal(np.bincount(_labels(loaded))[1:], validation.class_counts)
    encoded, _ = loaded.read(tf.constant(0))
    assert tf.io.decode_image(encoded).shape == (32, 32, 3)


def test_digits_are_written_once_and_the_same_everywhere(digits_dir, tmp_path: Path):
    files = sorted(os.listdir(digits_dir))
    times = {name: os.stat(os.path.join(digits_dir, name)).st_mtime_ns for name in files}
    get_source("digits", digits_dir)
    assert times == {n: os.stat(os.path.join(digits_dir, n)).st_mtime_ns for n in files}
    get_source("digits", str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == files
    for name in files:
        assert (tmp_path / name).read_bytes() == Path(digits_dir, name).read_bytes()


@pytest.mark.parametrize("lost", ["dataset_info.json", "train-00003-of-00008"])
def test_digits_left_unfinished_are_written_again(digits_dir, tmp_path: Path, lost: str):
    for name in os.listdir(digits_dir):
        if name != lost:
            (tmp_path / name).write_bytes(Path(digits_dir, name).read_bytes())
    (tmp_path / "train-00001-of-00008").write_bytes(b"torn")
    (tmp_path / "0123456789abcdef.tmp").write_bytes(b"of a killed process")
    get_source("digits", str(tmp_path))
    for name in os.listdir(digits_dir):
        assert (tmp_path / name).read_bytes() == Path(digits_dir, name).read_bytes()


def test_digits_do_not_overwrite_another_data_set(digits_dir, tmp_path: Path):
    text = Path(digits_dir, "dataset_info.json").read_text()
    for name in os.listdir(digits_dir):
        (tmp_path / name).write_bytes(Path(digits_dir, name).read_bytes())
    (tmp_path / "dataset_info.json").write_text(text.replace('"digits"', '"letters"'))
    with pytest.raises(DatasetError, match="holds the data set 'letters'"):
        get_source("digits", str(tmp_path))


@pytest.mark.parametrize("records", ["none", "unfinished", "damaged"])
@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("digits", "finetune.yaml"),
        ("textures", "finetune.yaml"),
        ("digit_scenes", "segmentation_finetune.yaml"),
    ],
)
def test_packaged_sets_are_never_written_among_other_files(
    tmp_path: Path, name: str, recipe: str, records: str
):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.jpg").write_bytes(b"mine")
    if records != "none":
        (tmp_path / "train-00000-of-00008").write_bytes(b"torn")
    if records == "damaged":
        info = DatasetInfo(
            name, 1, splits={"train": SplitInfo(1, (ShardInfo("train-00000-of-00008", 1, 99),))}
        )
        write_dataset_info(info, str(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    target = parse_target("mask" if name == "digit_scenes" else "class")
    with pytest.raises(DatasetError) as raised:
        get_source(name, str(tmp_path), target=target)
    assert str(raised.value) == (
        f"{tmp_path}: holds other files (cat); the {name} are written into an empty or new folder only. "
        f"For your own images give --config=configs/{recipe}, or another --data_dir"
    )
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "record",
    [
        records.serialize(records.ImageRecord(b"mine", 1, 1, 1)),
        records.serialize(records.ImageRecord(b"mine", 1, 1, 1, synset="cat")),
        b"no Example",
    ],
    ids=["no class", "another class", "no Example"],
)
def test_records_of_the_same_file_names_are_not_overwritten(tmp_path: Path, record: bytes):
    path = tmp_path / "train-00007-of-00008"
    records.write_shard(str(path), [record])
    before = path.read_bytes()
    with pytest.raises(
        DatasetError, match=r"holds other files \(train-00007-of-00008\); the digits"
    ):
        get_source("digits", str(tmp_path))
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == before


def test_a_damaged_set_of_another_name_is_not_overwritten(tmp_path: Path):
    info = DatasetInfo(
        "letters", 1, splits={"train": SplitInfo(1, (ShardInfo("train-00000-of-00008", 1, 99),))}
    )
    write_dataset_info(info, str(tmp_path))
    with pytest.raises(DatasetError, match="holds the data set 'letters'"):
        get_source("digits", str(tmp_path))
    assert os.listdir(tmp_path) == ["dataset_info.json"]


@pytest.mark.parametrize("num_classes", [3, 64, 100])
def test_synthetic_images_are_deterministic_and_labelled_evenly(num_classes: int):
    def examples() -> list[tuple[bytes, int]]:
        source = get_source(
            "synthetic", num_classes=num_classes, num_train_examples=300, image_size=(9, 12)
        )
        train = source.examples("train")
        assert source.info.splits["validation"].num_examples == 12
        looked_up = [train.read(tf.constant(n, tf.int64)) for n in range(300)]
        return [(read[0].numpy(), label_of(read)) for read in looked_up]

    first = examples()
    assert first == examples()
    counts = np.bincount([label for _, label in first], minlength=num_classes + 1)
    assert counts[0] == 0
    assert counts[1:].max() - counts[1:].min() <= 1
    if num_classes <= 64:
        classes_of_image = {}
        for encoded, label in first:
            classes_of_image.setdefault(encoded, set()).add(label)
        assert all(len(labels) == 1 for labels in classes_of_image.values())
    assert tf.io.decode_jpeg(first[0][0]).shape == (9, 12, 3)
