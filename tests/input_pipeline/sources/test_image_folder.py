from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources import get_source
from input_pipeline.sources.cache import cache_source
from input_pipeline.stream import pipeline
from tests.input_pipeline.datasets import eval_dataset, train_dataset


def make_images(root: Path, counts: dict[str, int]) -> None:
    """PNGs in one grey level for each class folder."""
    for level, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            pixels = np.full([6, 7, 3], 20 * level, np.uint8)
            (root / folder / f"{number}.PNG").write_bytes(tf.io.encode_png(pixels).numpy())


def test_unusable_folders_say_what_is_wrong(tmp_path: Path):
    with pytest.raises(DatasetError, match="needs data_dir"):
        get_source("image_folder")
    with pytest.raises(DatasetError, match="nowhere: no such folder"):
        get_source("image_folder", str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match="no images"):
        get_source("image_folder", str(tmp_path))
    make_images(tmp_path, {"a": 1})
    with pytest.raises(DatasetError, match=r"image_folder:a lot: .* as in image_folder:0\.1"):
        get_source("image_folder:a lot", str(tmp_path))


@pytest.mark.slow
def test_a_folder_trains_and_evaluates_without_preparation(tmp_path: Path):
    make_images(tmp_path, {"a": 4, "b": 8})
    source = get_source("image_folder:0.25", str(tmp_path))
    assert source.info.class_names == ("a", "b")
    assert source.info.splits["train"].class_counts == (3, 6)
    dataset = train_dataset(source, image_size=4, host_batch_size=9, seed=0)
    (batch,) = dataset.take(1).as_numpy_iterator()
    assert sorted(batch["index"]) == list(range(9))
    assert np.array_equal(batch["image"][:, 0, 0, 0], 20 * batch["label"])
    dataset = eval_dataset(source, image_size=4, host_batch_size=4)
    (batch,) = dataset.as_numpy_iterator()
    assert batch["mask"].tolist() == [1.0, 1.0, 1.0, 0.0]
    assert batch["label"].tolist() == [0, 1, 1, 0]


def test_what_a_folder_is_evaluated_on_is_in_its_notes(tmp_path: Path):
    make_images(tmp_path, {"train/a": 3, "test/a": 2, "more/a": 1})
    source = get_source("image_folder", str(tmp_path))
    assert source.info.splits["train"].num_examples == 3
    assert source.info.splits["validation"].num_examples == 2
    assert source.notes == (
        "evaluation images: test/, because there is no val/ or validation/",
        "not used: more/ (images: 1)",
    )


@pytest.mark.parametrize("below", ["", "train/"])
def test_a_class_folder_without_images_is_in_the_notes(tmp_path: Path, below: str):
    make_images(tmp_path, {f"{below}cat": 2, f"{below}dog": 2, f"{below}bird": 0})
    (tmp_path / below / "bird" / "0.heic").write_bytes(b"another format")
    (tmp_path / below / ".git").mkdir()
    (tmp_path / below / "notes.txt").write_text("no folder")
    source = get_source("image_folder", str(tmp_path))
    assert source.info.class_names == ("cat", "dog")
    assert source.notes[1:] == (f"{below}bird/: no images; not a class",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x89PNG\r\n\x1a\nno more", "the image cannot be read or decoded"),
        (b"", "the file is empty"),
    ],
    ids=["broken", "empty"],
)
def test_a_broken_image_file_is_named(tmp_path: Path, content: bytes, problem: str):
    make_images(tmp_path, {"a": 2})
    (tmp_path / "a" / "0.PNG").write_bytes(content)
    source = get_source("image_folder:0", str(tmp_path))
    dataset = train_dataset(source, image_size=4, host_batch_size=2, seed=0)
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        list(dataset.take(1))
    wanted = f"{tmp_path}/a/0.PNG, example 0: {problem}"
    assert pipeline.describe_data_error(raised.value) == wanted


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_uneven_classes_can_be_trained_on_equally_often(tmp_path: Path, cache: str):
    make_images(tmp_path, {"rare": 1, "usual": 7})
    source = get_source("image_folder:0", str(tmp_path), sampling="balanced")
    source = cache_source(source, cache, splits=["train"])
    batches = list(train_dataset(source, image_size=4, host_batch_size=8).take(2))
    labels = np.concatenate([batch["label"] for batch in batches])
    assert np.bincount(labels).tolist() == [8, 8]
    indices = np.concatenate([batch["index"] for batch in batches])
    assert sorted(set(indices[labels == 1])) == list(range(1, 8))
