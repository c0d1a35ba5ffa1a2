from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.images.framing import Squash
from input_pipeline.images.view import EvalView
from input_pipeline.sources import get_source
from input_pipeline.stream import pipeline
from input_pipeline.stream.pipeline import make_eval_dataset
from input_pipeline.targets.boxes import Boxes
from input_pipeline.targets.mask import Mask
from input_pipeline.targets.whole_image import LABELS
from tests.input_pipeline.datasets import eval_dataset, train_dataset

tfds = pytest.importorskip("tensorflow_datasets")


class Levels(tfds.core.GeneratorBasedBuilder):
    """Images of one grey level, 20 times their class."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=["dark", "grey", "light"]),
                    "number": np.int64,
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(13), "test": self._generate_examples(5)}

    def _generate_examples(self, count: int):
        for number in range(count):
            pixels = np.full([9, 8, 3], 20 * (number % 3), np.uint8)
            yield number, {"image": pixels, "label": number % 3, "number": number}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("tfds"))
    Levels(data_dir=path, file_format="tfrecord").download_and_prepare()
    return path


def test_a_set_is_described_with_test_as_validation(data_dir: str):
    info = get_source("tfds:levels", data_dir).info
    assert info.class_names == ("dark", "grey", "light")
    counts = {split: part.num_examples for split, part in info.splits.items()}
    assert counts == {"train": 13, "validation": 5}


@pytest.mark.slow
@pytest.mark.parametrize("in_memory_bytes", [0, 1 << 20])
def test_a_set_trains_and_evaluates_every_image_once(data_dir: str, monkeypatch, in_memory_bytes):
    monkeypatch.setattr(pipeline, "IN_MEMORY_BYTES", in_memory_bytes)
    source = get_source("tfds:levels", data_dir)
    dataset = train_dataset(source, image_size=4, host_batch_size=13, seed=0)
    (batch,) = dataset.take(1).as_numpy_iterator()
    assert sorted(batch["index"]) == list(range(13))
    assert np.bincount(batch["label"]).tolist() == [5, 4, 4]
    assert np.abs(batch["image"][:, 0, 0, 0] - 20.0 * batch["label"]).max() <= 2  # JPEG
    (batch,) = eval_dataset(source, image_size=4, host_batch_size=6)
    assert np.bincount(batch["label"][batch["mask"] == 1.0]).tolist() == [2, 2, 1]


def test_images_are_not_decoded_when_they_are_parsed(data_dir: str):
    train = get_source("tfds:levels", data_dir).examples("train")
    record = next(iter(tf.data.TFRecordDataset(list(train.files))))
    encoded, features = train.parse(record)
    assert encoded.dtype == tf.string
    assert tf.io.is_jpeg(encoded)
    assert features[LABELS].dtype == tf.int64


def test_a_set_that_is_not_there_says_how_to_get_it(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"tfds:mnist: not prepared in .*; run tfds build mnist"):
        get_source("tfds:mnist", str(tmp_path))
    with pytest.raises(DatasetError, match="tfds:no_such_set"):
        get_source("tfds:no_such_set", str(tmp_path))
    with pytest.raises(DatasetError, match="needs a name"):
        get_source("tfds", str(tmp_path))


class Patches(tfds.core.GeneratorBasedBuilder):
    """Images whose grey level is 40 times the value of their mask, from 1."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "mask": tfds.features.Image(
                        shape=(None, None, 1), dtype=np.uint8, encoding_format="png"
                    ),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(4), "test": self._generate_examples(2)}

    def _generate_examples(self, count: int):
        for number in range(count):
            mask = np.full([6, 8, 1], 1 + number % 3, np.uint8)
            yield number, {"image": np.repeat(40 * mask, 3, -1), "mask": mask}


def test_a_set_with_masks_is_read_by_them(tmp_path: Path):
    Patches(data_dir=str(tmp_path), file_format="tfrecord").download_and_prepare()
    with pytest.raises(
        DatasetError, match=r"classes of its masks is not known; set model\.num_classes"
    ):
        get_source("tfds:patches", str(tmp_path), target=Mask(1))
    source = get_source("tfds:patches", str(tmp_path), num_classes=3, target=Mask(1))
    view = EvalView((6, 8), Squash())
    (batch,) = make_eval_dataset(source, view, host_batch_size=2)
    for image, label in zip(batch["image"].numpy(), batch["label"].numpy(), strict=True):
        np.testing.assert_array_equal(image[..., 0], 40 * (label.astype(int) + 1))
    with pytest.raises(DatasetError, match="no ClassLabel among its features"):
        get_source("tfds:patches", str(tmp_path))


class Objects(tfds.core.GeneratorBasedBuilder):
    """Images with as many boxes as their number, the last one a crowd."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        objects = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            "is_crowd": np.bool_,
            "area": np.int64,
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "objects": tfds.features.Sequence(objects),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(3)}

    def _generate_examples(self, count: int):
        for number in range(count):
            objects = [
                {
                    "bbox": tfds.features.BBox(ymin=0.25, xmin=0.1 * n, ymax=0.5, xmax=0.9),
                    "label": n % 2,
                    "is_crowd": n == number - 1,
                    "area": 7 + n,
                }
                for n in range(number)
            ]
            yield number, {"image": np.zeros([8, 10, 3], np.uint8), "objects": objects}


@pytest.mark.slow
def test_a_set_with_objects_is_read_by_them(tmp_path: Path):
    Objects(data_dir=str(tmp_path), file_format="tfrecord").download_and_prepare()
    source = get_source("tfds:objects", str(tmp_path), target=Boxes(2))
    assert source.info.class_names == ("cat", "dog")
    view = EvalView((8, 10), Squash())
    (batch,) = make_eval_dataset(source, view, "train", host_batch_size=3)
    classes = batch["classes"].numpy()
    order = np.argsort((classes >= 0).sum(axis=1))
    assert classes[order].tolist() == [[-1, -1], [0, -1], [0, 1]]
    np.testing.assert_allclose(batch["boxes"].numpy()[order[2]], [[2, 0, 4, 9], [2, 1, 4, 9]])
    assert batch["crowd"].numpy()[order[2]].tolist() == [0, 1]
    assert batch["area"].numpy()[order[2]].tolist() == [7, 8]


def test_a_set_without_objects_is_refused(data_dir: str):
    with pytest.raises(DatasetError, match="no sequence of boxes with labels"):
        get_source("tfds:levels", data_dir, target=Boxes())
