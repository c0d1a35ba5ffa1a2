"""Boxes follow the images of a batch through framing, mirroring and padding."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.augment import get_augment, policies
from input_pipeline.errors import DatasetError
from input_pipeline.images.framing import CenterCrop, Letterbox, RandomCrop, ScaleJitter, Squash
from input_pipeline.images.view import EvalView, TrainView
from input_pipeline.sources import records
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo
from input_pipeline.sources.source import IndexedExamples, Source
from input_pipeline.stream.pipeline import make_eval_dataset, make_train_dataset
from input_pipeline.targets import parse_target
from input_pipeline.targets.boxes import (
    BOX_FEATURES,
    BOX_LABELS,
    ENDS,
    NO_CLASS,
    Boxes,
)

HEIGHT, WIDTH = 48, 64
PIXELS = np.array([[4, 10, 20, 30], [24, 36, 44, 60], [30, 4, 40, 14]], np.float32)
LABELS = [1, 3, 2]
NAMES = ("red", "green", "blue")
COLOURS = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)


def picture() -> bytes:
    """Encode an image in which every object is a rectangle of its class's colour."""
    image = np.full([HEIGHT, WIDTH, 3], 100, np.uint8)
    for (top, left, bottom, right), label in zip(PIXELS.astype(int), LABELS, strict=True):
        image[top:bottom, left:right] = COLOURS[label - 1]
    return tf.io.encode_png(image).numpy()


def features(pixels: Any = PIXELS, labels: Any = LABELS, **others: Any) -> dict[str, Any]:
    ends = np.asarray(pixels, np.float32).reshape(-1, 4) / np.array([HEIGHT, WIDTH] * 2, np.float32)
    return {
        **dict(zip(ENDS, ends.T, strict=True)),
        BOX_LABELS: np.array(labels, np.int64),
        **{f"image/object/{name}": np.array(values) for name, values in others.items()},
    }


def source(*examples: dict[str, Any], target: Boxes = Boxes(5)) -> Source:  # noqa: B008
    """Serve the picture with these features, through records."""
    table = tf.constant(
        [records.serialize_features({"image/encoded": picture(), **each}) for each in examples]
    )
    read = IndexedExamples(
        len(examples),
        1000,
        lambda index: records.parse(table[index], BOX_FEATURES),
        file=lambda index: tf.strings.join(["image ", tf.strings.as_string(index)]),
    )
    info = DatasetInfo("rectangles", 3, None, {"train": SplitInfo(len(examples))}, 1)
    return Source(info, {"train": read, "validation": read}, target=target)


def train(data: Source, view: TrainView, batch_size: int = 1) -> dict[str, np.ndarray]:
    (batch,) = make_train_dataset(data, view, host_batch_size=batch_size, seed=3).take(1)
    return {name: part.numpy() for name, part in batch.items()}


def evaluate(data: Source, view: EvalView, batch_size: int = 1) -> dict[str, np.ndarray]:
    (batch,) = make_eval_dataset(data, view, host_batch_size=batch_size)
    return {name: part.numpy() for name, part in batch.items()}


def parsed(example: dict[str, Any]) -> Any:
    """Write the features into a record and parse it."""
    return records.parse(records.serialize_features(example), BOX_FEATURES)[1]


def placed(example: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Check and place one record in an evaluation view; return its row and its problem."""
    target = Boxes(5)
    value, problem = target.check(parsed(example), num_classes=3, label_offset=1)
    if problem != b"":
        return {}, problem.numpy()
    row, problem = target.place(value, EvalView(32, Squash()).show(tf.constant(picture())).seen)
    return dict(row), problem.numpy()


def problem_of(example: dict[str, Any]) -> str:
    return placed(example)[1].decode()


def hull_of_colour(image: np.ndarray, label: int) -> np.ndarray:
    """The box of the pixels whose strongest channel, by far, is that of the class."""
    others = np.delete(image.astype(int), label, axis=-1).max(axis=-1)
    rows, columns = np.nonzero(image[..., label] - others > 125)
    return np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])


def assert_around_the_objects(batch: dict[str, np.ndarray]) -> int:
    checked = 0
    for image, boxes, classes in zip(batch["image"], batch["boxes"], batch["classes"], strict=True):
        for box, label in zip(boxes, classes, strict=True):
            if label == NO_CLASS:
                np.testing.assert_array_equal(box, 0)
            elif (box[2:] - box[:2]).min() > 2:
                np.testing.assert_allclose(box, hull_of_colour(image, label), atol=1.01)
                checked += 1
    return checked


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framing", "size"),
    [
        (Squash(), (96, 64)),
        (ScaleJitter((0.5, 2.0)), (64, 80)),
        (RandomCrop((0.4, 1.0)), (72, 72)),
    ],
)
def test_training_boxes_are_around_their_objects(framing, size):
    view = TrainView(size, framing, resize="bilinear_half_pixel")
    batch = train(source(*[features()] * 16), view, 16)
    assert batch["boxes"].dtype == np.float32
    assert batch["boxes"].shape == (16, 5, 4)
    assert batch["classes"].dtype == np.int32
    assert batch["classes"].shape == (16, 5)
    assert assert_around_the_objects(batch) > 16
    if isinstance(framing, ScaleJitter):
        ends = np.tile(batch["valid"], 2)[:, np.newaxis]
        assert ((batch["boxes"] >= 0) & (batch["boxes"] <= ends)).all()


@pytest.mark.slow
def test_boxes_follow_augmentation(monkeypatch: pytest.MonkeyPatch):
    whole = policies.make_operations
    monkeypatch.setattr(
        policies, "make_operations", lambda **these: policies.moving(whole(**these))
    )
    augment = get_augment("randaugment", quirks=False, magnitude=6.0)
    view = TrainView((96, 96), ScaleJitter((0.7, 1.2)), "bilinear_half_pixel", augment=augment)
    value, _ = Boxes(5).check(parsed(features()), num_classes=3, label_offset=1)

    image = tf.constant(picture())

    @tf.function
    def show(seed: tf.Tensor) -> Any:
        shown = view.show(image, seed, seed)
        return view.finish(shown.framed), Boxes(5).place(value, shown.seen)[0]

    checked = 0
    for number in range(20):
        made, row = show(tf.constant([3, number], tf.int64))
        pixels = made["image"].numpy()
        for box, label in zip(row["boxes"].numpy(), row["classes"].numpy(), strict=True):
            if label != NO_CLASS and (box[2:] - box[:2]).min() > 6:
                outward = np.array([-1, -1, 1, 1]) * (box - hull_of_colour(pixels, label))
                assert (outward > -1.6).all()
                checked += 1
    assert checked > 20


@pytest.mark.slow
def test_training_leaves_out_crowds_and_boxes_of_no_area():
    pixels = [*PIXELS, [10, 10, 10, 20]]
    data = source(features(pixels, [1, 3, 2, 2], is_crowd=[1, 0, 0, 0]))
    batch = train(data, TrainView((HEIGHT, WIDTH), Squash(), flip=False))
    assert batch["classes"].tolist() == [[2, 1, NO_CLASS, NO_CLASS, NO_CLASS]]
    np.testing.assert_allclose(batch["boxes"][0, :2], PIXELS[1:], rtol=1e-6)
    np.testing.assert_array_equal(batch["boxes"][0, 2:], 0)


@pytest.mark.slow
def test_boxes_of_parts_that_a_crop_leaves_out_are_padding():
    data = source(*[features([[0, 0, 6, 6]], [1])] * 8)
    batch = train(data, TrainView((32, 32), RandomCrop((0.1, 0.2))), 8)
    assert (batch["classes"][:, 0] == NO_CLASS).any()
    there = batch["classes"][:, 0] != NO_CLASS
    sides = batch["boxes"][there, 0, 2:] - batch["boxes"][there, 0, :2]
    assert (sides > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("framing", [Letterbox(), CenterCrop(0)])
def test_evaluation_keeps_the_originals_boxes_and_says_where_they_are(framing):
    data = source(features(is_crowd=[0, 1, 0], area=[100.0, 200.5, 7.0]), features())
    batch = evaluate(data, EvalView((96, 96), framing, "bilinear_half_pixel"), 2)
    np.testing.assert_allclose(batch["boxes"][:, :3], [PIXELS, PIXELS], rtol=1e-6)
    assert batch["classes"].tolist() == [[0, 2, 1, NO_CLASS, NO_CLASS]] * 2
    assert batch["crowd"].tolist() == [[0, 1, 0, 0, 0], [0] * 5]
    own = np.prod(PIXELS[:, 2:] - PIXELS[:, :2], axis=1)
    np.testing.assert_allclose(batch["area"], [[100, 200.5, 7, 0, 0], [*own, 0, 0]], rtol=1e-6)
    scale, offset = np.tile(batch["placement"].reshape(2, 2, 1, 2), 2).transpose(1, 0, 2, 3)
    real = (batch["classes"] != NO_CLASS)[..., np.newaxis]
    seen = np.where(real, batch["boxes"] * scale + offset, 0)
    inside = np.clip(seen, 0, 96).astype(np.float32)
    assert assert_around_the_objects({**batch, "boxes": inside}) >= 4


def test_an_image_without_objects_is_an_example():
    row, problem = placed({})
    assert problem == b""
    assert (row["classes"] == NO_CLASS).numpy().all()


@pytest.mark.parametrize(
    ("example", "problem"),
    [
        (features(labels=[1, 4, 2]), "box 2 of 3: label 4 is outside 1..3"),
        (features([[4, 10, 20, 66]], [1]), "box 1 of 1 is outside the image: ymin, xmin"),
        (features([[-2, 10, 20, 30]], [1]), "pixels in an image of 48 x 64"),
        (features([[20, 10, 4, 30]], [1]), "box 1 of 1 has a negative size: ymin, xmin"),
        (features([[np.nan, 1, 4, 30]], [1]), "box 1 of 1 is not finite"),
        (features([*PIXELS, *PIXELS], LABELS * 2), "6 boxes, more than task.max_boxes=5"),
        (features(labels=[1]), "differ in length: bbox/ymin 3"),
        (features(is_crowd=[1, 0]), "is_crowd 2"),
        (features(area=[1.0, np.inf, 1.0]), "box 2 of 3: area is inf"),
    ],
)
def test_boxes_that_do_not_fit_are_problems(example, problem):
    assert problem in problem_of(example)


@pytest.mark.slow
def test_a_problem_is_named_with_its_record():
    data = source(features(), features(labels=[1, 4, 2]))
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="image 1, example 1: box 2 of 3: label 4"
    ):
        evaluate(data, EvalView((32, 32), Letterbox()), 2)


def test_a_box_that_reaches_less_than_a_pixel_over_the_edge_is_cut_off():
    row, problem = placed(features([[-0.5, 0, 48.9, 64.5]], [1]))
    assert problem == b""
    np.testing.assert_allclose(row["boxes"][0], [0, 0, HEIGHT, WIDTH])


def test_images_with_boxes_are_not_mixed():
    view = dataclasses.replace(TrainView(32, Squash()), mixup_alpha=0.2)
    with pytest.raises(DatasetError, match="cannot be mixed"):
        train(source(features()), view)


def test_the_most_boxes_are_an_option_of_the_command_line():
    assert parse_target("boxes:max_boxes=300") == Boxes(300)


def test_drawing_colours_the_edges_of_both_views():
    image = np.zeros([96, 128, 3], np.uint8)
    row = {"boxes": PIXELS, "classes": np.array([0, 2, NO_CLASS])}
    evaluated = {**row, "placement": np.array([2.0, 2.0, 0.0, 0.0])}
    assert Boxes().draw(image, row, NAMES)[12, 10].any()
    drawn = Boxes().draw(image, evaluated, NAMES)
    assert drawn[24, 20].any()
    assert not drawn[70, 10].any()
