"""Masks follow the images of a batch through framing, mirroring, augmentation and padding."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.augment import get_augment
from input_pipeline.errors import DatasetError
from input_pipeline.images.framing import CenterCrop, Letterbox, ScaleJitter, Squash
from input_pipeline.images.label_map import IGNORED
from input_pipeline.images.view import EvalView, TrainView
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo
from input_pipeline.sources.source import IndexedExamples, Source
from input_pipeline.stream.pipeline import make_eval_dataset, make_train_dataset
from input_pipeline.targets.mask import MASK, Mask

pytestmark = pytest.mark.slow

CLASSES = 12
COLOURS = np.random.default_rng(3).integers(0, 256, [CLASSES, 3]).astype(np.uint8)
REGIONS = np.kron(np.arange(CLASSES).reshape(3, 4), np.ones([16, 16])).astype(np.uint8)


def png(values: np.ndarray) -> bytes:
    return tf.io.encode_png(values[..., np.newaxis]).numpy()


def source(*masks: bytes, target: Mask = Mask()) -> Source:  # noqa: B008
    """Images of the classes' colours, with these masks."""
    image = tf.io.encode_png(COLOURS[REGIONS]).numpy()
    table = tf.constant(list(masks))
    examples = IndexedExamples(
        len(masks),
        1000,
        lambda index: (tf.constant(image), {MASK: table[index]}),
        file=lambda index: tf.strings.join(["image ", tf.strings.as_string(index)]),
    )
    info = DatasetInfo("regions", CLASSES, None, {"train": SplitInfo(len(masks))}, 0)
    return Source(info, {"train": examples, "validation": examples}, target=target)


def agree(image: np.ndarray, label: np.ndarray) -> float:
    """Share of the pixels of one class's colour among those that count, whose label must be the class."""
    counts = label != IGNORED
    same = (image[:, :, np.newaxis] == COLOURS).all(axis=-1)
    flat = counts & same.any(axis=-1)
    np.testing.assert_array_equal(label[flat], same.argmax(axis=-1)[flat])
    return flat.sum() / max(counts.sum(), 1)


@pytest.mark.parametrize("framing", [Squash(), ScaleJitter((0.5, 1.5))])
def test_training_labels_are_those_of_the_pixels(framing):
    view = TrainView((40, 52), framing, resize="bilinear")
    batches = make_train_dataset(source(*[png(REGIONS)] * 4), view, host_batch_size=4, seed=3)
    (batch,) = batches.take(1)
    assert batch["label"].dtype == tf.uint8
    assert batch["label"].shape == (4, 40, 52)
    for image, label in zip(batch["image"].numpy(), batch["label"].numpy(), strict=True):
        assert agree(image, label) > 0.5
        if isinstance(framing, ScaleJitter):
            height, width = batch["valid"][0].numpy()
            assert (batch["label"][0].numpy()[height:] == IGNORED).all()
            assert (batch["label"][0].numpy()[:, width:] == IGNORED).all()


MOVES = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


@pytest.mark.parametrize("policy", [{"layers": 3, "magnitude": 7.0}, {"magnitude_std": 2.0}])
@pytest.mark.parametrize("in_dataset", [True, False])
def test_labels_are_moved_exactly_as_a_policy_moves_pixels(policy, in_dataset, monkeypatch):
    """With only the operations that keep colours, grey levels and labels must agree in every pixel."""
    from input_pipeline.augment import policies

    whole = policies.make_operations

    def without_colours(**settings):
        catalogue = whole(**settings)

        def stay(x, level, sign, centre):
            return tf.identity(x)

        return {name: each if name in MOVES else stay for name, each in catalogue.items()}

    monkeypatch.setattr(policies, "make_operations", without_colours)
    augment = get_augment("randaugment", quirks=False, **policy)
    picture = np.repeat(REGIONS[..., np.newaxis], 3, axis=-1)
    view = TrainView(REGIONS.shape, Squash(), augment=augment)

    def move(seed):
        return augment(tf.constant(picture), seed), view._move(tf.constant(REGIONS), seed)

    run = tf.function(move, autograph=False) if in_dataset else move
    moved = 0
    for number in range(12):
        image, labels = run(tf.constant([5, number], tf.int64))
        image, labels = image.numpy()[..., 0], labels.numpy()
        outside = labels == IGNORED
        assert (image[outside] == 128).all()
        np.testing.assert_array_equal(labels[~outside], image[~outside])
        moved += bool(outside.any())
    assert moved > 3


def test_autoaugment_moves_labels_in_a_pipeline():
    view = TrainView((48, 64), Squash(), flip=False, augment=get_augment("autoaugment"))
    batches = make_train_dataset(source(*[png(REGIONS)] * 8), view, host_batch_size=8, seed=1)
    (batch,) = batches.take(1)
    labels = batch["label"].numpy()
    assert (labels != REGIONS).any()
    assert set(np.unique(labels)) <= {*range(CLASSES), IGNORED}


def test_evaluation_at_the_network_has_labels_of_its_size():
    view = EvalView((40, 52), Letterbox(), "bilinear")
    (batch,) = make_eval_dataset(source(png(REGIONS)), view, host_batch_size=1)
    assert batch["label"].shape == (1, 40, 52)
    assert agree(batch["image"][0].numpy(), batch["label"][0].numpy()) > 0.5
    assert "placement" not in batch


def test_evaluation_at_the_original_keeps_the_mask_and_says_where_it_is():
    view = EvalView((24, 32), CenterCrop(0), "bilinear", original=(50, 70))
    (batch,) = make_eval_dataset(source(png(REGIONS)), view, host_batch_size=2)
    label = batch["label"].numpy()[0]
    np.testing.assert_array_equal(label[:48, :64], REGIONS)
    assert (label[48:] == IGNORED).all()
    np.testing.assert_allclose(batch["placement"][0, :2], [0.5, 0.5])
    assert batch["mask"].numpy().tolist() == [1.0, 0.0]


def test_values_are_counted_from_the_first_and_others_are_ignored():
    target = Mask(first_value=1, ignore_value=5)
    view = EvalView(REGIONS.shape, Squash())
    (batch,) = make_eval_dataset(source(png(REGIONS), target=target), view, host_batch_size=1)
    expected = np.where((REGIONS == 0) | (REGIONS == 5), IGNORED, REGIONS.astype(int) - 1)
    np.testing.assert_array_equal(batch["label"][0].numpy(), expected)


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (png(REGIONS[:40]), "the mask is 40 x 64, the image 48 x 64"),
        (png(REGIONS + 1), "mask value 12 is outside 0..11"),
        (b"", f"feature {MASK} is missing"),
        (b"nothing", "the mask is no PNG file"),
        (png(REGIONS)[:100], "cannot be read or decoded"),
    ],
)
def test_a_mask_that_does_not_fit_is_named_with_its_record(mask: bytes, problem: str):
    view = TrainView((24, 32), Squash())
    data = make_train_dataset(source(png(REGIONS), mask), view, host_batch_size=2, seed=0)
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        next(iter(data))
    assert "image 1, example 1: " in str(error.value)
    assert problem in str(error.value)


def test_an_image_larger_than_the_evaluation_allows_is_named():
    view = EvalView((24, 32), Squash(), original=(40, 70))
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"48 x 64, larger than eval\.max_size"
    ):
        next(iter(make_eval_dataset(source(png(REGIONS)), view, host_batch_size=1)))


def test_images_with_masks_are_not_mixed():
    view = dataclasses.replace(TrainView((24, 32), Squash()), mixup_alpha=0.2)
    with pytest.raises(DatasetError, match="cannot be mixed"):
        next(iter(make_train_dataset(source(png(REGIONS)), view, host_batch_size=1, seed=0)))
