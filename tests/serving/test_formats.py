"""TFLite and ONNX files compute what the live model computes."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from efficientnet import build_model, get_spec, normalize_images
from serving.network import ExportError, build_inference_network
from serving.onnx import write_onnx
from serving.predictor import open_outputs
from serving.tflite import VARIANTS, write_tflite
from system.tensorflow_log import TENSORFLOW_LOGS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # converters use what other packages deprecated
]

# Least correlation with the logits of the live model, whose weights are random: trained networks
# suffer less.
CORRELATION = {"float32": 0.999999, "float16": 0.9995, "dynamic_range": 0.98, "int8": 0.8}
LITE_SIZE, LITE_CLASSES = 32, 5


@pytest.fixture(scope="module")
def pixels(picture):
    return np.stack([picture(LITE_SIZE, LITE_SIZE, seed) for seed in range(16)])


@pytest.fixture(scope="module")
def lite(pixels):
    """A member of the family that is made for int8."""
    import keras

    spec = get_spec("efficientnet-lite0", width=0.25, depth=0.1)
    keras.utils.set_random_seed(3)
    model = build_model(
        spec,
        num_classes=LITE_CLASSES,
        uniform=lambda shape, index: keras.ops.zeros(shape),
        batch_norm=lambda **settings: keras.layers.BatchNormalization(
            **{**settings, "momentum": 0.0}
        ),
    )
    model(normalize_images(pixels, spec.mean_rgb, spec.stddev_rgb), training=True)
    network = build_inference_network(
        spec,
        num_classes=LITE_CLASSES,
        image_size=LITE_SIZE,
        weights=[v.numpy() for v in model.trainable_variables],
        statistics=[v.numpy() for v in model.non_trainable_variables],
    )
    return spec, network


@pytest.fixture(scope="module")
def logits(lite, pixels):
    spec, network = lite
    return network(normalize_images(pixels, spec.mean_rgb, spec.stddev_rgb)).numpy()


@pytest.fixture(scope="module")
def tflite_folder(lite, pixels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tflite")
    write_tflite(str(folder), lite[1], lite[0], calibration_images=lambda: pixels)
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_tflite_files_give_the_logits_of_the_live_model(variant, tflite_folder, pixels, logits):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(str(tflite_folder / f"{variant}.tflite"))
    interpreter.allocate_tensors()
    entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert entry["dtype"] == (np.uint8 if variant == "int8" else np.float32)
    assert exit_["dtype"] == np.float32
    found = []
    for image in pixels:
        interpreter.set_tensor(entry["index"], image[np.newaxis].astype(entry["dtype"]))
        interpreter.invoke()
        found.append(interpreter.get_tensor(exit_["index"])[0])
    correlation = np.corrcoef(np.ravel(found), np.ravel(logits))[0, 1]
    assert correlation > CORRELATION[variant]


def test_converter_and_interpreter_print_nothing(lite, pixels, tmp_path, capfd, monkeypatch):
    monkeypatch.delenv(TENSORFLOW_LOGS, raising=False)
    pytest.importorskip("ai_edge_litert.interpreter")
    spec, network = lite
    write_tflite(str(tmp_path), network, spec, calibration_images=lambda: pixels, variants=["int8"])
    card = SimpleNamespace(format="tflite", files=["int8.tflite"])
    open_outputs(str(tmp_path), card, "int8")(pixels[:1])
    assert capfd.readouterr() == ("", "")


def test_int8_is_whole_and_per_channel(tflite_folder):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(
        str(tflite_folder / "int8.tflite"),
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    details = interpreter.get_tensor_details()
    floats = [d["name"] for d in details if d["dtype"] == np.float32]
    assert len(floats) <= 1, floats  # the output, converted at the very end
    scales = [len(d["quantization_parameters"]["scales"]) for d in details]
    assert max(scales) > 8


def test_smaller_variants_are_smaller(tflite_folder):
    size = {name: (tflite_folder / f"{name}.tflite").stat().st_size for name in VARIANTS}
    assert size["float16"] < 0.6 * size["float32"]
    assert max(size["dynamic_range"], size["int8"]) < size["float16"]


def test_int8_without_images_is_refused(lite, tmp_path):
    with pytest.raises(ExportError, match="needs at least one training image"):
        write_tflite(
            str(tmp_path), lite[1], lite[0], calibration_images=lambda: [], variants=["int8"]
        )


def test_an_unknown_variant_lists_the_known_ones(lite, tmp_path):
    with pytest.raises(
        ExportError, match=r"unknown TFLite variant 'int4'; expected float32, float16"
    ):
        write_tflite(
            str(tmp_path), lite[1], lite[0], calibration_images=lambda: [], variants=["int4"]
        )


def test_onnx_files_give_the_logits_of_the_live_model(network, picture, spec, tmp_path):
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    write_onnx(str(tmp_path), network)
    session = onnxruntime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    images = np.stack([picture(32, 32, seed) for seed in range(5)])
    inputs = np.asarray(normalize_images(images, spec.mean_rgb, spec.stddev_rgb))
    for n in (1, 5):
        (found,) = session.run(["logits"], {"images": inputs[:n]})
        np.testing.assert_allclose(found, network(inputs[:n]), atol=1e-4)


def test_a_missing_package_is_named_with_the_line_that_installs_it(network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ExportError, match="needs the package tf2onnx: pip install -r req"):
        write_onnx(str(tmp_path), network)
    assert not list(Path(tmp_path).iterdir())
