"""Record files from anybody: the images that are sound, or one line that names the file."""

import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from input_pipeline.errors import DatasetError
from input_pipeline.sources import get_source
from input_pipeline.stream.pipeline import describe_data_error
from tests.fuzz import bounded, damaged
from tests.input_pipeline.conftest import example, write_split
from tests.input_pipeline.datasets import eval_dataset

pytestmark = pytest.mark.slow

COUNT, CLASSES, SIZE = 8, 5, 8


def features(**values: bytes | int | float) -> bytes:
    """A serialized Example with features of these names, underscores for slashes."""
    made = {}
    for name, value in values.items():
        match value:
            case bytes():
                feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
            case int():
                feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
            case _:
                feature = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        made[name.replace("_", "/")] = feature
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


WRONG = {
    "no features": b"",
    "no example": b"\xff\xff\xff",
    "no label": features(image_encoded=b"x"),
    "label of text": features(image_encoded=b"x", image_class_label=b"1"),
    "label of a fraction": features(image_encoded=b"x", image_class_label=1.5),
    "label too large": features(image_encoded=b"x", image_class_label=2**40),
    "image of a number": features(image_encoded=1, image_class_label=1),
}


def records(folder: Path) -> Path:
    """A folder with records that nothing is wrong with."""
    write_split(folder, "train", [COUNT], CLASSES)
    write_split(folder, "validation", [COUNT], CLASSES)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for tests to write broken records into."""
    return records(tmp_path_factory.mktemp("records"))


def read(folder: Path, on_error: str) -> list[np.ndarray] | str:
    """The images in their order, or the line that says what is wrong."""
    try:
        source = get_source(
            "tfrecord", str(folder), num_classes=CLASSES, skip_damage=on_error == "skip"
        )
        dataset = eval_dataset(
            source,
            "validation",
            image_size=SIZE,
            host_batch_size=4,
            on_error=on_error,
            max_error_fraction=0.999,
        )
        batches = list(dataset.as_numpy_iterator())
    except DatasetError as error:
        return str(error)
    except tf.errors.OpError as error:
        return describe_data_error(error, source)
    return [image for batch in batches for image in batch["image"][batch["mask"] > 0]]


def write(folder: Path, content: bytes) -> None:
    for path in folder.glob("dataset_info*"):
        path.unlink()
    (folder / "validation-00000-of-00001").write_bytes(content)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[np.ndarray]]:
    folder = records(tmp_path_factory.mktemp("sound"))
    images = read(folder, "fail")
    assert isinstance(images, list)
    assert len(images) == COUNT
    return (folder / "validation-00000-of-00001").read_bytes(), images


@bounded(6)
@given(data=st.data(), on_error=st.sampled_from(["fail", "skip"]))
def test_fuzz_of_record_files(
    folder: Path, sound: tuple[bytes, list[np.ndarray]], data: st.DataObject, on_error: str
) -> None:
    write(folder, data.draw(damaged({"records": sound[0]})))
    found = read(folder, on_error)
    if isinstance(found, str):
        assert len(found.splitlines()) == 1
        return
    for image in found:
        assert any(np.array_equal(image, expected) for expected in sound[1])


def with_wrong_ones(folder: Path, *kinds: str) -> Path:
    """The records, with these before the last."""
    path = folder / "validation-00000-of-00001"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(COUNT):
            if number == COUNT - 1:
                for kind in kinds:
                    writer.write(WRONG[kind])
            writer.write(example(number, number % CLASSES + 1))
    write(folder, path.read_bytes())
    return path


@pytest.mark.parametrize("kind", ["no example", "label of text"])
def test_a_record_with_wrong_features_is_named(folder: Path, kind: str) -> None:
    path = with_wrong_ones(folder, kind)
    message = read(folder, "fail")
    assert isinstance(message, str), message
    assert len(message.splitlines()) == 1
    assert path.name in message


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_a_record_that_claims_more_than_its_file_is_refused_before_memory_is_asked_for(
    folder: Path, sound: tuple[bytes, list[np.ndarray]], on_error: str
) -> None:
    write(folder, sound[0] + struct.pack("<Q", 2**40) + bytes(100))
    message = read(folder, on_error)
    assert isinstance(message, str), message
    assert f"truncated or damaged at record {COUNT}" in message


def test_records_with_wrong_features_are_skipped(
    folder: Path, sound: tuple[bytes, list[np.ndarray]]
) -> None:
    with_wrong_ones(folder, *WRONG)
    found = read(folder, "skip")
    assert isinstance(found, list), found
    np.testing.assert_array_equal(found, sound[1])
