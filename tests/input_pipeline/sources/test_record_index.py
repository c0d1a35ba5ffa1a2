import os
from pathlib import Path

import pytest
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources import get_source
from input_pipeline.sources.record_index import OFFSETS_NAME, index_records, write_offsets
from tests.input_pipeline.conftest import label_of

COUNTS = [3, 0, 4, 1]


@pytest.fixture
def examples(make_records):
    return get_source("tfrecord", make_records(COUNTS), num_classes=5).examples("train")


def records_of(examples) -> list[bytes]:
    return [
        record
        for path in examples.files
        for record in tf.data.TFRecordDataset(path).as_numpy_iterator()
    ]


def test_every_record_is_found_by_its_index(examples):
    indexed = index_records(examples)
    assert indexed.num_examples == 8
    wanted = [examples.parse(tf.constant(record)) for record in records_of(examples)]
    for index in (7, 0, 3, 2, 6, 1, 5, 4):
        read = indexed.read(tf.constant(index, tf.int64))
        assert read[0].numpy() == wanted[index][0].numpy()
        assert label_of(read) == index % 5 + 1
    files = indexed.file(tf.range(8, dtype=tf.int64)).numpy()
    numbers = [int(file.decode()[-14:-9]) for file in files]
    assert numbers == [0, 0, 0, 2, 2, 2, 2, 3]


def test_written_offsets_spare_the_visit_to_every_header(examples):
    folder = os.path.dirname(examples.files[0])
    starts = {}
    for path in examples.files:
        lengths = [16 + len(r) for r in tf.data.TFRecordDataset(path).as_numpy_iterator()]
        starts[os.path.basename(path)] = [sum(lengths[:n]) for n in range(len(lengths))]
    write_offsets(folder, starts)
    Path(examples.files[3]).write_bytes(b"no record")
    indexed = index_records(examples)
    assert label_of(indexed.read(tf.constant(6, tf.int64))) == 2
    with pytest.raises(tf.errors.OpError):
        indexed.read(tf.constant(7, tf.int64))
    Path(folder, OFFSETS_NAME).write_text("{")
    with pytest.raises(DatasetError, match=r"record_offsets\.json: unusable .*; delete it"):
        index_records(examples)


def test_another_number_of_records_than_counted_is_named(examples, make_records):
    write_offsets(os.path.dirname(examples.files[0]), {"train-00002-of-00004": [0, 100]})
    with pytest.raises(DatasetError, match="train-00002-of-00004: 2 records, but 4 were counted"):
        index_records(examples)
