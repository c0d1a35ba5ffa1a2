"""Exports that answer with boxes in pixels of the original image."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.load import load_experiment, save_experiment
from efficientnet.builder import build_network
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo, write_dataset_info
from run_folder.checkpoints import CheckpointStore
from serving import predict
from serving.class_maps import place_all
from serving.export import export_run, load_trained_network
from serving.model_card import read_model_card
from serving.network import build_inference_network
from serving.predictor import (
    find_export,
    load_signatures,
    open_box_predictor,
    open_outputs,
)
from serving.saved_model import pixels_of
from tasks.detection.coding import iou
from tasks.detection.task import to_original
from training.job import make_task, model_spec

pytestmark = pytest.mark.slow

SIZE, NAMES = 64, ("ground", "fünf", "six six")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run as training leaves it, exported in every format."""
    model_dir = str(tmp_path_factory.mktemp("detection"))
    experiment = load_experiment(
        overrides=[
            "model.name=efficientnet-lite0",
            "model.width=0.25",
            "model.depth=0.1",
            f"model.num_classes={len(NAMES)}",
            f"model.image_size={SIZE}",
            "task.name=detection",
            "task.detector=efficientdet-lite0",
            "task.filters=8",
            "task.cells=1",
            "task.head_repeats=1",
            "task.max_detections=10",
            "data.source=synthetic",
            "data.num_train_examples=4",
            "eval.framing=letterbox",
            "export.formats=[saved_model, tflite, onnx]",
        ]
    )
    save_experiment(experiment, model_dir + "/experiment.yaml")
    info = DatasetInfo("scenes", len(NAMES), NAMES, {"train": SplitInfo(4)}, 0)
    write_dataset_info(info, model_dir)
    keras.utils.set_random_seed(3)
    task = make_task(experiment, info)
    network = build_network(
        task.layers(model_spec(experiment)), name="detector", outputs=task.outputs
    )
    arrays = {"step": np.array(40, np.int32)}
    random = np.random.default_rng(0)
    for variable in network.weights:
        value = variable.numpy()
        if "class_predict" in variable.path and "bias" in variable.path:
            value = random.normal(-1.0, 1.0, value.shape).astype(np.float32)
        arrays[f"ema/{variable.path}"] = value
        arrays[f"network/{variable.path}"] = np.zeros(value.shape, np.float32)
    CheckpointStore(model_dir, best_metric="ap").save(40, arrays, {"ap": 0.75})
    export_run(model_dir)
    return model_dir


def test_the_saved_model_answers_as_the_task_in_original_pixels(run, encoded, broken):
    images = [*list(encoded.values())[:2], broken["text"]]
    signature = load_signatures(find_export(run))["serving_default"]
    found = {k: v.numpy() for k, v in signature(image_bytes=tf.constant(images)).items()}
    assert found["valid"].tolist() == [True, True, False]
    assert found["count"][-1] == 0
    assert (found["classes"][-1] == -1).all()
    trained = load_trained_network(run, None)
    network = build_inference_network(**trained.values())
    placed = place_all(tf.constant(images[:2]), trained.view)
    pixels = pixels_of(placed.framed, trained.spec.mean_rgb)
    outputs = network((pixels - trained.spec.mean_rgb) / trained.spec.stddev_rgb, training=False)
    expected = trained.task.detect(outputs, pixels)
    np.testing.assert_allclose(found["scores"][:2], expected.scores, atol=1e-5)
    np.testing.assert_array_equal(found["count"][:2], expected.count)
    boxes = to_original(expected.boxes, placed.placement).numpy()
    limits = np.tile(placed.sizes.numpy(), 2)[:, np.newaxis]
    np.testing.assert_allclose(found["boxes"][:2], np.clip(boxes, 0, limits), atol=1e-2)
    assert found["count"][0] > 1
    assert found["labels"][0, 0].decode() == NAMES[found["classes"][0, 0]]


def test_all_formats_agree(run, encoded, broken):
    images = [*list(encoded.values())[:2], broken["text"]]
    reference = open_box_predictor(find_export(run)).predict(images)
    for name in ("onnx", "tflite"):
        found = open_box_predictor(find_export(run, name)).predict(images)
        for ours, theirs in zip(found, reference, strict=True):
            assert ours.valid == theirs.valid
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-3)
            np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.1)
    card = read_model_card(find_export(run, "onnx"))
    assert (card.answers, card.class_names) == ("boxes", NAMES)
    assert "anchors.npy" in card.files


def test_eight_bits_find_what_floats_do(run, encoded):
    images = list(encoded.values())[:2]
    export = find_export(run, "tflite")
    floats, bits = (
        open_box_predictor(export, variant).predict(images) for variant in ("float32", "int8")
    )
    for expected, found in zip(floats, bits, strict=True):
        assert len(expected.scores) > 1
        np.testing.assert_allclose(found.scores, expected.scores, atol=0.03)
        overlap = iou(expected.boxes[:, np.newaxis], found.boxes[np.newaxis])
        same = expected.classes[:, np.newaxis] == found.classes
        # Scores of a network that has learned nothing are close, so some boxes change places.
        assert np.median(np.max(np.where(same, overlap, 0.0), axis=1)) > 0.5


def test_eight_bits_follow_the_image_as_floats_do(run):
    """Of each output, what differs from image to image: the rest hides a wrong calibration."""
    export = find_export(run, "tflite")
    card = read_model_card(export)
    pixels = np.random.default_rng(0).integers(0, 256, [4, SIZE, SIZE, 3]).astype(np.uint8)
    floats, bits = (open_outputs(export, card, variant)(pixels) for variant in ("float32", "int8"))
    for name, least in {"boxes": 0.95, "classes": 0.7}.items():
        expected, found = (values[name] - values[name].mean(0) for values in (floats, bits))
        assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > least, name


def test_predict_draws_boxes_and_prints_json(run, encoded, broken, tmp_path: Path, capsys):
    (tmp_path / "good.jpg").write_bytes(encoded["jpeg"])
    (tmp_path / "bad.png").write_bytes(broken["text"])
    assert predict.main([f"--model_dir={run}", "--json", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    bad, good = map(json.loads, out.splitlines())
    assert "bad.png" in err
    assert "error" in bad
    assert good["detections"]
    assert all(each["score"] >= 0.3 and len(each["box"]) == 4 for each in good["detections"])
    picture = tf.io.decode_png(Path(good["picture"]).read_bytes())
    assert picture.shape == tf.io.decode_jpeg(encoded["jpeg"]).shape
