from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.images.framing import Letterbox
from input_pipeline.images.view import EvalView
from input_pipeline.sources import digit_scenes, get_source
from input_pipeline.sources.digit_scenes import SCENE_SIDE, compose
from input_pipeline.stream.pipeline import make_eval_dataset
from input_pipeline.targets.boxes import Boxes
from input_pipeline.targets.mask import MASK, Mask

BOXES = [f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax")]
FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    MASK: tf.io.FixedLenFeature([], tf.string),
    "image/object/class/label": tf.io.RaggedFeature(tf.int64),
    **{name: tf.io.RaggedFeature(tf.float32) for name in BOXES},
}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory):
    """Twelve training and four validation scenes in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digit_scenes, "NUM_SCENES", {"train": 12, "validation": 4})
        data_dir = tmp_path_factory.mktemp("scenes")
        return get_source("digit_scenes", str(data_dir)), data_dir


def some_digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Squares of full ink, each called by its place."""
    ink = np.zeros([count, 8, 8])
    ink[:, 1:7, 2:6] = 1.0
    return ink, np.arange(count)


def test_boxes_are_those_of_the_masks_and_digits_do_not_touch():
    scene = compose(*some_digits(4), np.random.default_rng(1))
    assert scene.image.shape == (SCENE_SIDE, SCENE_SIDE, 3)
    assert set(np.unique(scene.mask)) == {0, *(scene.digits + 1)}
    assert len(scene.digits) >= 2
    for digit, (top, left, bottom, right) in zip(scene.digits, scene.boxes, strict=True):
        rows, columns = np.nonzero(scene.mask == digit + 1)
        assert (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1) == (
            top,
            left,
            bottom,
            right,
        )
        around = scene.mask[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1]
        assert set(np.unique(around)) <= {0, digit + 1}


def test_a_digit_differs_from_what_is_behind_it():
    for seed in range(10):
        scene = compose(*some_digits(3), np.random.default_rng(seed))
        for digit, (top, left, bottom, right) in zip(scene.digits, scene.boxes, strict=True):
            window = scene.image[top:bottom, left:right].astype(float).mean(axis=-1)
            inside = scene.mask[top:bottom, left:right] == digit + 1
            if not inside.all():
                assert abs(window[inside].mean() - window[~inside].mean()) > 30


def test_no_digit_is_in_scenes_of_both_splits(few, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    seen: list[tuple[int, set[bytes]]] = []

    def remember(ink, digits, random):
        seen.append((len(ink), {each.tobytes() for each in ink}))
        return compose(ink, digits, random)

    monkeypatch.setattr(digit_scenes, "NUM_SCENES", {"train": 12, "validation": 4})
    monkeypatch.setattr(digit_scenes, "compose", remember)
    get_source("digit_scenes", str(tmp_path))
    train = set().union(*(digits for _, digits in seen[:12]))
    validation = set().union(*(digits for _, digits in seen[12:]))
    assert len(seen) == 16
    assert not train & validation


def test_records_hold_image_mask_and_boxes(few):
    source, data_dir = few
    shards = sorted(str(path) for path in data_dir.glob("train-*"))
    (serialized, *_) = tf.data.TFRecordDataset(shards)
    found = tf.io.parse_single_example(serialized, FEATURES)
    assert tf.io.decode_jpeg(found["image/encoded"]).shape == (SCENE_SIDE, SCENE_SIDE, 3)
    mask = tf.io.decode_png(found[MASK]).numpy()[..., 0]
    labels = found["image/object/class/label"].numpy()
    assert set(np.unique(mask)) == {0, *labels}
    edges = np.stack([found[name].numpy() for name in BOXES], axis=-1) * SCENE_SIDE
    for label, (top, left, bottom, right) in zip(labels, edges.round().astype(int), strict=True):
        rows, columns = np.nonzero(mask == label)
        assert top <= rows.min()
        assert rows.max() < bottom
        assert left <= columns.min()
        assert columns.max() < right
    counts = source.info.splits["train"].class_counts
    assert sum(counts) >= 24


def test_scenes_are_the_same_everywhere(few, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    _, data_dir = few
    monkeypatch.setattr(digit_scenes, "NUM_SCENES", {"train": 12, "validation": 4})
    get_source("digit_scenes", str(tmp_path))
    names = sorted(path.name for path in data_dir.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    assert all((data_dir / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_scenes_left_unfinished_are_written_again(
    few, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    _, data_dir = few
    for path in data_dir.glob("train-*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(digit_scenes, "NUM_SCENES", {"train": 12, "validation": 4})
    assert get_source("digit_scenes", str(tmp_path)).info.splits.keys() == {"train", "validation"}


@pytest.mark.slow
def test_boxes_of_scenes_have_the_classes_of_their_digits(few):
    _, data_dir = few
    source = get_source("digit_scenes", str(data_dir), target=Boxes(max_boxes=4))
    assert source.info.num_classes == 10
    view = EvalView(SCENE_SIDE, Letterbox())
    (batch,) = make_eval_dataset(source, view, host_batch_size=4)
    masks = get_source("digit_scenes", str(data_dir), target=Mask())
    (labels,) = make_eval_dataset(masks, view, host_batch_size=4)
    for boxes, classes, label in zip(
        batch["boxes"], batch["classes"], labels["label"], strict=True
    ):
        assert (classes >= 0).numpy().sum() >= 1
        for (top, left, bottom, right), digit in zip(
            boxes.numpy().round().astype(int), classes.numpy(), strict=True
        ):
            if digit >= 0:
                inside = label.numpy()[top:bottom, left:right] == digit + 1
                assert inside.any(0).all() or inside.any(1).all()
