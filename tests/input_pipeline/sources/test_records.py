import dataclasses
import os
from pathlib import Path

import pytest
import tensorflow as tf

from input_pipeline.sources import records
from input_pipeline.targets.whole_image import LABELS

RECORD = records.ImageRecord(b"\xff\xd8jpeg", 7, 30, 40, "JPEG", "a.JPEG", "n01440764")


def test_records_have_imagenets_keys():
    example = tf.train.Example.FromString(records.serialize(RECORD))
    features = {
        key: list(feature.bytes_list.value) + list(feature.int64_list.value)
        for key, feature in example.features.feature.items()
    }
    assert features == {
        "image/encoded": [b"\xff\xd8jpeg"],
        "image/class/label": [7],
        "image/class/synset": [b"n01440764"],
        "image/height": [30],
        "image/width": [40],
        "image/colorspace": [b"RGB"],
        "image/channels": [3],
        "image/format": [b"JPEG"],
        "image/filename": [b"a.JPEG"],
    }


def test_what_is_serialized_is_parsed_back():
    encoded, features = records.parse(tf.constant(records.serialize(RECORD)))
    assert encoded.numpy() == RECORD.encoded
    assert features[LABELS].numpy().tolist() == [7]


def test_several_labels_are_parsed_back_in_their_order():
    record = dataclasses.replace(RECORD, label=(7, 2), synset=("n7", "n2"))
    _, features = records.parse(tf.constant(records.serialize(record)))
    assert features[LABELS].numpy().tolist() == [7, 2]


def test_missing_features_are_empty():
    encoded, features = records.parse(tf.constant(tf.train.Example().SerializeToString()))
    assert encoded.numpy() == b""
    assert features[LABELS].numpy().tolist() == []


def test_a_target_decides_what_is_parsed_beside_the_image():
    features = {"image/height": tf.io.FixedLenFeature([], tf.int64)}
    _, found = records.parse(tf.constant(records.serialize(RECORD)), features)
    assert {name: int(value) for name, value in found.items()} == {"image/height": 30}


def test_a_shard_is_written_whole_or_not_at_all(tmp_path: Path):
    path = str(tmp_path / "new" / "shard")
    assert records.write_shard(path, [b"one", b"two"]) == 2

    def breaks():
        yield b"three"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        records.write_shard(path, breaks())
    assert list(tf.data.TFRecordDataset(path).as_numpy_iterator()) == [b"one", b"two"]
    assert os.listdir(tmp_path / "new") == ["shard"]
