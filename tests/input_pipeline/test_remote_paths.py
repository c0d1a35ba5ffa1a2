"""Paths that are no local files, as gs:// ones are: TensorFlow's file system in memory stands for them."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline import inspect
from input_pipeline.prepare.__main__ import main as prepare
from input_pipeline.sources import Source, get_source
from input_pipeline.sources.cache import cache_source
from tests.input_pipeline.datasets import train_dataset

CLASSES, EACH = ("n01", "n02", "n03"), 4


@pytest.fixture(scope="module")
def folder() -> str:
    """Class folders of images in memory."""
    root = "ram://pictures"
    for label, name in enumerate(CLASSES):
        tf.io.gfile.makedirs(f"{root}/{name}")
        for number in range(EACH):
            pixels = np.full([9, 12, 3], 40 * label + number, np.uint8)
            with tf.io.gfile.GFile(f"{root}/{name}/{number}.jpg", "wb") as file:
                file.write(tf.io.encode_jpeg(pixels).numpy())
    return root


@pytest.fixture(scope="module")
def prepared(folder: str) -> str:
    output = "ram://prepared"
    shards = ["--train_shards=3", "--validation_shards=1", "--validation_fraction=0.25"]
    assert prepare([f"--source={folder}", f"--output={output}", *shards]) == 0
    return output


def epoch(source: Source) -> list[tuple[int, bytes]]:
    """Index and pixels of the training images of an epoch, in their order."""
    size = source.examples("train").num_examples
    dataset = train_dataset(source, image_size=8, host_batch_size=size, seed=1)
    batch = next(dataset.as_numpy_iterator())
    return [
        (int(n), image.tobytes()) for n, image in zip(batch["index"], batch["image"], strict=True)
    ]


@pytest.mark.slow
def test_images_are_prepared_to_and_trained_from_remote_records(prepared: str) -> None:
    assert {n for n, _ in epoch(get_source("tfrecord", prepared))} == set(range(9))


@pytest.mark.slow
def test_remote_records_are_copied_to_a_local_cache(prepared: str, tmp_path: Path) -> None:
    source = get_source("tfrecord", prepared)
    assert epoch(cache_source(source, "disk", str(tmp_path))) == epoch(source)
    assert len(list(tmp_path.rglob("train-*"))) == 3


@pytest.mark.slow
def test_a_remote_image_folder_is_read_directly(folder: str) -> None:
    assert {n for n, _ in epoch(get_source("image_folder:0.25", folder))} == set(range(9))


def test_remote_records_are_inspected(prepared: str, capsys: pytest.CaptureFixture) -> None:
    assert inspect.main([f"--data_dir={prepared}", "--sheet=ram://sheet.png", "--checksums"]) == 0
    assert "9 examples" in capsys.readouterr().out
    with tf.io.gfile.GFile("ram://sheet.png", "rb") as file:
        assert Image.open(file).width > 0
