import json
import os
import struct
from pathlib import Path

import pytest

from input_pipeline.errors import DatasetError
from input_pipeline.sources import records
from input_pipeline.sources.dataset_info import (
    DatasetInfo,
    ShardInfo,
    SplitInfo,
    check_shards,
    count_records,
    count_tfrecords,
    find_dataset_info,
    read_dataset_info,
    write_dataset_info,
)

INFO = DatasetInfo(
    name="pets",
    num_classes=2,
    class_names=("cat", "dög"),
    splits={
        "train": SplitInfo(5, (ShardInfo("train-00000-of-00001", 5, 99, "sha256:0"),), (2, 3)),
        "validation": SplitInfo(0),
    },
)


def test_what_is_written_is_read_back(tmp_path: Path):
    write_dataset_info(INFO, str(tmp_path))
    assert read_dataset_info(str(tmp_path)) == INFO
    assert os.listdir(tmp_path) == ["dataset_info.json"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "pets"', "not valid JSON"),
        ("\x00\x01", "not valid JSON"),
        ("[]", "unusable"),
        ('{"format_version": 1, "name": "pets"}', "'splits'"),
        ('{"format_version": 7}', "format_version is 7; expected 1"),
    ],
)
def test_a_broken_file_is_one_line_naming_it(tmp_path: Path, text: str, expected: str):
    (tmp_path / "dataset_info.json").write_text(text)
    with pytest.raises(DatasetError) as raised:
        read_dataset_info(str(tmp_path))
    assert expected in str(raised.value)
    assert "dataset_info.json" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_shards_must_add_up_to_their_split():
    with pytest.raises(DatasetError, match="has num_examples=4, but its shards hold 5"):
        DatasetInfo("pets", 2, splits={"train": SplitInfo(4, (ShardInfo("a", 5, 99),))})


def test_as_many_class_names_as_classes():
    with pytest.raises(DatasetError, match="3 class names for 2 classes"):
        DatasetInfo("pets", 2, ("a", "b", "c"))


def test_records_without_a_description_are_counted_once_and_the_count_kept(make_records):
    data_dir = make_records(train=[3, 0, 4], validation=[2])
    info = find_dataset_info(data_dir, num_classes=5)
    assert info.num_classes == 5
    assert [shard.num_examples for shard in info.splits["train"].shards] == [3, 0, 4]
    assert info.splits["train"].num_examples == 7
    assert info.splits["validation"].num_examples == 2
    assert json.loads(Path(data_dir, "dataset_info.json").read_text())["num_classes"] == 5
    assert find_dataset_info(data_dir) == info


def test_counting_reads_headers_only(tmp_path: Path):
    path = tmp_path / "records"
    path.write_bytes(b"".join(struct.pack("<QI", n, 0) + b"?" * n + b"crc?" for n in (0, 7, 100)))
    assert count_tfrecords(str(path)) == 3


@pytest.mark.parametrize("lost_bytes", [1, 30, 120])
def test_a_truncated_file_is_named_when_counted(make_records, lost_bytes: int):
    data_dir = make_records(train=[3])
    path = Path(data_dir, "train-00000-of-00001")
    path.write_bytes(path.read_bytes()[:-lost_bytes])
    with pytest.raises(DatasetError, match=r"train-00000-of-00001: truncated .* at record 2"):
        find_dataset_info(data_dir, num_classes=5)


def test_1024_training_shards_are_imagenet(tmp_path: Path):
    for shard in range(1024):
        (tmp_path / f"train-{shard:05d}-of-01024").touch()
    assert count_records(str(tmp_path)).num_classes == 1000


def test_unknown_number_of_classes_asks_for_it(make_records):
    with pytest.raises(DatasetError, match=r"set model\.num_classes"):
        find_dataset_info(make_records(train=[1]))


def test_a_missing_shard_is_named(make_records):
    data_dir = make_records(train=[1, 1, 1])
    os.remove(os.path.join(data_dir, "train-00001-of-00003"))
    with pytest.raises(DatasetError, match=r"train-00001-of-00003 is missing \(1 of 3"):
        find_dataset_info(data_dir, num_classes=5)


def test_two_shardings_in_one_folder_are_refused(make_records):
    data_dir = make_records(train=[1, 1])
    records.write_shard(os.path.join(data_dir, "train-00000-of-00001"), [])
    with pytest.raises(DatasetError, match="files of 00001 and of 00002"):
        find_dataset_info(data_dir, num_classes=5)


def test_a_folder_that_is_missing_or_empty_says_what_was_looked_for(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"nowhere: no such folder"):
        find_dataset_info(str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match=r"no train-00000-of-N .* as data\.source=image_folder"):
        find_dataset_info(str(tmp_path))


def test_a_shard_that_changed_since_it_was_described_is_named(make_records, capfd):
    data_dir = make_records(train=[3, 3])
    info = find_dataset_info(data_dir, num_classes=5)
    path = Path(data_dir, "train-00001-of-00002")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"train-00001-of-00002: \d+ bytes, but"):
        check_shards(info, data_dir)
    path.unlink()
    with pytest.raises(DatasetError, match=r"train-00001-of-00002: missing"):
        find_dataset_info(data_dir)
    assert find_dataset_info(data_dir, skip_damage=True) == info
    assert capfd.readouterr() == (f"{path}: missing, but listed in dataset_info.json\n", "")


def test_a_folder_that_cannot_be_written_is_counted_all_the_same(make_records, monkeypatch, capfd):
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("input_pipeline.sources.dataset_info.write_dataset_info", refuse)
    data_dir = make_records(train=[3])
    assert find_dataset_info(data_dir, num_classes=5).splits["train"].num_examples == 3
    assert not os.path.exists(os.path.join(data_dir, "dataset_info.json"))
    line = f"{data_dir}: not writable; its records will be counted at every start\n"
    assert capfd.readouterr() == (line, "")
