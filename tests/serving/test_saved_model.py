"""SavedModels answer as the live model does, from bytes and from pixels, and survive bad input."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from efficientnet import endpoints, normalize_images
from input_pipeline.images.framing import CenterCrop
from input_pipeline.images.view import EvalView
from serving import warmup
from serving.network import ExportError
from serving.saved_model import Servable, crop_all, export_saved_model, heatmap_endpoint
from tests.crops import eval_crop_uint8
from tests.serving.messages import message_class

pytestmark = pytest.mark.slow

CLASSES, SIZE = 7, 32
NAMES = ("zero", "one", "two", "three", "four", "fünf", "six six")
ROUNDING = 1e-5  # a graph fuses what the live model computes in steps

# Run in a fresh process, where neither Keras nor this project can be imported.
SERVE = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path = [entry for entry in sys.path if entry not in ("", os.getcwd())]
import tensorflow as tf
for name in [n for n in sys.modules if n.split(".")[0] == "keras"]:
    sys.modules[name] = None
sys.modules["keras"] = None
import json
images = [bytes.fromhex(text) for text in json.loads(sys.stdin.read())]
loaded = tf.saved_model.load(sys.argv[1])
answer = loaded.signatures["serving_default"](image_bytes=tf.constant(images, tf.string))
blocked = []
for name in ("keras", "efficientnet", "serving"):
    try:
        __import__(name)
    except ImportError:
        blocked.append(name)
print(json.dumps({
    "blocked": blocked,
    "probabilities": answer["probabilities"].numpy().tolist(),
    "classes": answer["classes"].numpy().tolist(),
    "labels": [[name.decode() for name in row] for row in answer["labels"].numpy()],
    "valid": answer["valid"].numpy().tolist(),
}))
"""


def export(directory, spec, values, *, version=3, finish=None, **changes):
    given = {"spec": spec, "num_classes": CLASSES, "view": EvalView(SIZE), "class_names": NAMES}
    servable = Servable(**{**given, **values, **changes})
    return export_saved_model(str(directory), servable, version=version, finish=finish)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, spec, values):
    return export(tmp_path_factory.mktemp("saved_model"), spec, values)


@pytest.fixture(scope="module")
def signatures(folder):
    loaded = tf.saved_model.load(folder)
    return {
        name: lambda loaded=loaded, name=name, **inputs: {
            key: value.numpy() for key, value in loaded.signatures[name](**inputs).items()
        }
        for name in loaded.signatures
    }


def crops(images):
    return np.stack([eval_crop_uint8(image, image_size=SIZE).numpy() for image in images])


def live_probabilities(network, spec, pixels):
    logits = network(normalize_images(pixels, spec.mean_rgb, spec.stddev_rgb), training=False)
    return tf.nn.softmax(logits).numpy()


def test_a_process_with_tensorflow_alone_serves_it(folder, encoded, network, spec, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", SERVE, folder],
        input=json.dumps([image.hex() for image in encoded.values()]),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)
    assert answer["blocked"] == ["keras", "efficientnet", "serving"]
    expected = live_probabilities(network, spec, crops(encoded.values()))
    assert expected.max(axis=1).std() > 0.01  # the images get different classes
    np.testing.assert_allclose(answer["probabilities"], expected, atol=ROUNDING)
    best = np.argsort(-expected, axis=1)[:, :5]
    np.testing.assert_array_equal(answer["classes"], best)
    assert answer["labels"] == [[NAMES[index] for index in row] for row in best]
    assert answer["valid"] == [True] * len(encoded)


def test_it_holds_no_operation_that_calls_python(folder):
    saved = saved_model_pb2.SavedModel.FromString(Path(folder, "saved_model.pb").read_bytes())
    (graph,) = (meta.graph_def for meta in saved.meta_graphs)
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    used = {node.op for node in nodes}
    assert {"Conv2D", "DecodeAndCropJpeg", "ResizeBicubic"} <= used  # all is looked at
    assert not {op for op in used if "Py" in op or "Numpy" in op}


def test_pixels_inside_are_those_of_the_evaluation(encoded):
    images = list(encoded.values())
    found, valid = tf.function(crop_all)(tf.constant(images), EvalView(SIZE))
    assert valid.numpy().all()
    np.testing.assert_array_equal(found["image"], crops(images))


def test_bytes_and_pixels_get_the_same_answers(signatures, encoded):
    images = list(encoded.values())
    pixels = crops(images)
    from_bytes = signatures["serving_default"](image_bytes=tf.constant(images))
    from_floats = signatures["predict_images"](images=tf.constant(pixels, tf.float32))
    from_uint8 = signatures["predict_images_uint8"](images=tf.constant(pixels))
    assert set(from_bytes) == {"probabilities", "classes", "labels", "scores", "valid"}
    for other in (from_floats, from_uint8):
        assert set(other) == set(from_bytes)
        np.testing.assert_allclose(
            other["probabilities"], from_bytes["probabilities"], rtol=0, atol=ROUNDING
        )
        for key in ("classes", "labels", "valid"):
            np.testing.assert_array_equal(other[key], from_bytes[key])


def test_types_and_shapes_are_as_documented(signatures, encoded):
    answer = signatures["serving_default"](image_bytes=tf.constant([encoded["png"]] * 3))
    assert {key: (value.dtype, value.shape) for key, value in answer.items()} == {
        "probabilities": (np.float32, (3, CLASSES)),
        "classes": (np.int64, (3, 5)),
        "labels": (np.object_, (3, 5)),
        "scores": (np.float32, (3, 5)),
        "valid": (np.bool_, (3,)),
    }
    np.testing.assert_allclose(answer["probabilities"].sum(axis=1), 1, rtol=1e-5)
    best = np.take_along_axis(answer["probabilities"], answer["classes"], axis=1)
    np.testing.assert_array_equal(answer["scores"], best)


@pytest.mark.parametrize("size", [1, 2, 9])
def test_a_batch_may_have_any_size(signatures, encoded, size):
    image = encoded["jpeg"]
    alone = signatures["serving_default"](image_bytes=tf.constant([image]))["probabilities"]
    together = signatures["serving_default"](image_bytes=tf.constant([image] * size, tf.string))
    assert together["probabilities"].shape == (size, CLASSES)
    np.testing.assert_allclose(together["probabilities"], np.repeat(alone, size, 0), atol=ROUNDING)


def test_broken_images_are_told_and_the_others_answered(signatures, encoded, broken):
    good, bad = list(encoded.values()), list(broken.values())
    mixed = [bad[0], good[0], bad[1], bad[2], good[1], good[2], bad[3], bad[4]]
    is_good = np.array([image in good for image in mixed])
    answer = signatures["serving_default"](image_bytes=tf.constant(mixed))
    alone = signatures["serving_default"](image_bytes=tf.constant(good[:3]))
    np.testing.assert_array_equal(answer["valid"], is_good)
    for key in ("probabilities", "scores"):
        np.testing.assert_allclose(answer[key][is_good], alone[key], atol=ROUNDING)
        assert (answer[key][~is_good] == 0).all()
    np.testing.assert_array_equal(answer["labels"][is_good], alone["labels"])
    assert (answer["labels"][~is_good] == b"").all()
    assert (answer["classes"][~is_good] == -1).all()


def test_a_batch_of_broken_images_is_answered(signatures, broken):
    answer = signatures["serving_default"](image_bytes=tf.constant(list(broken.values())))
    assert not answer["valid"].any()
    assert not answer["probabilities"].any()


def test_pixels_that_are_no_numbers_are_not_valid(signatures):
    images = np.full([2, SIZE, SIZE, 3], 100.0, np.float32)
    images[1, 3, 4, 0] = np.nan
    answer = signatures["predict_images"](images=tf.constant(images))
    assert answer["valid"].tolist() == [True, False]
    assert np.isfinite(answer["probabilities"]).all()
    assert not answer["probabilities"][1].any()


def test_features_are_the_pooled_ones_of_the_live_model(signatures, encoded, broken, network, spec):
    images = [*list(encoded.values())[:3], broken["text"]]
    answer = signatures["features"](image_bytes=tf.constant(images))
    pooled = keras.Model(network.input, endpoints(network)["pooled"])
    # As a graph, in which TensorFlow makes the division by stddev a product: that is one unit in
    # the last place of the pixels, which this network's features turn into 1e-4.
    live = tf.function(lambda x: pooled(normalize_images(x, spec.mean_rgb, spec.stddev_rgb)))
    np.testing.assert_allclose(
        answer["features"][:3], live(crops(images[:3])), atol=ROUNDING, rtol=1e-4
    )
    assert answer["features"].std(axis=0).max() > 0.01
    assert answer["valid"].tolist() == [True, True, True, False]
    assert not answer["features"][3].any()


def test_endpoints_are_those_of_the_live_model(signatures, encoded, network, spec):
    pixels = crops(encoded.values())
    answer = signatures["endpoints"](images=tf.constant(pixels, tf.float32))
    assert {name: x.shape[1] for name, x in answer.items()} == {
        f"reduction_{i}": SIZE // 2**i for i in range(1, 6)
    }
    inside = keras.Model(network.input, endpoints(network))
    expected = inside(normalize_images(pixels, spec.mean_rgb, spec.stddev_rgb))
    for name, found in answer.items():
        np.testing.assert_allclose(found, expected[name], atol=1e-4, rtol=1e-4)


def test_heatmaps_are_the_gradients_of_the_best_class(signatures, encoded, broken, network, spec):
    images = [*encoded.values(), broken["text"]]
    answer = signatures["explain"](image_bytes=tf.constant(images))
    heatmaps, pixels = answer["heatmaps"][:-1], crops(images[:-1])
    np.testing.assert_array_equal(answer["images"][:-1], pixels)
    assert not answer["heatmaps"][-1].any()
    assert not answer["valid"][-1]
    name = heatmap_endpoint(network)
    assert name == "reduction_2"  # 8 x 8; what follows is 4 x 4 and smaller
    inside = endpoints(network)
    before = keras.Model(network.input, inside[name])
    after = keras.Model(inside[name], inside["logits"])
    maps = before(normalize_images(pixels, spec.mean_rgb, spec.stddev_rgb))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        best = tf.reduce_max(after(maps), axis=1)
    importance = tf.reduce_mean(tape.gradient(best, maps), axis=[1, 2], keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(importance * maps, axis=-1, keepdims=True))
    heat = tf.image.resize(heat, [SIZE, SIZE])[..., 0].numpy()
    assert heat.max() > 0
    scale = np.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-30)
    np.testing.assert_allclose(heatmaps, heat / scale, atol=1e-3)


def test_warmup_requests_are_answered_by_their_signatures(folder, signatures):
    requests = [parse_log(r) for r in read_records(folder + "/assets.extra/" + warmup.FILE)]
    assert [request["signature"] for request in requests] == [
        "serving_default",
        "predict_images",
        "features",
    ]
    for request in requests:
        answer = signatures[request["signature"]](**request["inputs"])
        if "valid" in answer:
            assert answer["valid"].all()


def read_records(file):
    return [record.numpy() for record in tf.data.TFRecordDataset(file)]


def parse_log(record):
    """A PredictionLog of a PredictRequest."""
    request = message_class("PredictionLog").FromString(record).predict_log.request
    inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
    assert request.model_spec.name == "efficientnet-b0"
    return {
        "signature": request.model_spec.signature_name,
        "inputs": {key: tf.constant(value) for key, value in inputs.items()},
    }


@pytest.fixture(scope="module")
def other(spec, values, tmp_path_factory):
    """An export that differs in all that can be chosen: crop, resize, few classes, no names."""
    weights = [*values["weights"][:-2], values["weights"][-2][:, :3], values["weights"][-1][:3]]
    folder = export(
        tmp_path_factory.mktemp("other"),
        spec,
        {"weights": weights, "statistics": values["statistics"]},
        num_classes=3,
        class_names=None,
        view=EvalView(SIZE, CenterCrop(crop_padding=0), resize="bilinear"),
    )
    return tf.saved_model.load(folder).signatures


def test_few_classes_give_few_labels_and_numbers_for_names(other):
    answer = other["predict_images"](images=tf.zeros([1, SIZE, SIZE, 3]))
    assert answer["labels"].shape == (1, 3)
    assert set(answer["labels"].numpy()[0]) == {b"0", b"1", b"2"}


def test_the_crop_of_the_experiment_is_used(other, encoded):
    image = encoded["tall jpeg"]
    pixels = eval_crop_uint8(image, image_size=SIZE, crop_padding=0, resize="bilinear")
    assert (pixels.numpy() != crops([image])[0]).any()
    answer = other["explain"](image_bytes=tf.constant([image]))
    np.testing.assert_array_equal(answer["images"][0], pixels)


def test_variables_are_stored_once(folder, network):
    stored = sum(file.stat().st_size for file in Path(folder, "variables").iterdir())
    assert stored < 1.3 * 4 * network.count_params()


def test_values_that_do_not_fit_are_refused_before_anything_is_written(spec, values, tmp_path):
    weights, statistics = values["weights"], values["statistics"]
    turned = [weights[0].T, *weights[1:]]
    wrong = {
        r"weights, .* were given: they belong to another": {"weights": weights[1:]},
        r"stem_conv/kernel is \[3, 3, 3, 8\], its value \[8, 3, 3, 3\]": {"weights": turned},
        r"statistics, 0 were given": {"statistics": []},
        r"2 class names for 7 classes": {"class_names": ["a", "b"]},
        r"version is -1": {"version": -1},
    }
    for message, changes in wrong.items():
        with pytest.raises(ExportError, match=message):
            export(tmp_path / "x", spec, {"weights": weights, "statistics": statistics}, **changes)
    assert not (tmp_path / "x").exists()
