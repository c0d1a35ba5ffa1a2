"""The three layouts of EfficientNetV2's checkpoints hold the network whose outputs are stored beside them."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from efficientnet import build_model, get_spec, normalize_images
from efficientnet.weights import WeightsError
from efficientnet.weights.convert import main as convert
from efficientnet.weights.keras_file import assign_weights, read_weights_file
from efficientnet.weights.tf1 import read_tf1_checkpoint
from efficientnet.weights.tf2 import read_tf2_checkpoint

SPEC = get_spec("efficientnetv2-b0", width=0.125, depth=0.3)


@pytest.fixture
def folder(goldens):
    return goldens / "v2_checkpoint"


def logits(weights, outputs):
    """Outputs of our network on the golden images."""
    model = build_model(SPEC, num_classes=10, image_size=int(outputs["res"]))
    assign_weights(model, weights)
    images = np.random.RandomState(99).randint(0, 256, (3, 8, 64, 64, 3))[0]
    return np.asarray(model(normalize_images(images, outputs["mean_rgb"], outputs["std_rgb"])))


@pytest.mark.parametrize(
    ("layout", "read", "stored"),
    [
        ("training", lambda path: read_tf1_checkpoint(path, SPEC), "logits_ema"),
        ("training", lambda path: read_tf1_checkpoint(path, SPEC, raw=True), "logits_raw"),
        ("published", lambda path: read_tf1_checkpoint(path, SPEC), "logits_ema"),
        ("published", lambda path: read_tf1_checkpoint(path, SPEC, raw=True), "logits_ema"),
        ("keras", lambda path: read_tf2_checkpoint(path, SPEC), "logits_ema"),
    ],
    ids=["averages", "raw", "published", "published-plain", "objects"],
)
def test_logits_are_those_stored_beside_the_checkpoint(folder, layout, read, stored):
    outputs = np.load(folder / "outputs.npz")
    found, expected = logits(read(folder / layout), outputs), outputs[stored]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_raw_weights_and_averages_differ(folder):
    outputs = np.load(folder / "outputs.npz")
    assert np.abs(outputs["logits_ema"] - outputs["logits_raw"]).max() > 0.01


@pytest.mark.parametrize("read", [read_tf1_checkpoint, read_tf2_checkpoint])
def test_another_network_is_refused_with_what_differs(folder, read):
    path = folder / ("training" if read is read_tf1_checkpoint else "keras")
    deeper = get_spec("efficientnetv2-b0", width=0.125, depth=0.6)
    with pytest.raises(WeightsError, match=r"does not match efficientnetv2-b0: .* missing"):
        read(path, deeper)
    with pytest.raises(WeightsError, match="have another shape"):
        read(path, get_spec("efficientnetv2-b0", width=0.25, depth=0.3))
    with pytest.raises(WeightsError, match=r"[12] have another shape"):
        read(path, SPEC, num_classes=7)


def test_an_unknown_object_is_refused(tmp_path):
    tf.train.Checkpoint(_stem=tf.train.Checkpoint(other=tf.Variable(1.0))).write(
        str(tmp_path / "x")
    )
    with pytest.raises(WeightsError, match=r"1 of .* not in it \(first: _stem/other"):
        read_tf2_checkpoint(tmp_path / "x", SPEC)


def test_the_command_converts_the_layout_of_objects(folder, tmp_path, capsys):
    shutil.copytree(folder / "keras", tmp_path / "keras")
    flags = ["--model=efficientnetv2-b0", "--width=0.125", "--depth=0.3"]
    output = tmp_path / "b0.weights.h5"
    status = convert([*flags, f"--input={tmp_path}/keras", f"--output={output}"])
    assert status == 0
    assert "10 classes" in capsys.readouterr().out
    expected = read_tf2_checkpoint(folder / "keras", SPEC)
    found = read_weights_file(output)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
