"""The command that turns published weights into a file that training starts from."""

import runpy
import sys

import keras
import numpy as np
import pytest

from efficientnet import build_model, get_spec, normalize_images
from efficientnet.complexity import complexity
from efficientnet.weights import convert, load_weights, read_weights_file
from efficientnet.weights.convert import main
from efficientnet.weights.keras_file import write_weights_file

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TINY = get_spec("efficientnet-b0", width=0.25, depth=0.5)
TINY_FLAGS = ["--model=efficientnet-b0", "--width=0.25", "--depth=0.5"]


@pytest.mark.slow
@pytest.mark.parametrize("raw", [False, True])
def test_a_published_checkpoint_becomes_a_file_with_the_references_logits(
    raw, goldens, tmp_path, capsys
):
    output = tmp_path / "made" / "tiny.weights.h5"
    checkpoint = f"--input={goldens / 'tf1_checkpoint'}"
    extra = ["--raw"] if raw else []
    assert main([checkpoint, *TINY_FLAGS, f"--output={output}", *extra]) == 0
    assert capsys.readouterr().out == (
        f"wrote {output}: efficientnet-b0, from a TensorFlow 1 checkpoint, 197 variables, "
        "209,104 values, 10 classes\n"
    )

    model = build_model(TINY, num_classes=10)
    load_weights(model, output)
    with np.load(goldens / "train_step_tiny_b0.npz") as reference:
        images = normalize_images(reference["images"][0], TINY.mean_rgb, TINY.stddev_rgb)
        expected = reference["eval_logits_raw" if raw else "eval_logits_ema"]
    np.testing.assert_allclose(model(images), expected, atol=1e-5)


@pytest.mark.slow
def test_a_file_of_keras_applications_is_converted(tmp_path, capsys):
    theirs = keras.applications.EfficientNetB0(weights=None, classes=3)
    layer = next(x for x in theirs.layers if isinstance(x, keras.layers.Normalization))
    mean, stddev = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    layer.set_weights([mean, stddev**2, np.zeros(())])
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    flags = [
        f"--input={tmp_path / 'theirs.weights.h5'}",
        "--model=efficientnet-b0",
        f"--output={tmp_path / 'ours.weights.h5'}",
    ]
    assert main(flags) == 0
    assert "efficientnet-b0, from a file of keras.applications, " in capsys.readouterr().out
    weights = read_weights_file(tmp_path / "ours.weights.h5")
    np.testing.assert_array_equal(
        weights["block_15_project_conv/kernel"], theirs.get_layer("block7a_project_conv").kernel
    )
    assert main([*flags, "--num_classes=1000"]) == 1
    assert capsys.readouterr().err.endswith("has 3 classes, expected 1000\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model=efficientnet-b0"], "required: --input, --output"),
        (["--input=a", "--model=efficientnet-b9", "--output=a.weights.h5"], "did you mean"),
        (
            ["--input=a", *TINY_FLAGS, "--output=a.pth"],
            "must end in .weights.h5, .safetensors, .h5",
        ),
        (
            ["--input=a", *TINY_FLAGS, "--output=a.weights.h5", "--width=-1"],
            "width is -1.0, expected a number above 0",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(flags, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(flags)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("efficientnet.weights.convert: ")
    assert message in error


def test_an_absent_checkpoint_is_one_line_and_exit_code_1(tmp_path, capsys):
    flags = [f"--input={tmp_path / 'absent'}", *TINY_FLAGS]
    assert main([*flags, f"--output={tmp_path / 'x.weights.h5'}"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path / "absent") in error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_weights_is_one_line(tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    assert main([f"--input={photos}", *TINY_FLAGS, f"--output={tmp_path / 'x.weights.h5'}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{photos} holds neither a run nor a checkpoint; " in line


def test_weights_of_another_network_are_one_line_with_the_input_and_its_network(tmp_path, capsys):
    b0 = get_spec("efficientnet-b0")
    shapes = complexity(b0, num_classes=None).variable_shapes
    weights = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
    file = tmp_path / "b0.weights.h5"
    write_weights_file(file, b0, weights)
    output = f"--output={tmp_path / 'x.weights.h5'}"
    assert main([f"--input={file}", "--model=efficientnet-b1", output]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{file} holds efficientnet-b0 and does not match efficientnet-b1: " in line
    assert main([f"--input={file}", "--model=efficientnet-b0", output]) == 0


def test_an_output_that_cannot_be_written_is_one_line_and_exit_code_1(goldens, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    output = tmp_path / "file" / "x.weights.h5"
    checkpoint = f"--input={goldens / 'tf1_checkpoint'}"
    assert main([checkpoint, *TINY_FLAGS, f"--output={output}"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path / "file") in error


def test_the_file_runs_as_a_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["convert", "--help"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(convert.__file__, run_name="__main__")
    assert exit_.value.code == 0
    assert "python -m efficientnet.weights.convert --input" in capsys.readouterr().out
