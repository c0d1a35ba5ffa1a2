"""Our weights files: written, read by names, loaded strictly but for the classifier."""

import h5py
import keras
import numpy as np
import pytest

from efficientnet import build_model, get_spec
from efficientnet.complexity import complexity
from efficientnet.weights import WeightsError, load_weights, read_weights_file, write_weights_file
from efficientnet.weights.matching import require_match
from efficientnet.weights.recognize import recognize_network

SPEC = get_spec("efficientnet-b0", width=0.25, depth=0.1)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class OtherBatchNorm(keras.layers.BatchNormalization):
    """Another class, so Keras files it under another name than its own batch norm."""


def as_dict(model):
    paths = [variable.path for variable in model.weights]
    return dict(zip(paths, model.get_weights(), strict=True))


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)


@pytest.fixture(scope="module")
def weights():
    """Every value different, batch norm's included."""
    random = np.random.default_rng(3)
    model = build_model(SPEC, num_classes=6)
    return {v.path: random.normal(size=v.shape).astype("float32") for v in model.weights}


@pytest.fixture
def file(weights, tmp_path):
    write_weights_file(tmp_path / "six.weights.h5", SPEC, weights)
    return tmp_path / "six.weights.h5"


def test_what_is_written_is_read(file, weights):
    assert_equal(dict(sorted(read_weights_file(file).items())), dict(sorted(weights.items())))


def test_keras_reads_the_file_too(file, weights):
    model = build_model(SPEC, num_classes=6)
    model.load_weights(file)
    assert_equal(as_dict(model), weights)


@pytest.mark.parametrize("batch_norm", [keras.layers.BatchNormalization, OtherBatchNorm])
@pytest.mark.parametrize("saver", [keras.layers.BatchNormalization, OtherBatchNorm])
def test_models_load_whatever_class_of_batch_norm_either_has(saver, batch_norm, weights, tmp_path):
    saved = build_model(SPEC, num_classes=6, batch_norm=saver)
    saved.set_weights(list(weights.values()))
    saved.save_weights(tmp_path / "saved.weights.h5")
    model = build_model(SPEC, num_classes=6, batch_norm=batch_norm)
    report = load_weights(model, tmp_path / "saved.weights.h5")
    assert_equal(as_dict(model), weights)
    assert str(report) == f"initialised 140 variables from {tmp_path / 'saved.weights.h5'}"
    assert (len(report.loaded), report.fresh) == (len(weights), ())


def test_another_number_of_classes_drops_the_classifier_and_says_so(file, weights):
    model = build_model(SPEC, num_classes=4)
    before = as_dict(model)
    report = load_weights(model, file)
    classifier = ("classifier/kernel", "classifier/bias")
    kept = {path: before[path] for path in classifier}
    assert_equal(as_dict(model), {**weights, **kept})
    assert report.fresh == classifier
    assert str(report).endswith("; its classifier of 6 classes was dropped, the model has 4")
    assert "\n" not in str(report)


def test_a_model_without_classifier_drops_the_files(file, weights):
    model = build_model(SPEC, num_classes=None)
    report = load_weights(model, file)
    assert_equal(as_dict(model), {p: a for p, a in weights.items() if "classifier" not in p})
    assert report.fresh == ()
    assert str(report).endswith("; its classifier of 6 classes was dropped, the model has none")


def test_a_file_without_classifier_leaves_the_models_fresh(weights, tmp_path):
    headless = {path: array for path, array in weights.items() if "classifier" not in path}
    write_weights_file(tmp_path / "pooled.weights.h5", SPEC, headless)
    model = build_model(SPEC, num_classes=4)
    report = load_weights(model, tmp_path / "pooled.weights.h5")
    assert report.fresh == ("classifier/kernel", "classifier/bias")
    assert str(report).endswith("; it has no classifier, the model's of 4 classes starts fresh")


def test_another_network_is_refused_and_leaves_the_model_as_it_was(file):
    model = build_model(get_spec("efficientnet-b0", width=0.5, depth=0.1), num_classes=6)
    before = as_dict(model)
    with pytest.raises(
        WeightsError, match=r"six\.weights\.h5 does not match .* another shape \(first: "
    ):
        load_weights(model, file)
    assert_equal(as_dict(model), before)
    with pytest.raises(WeightsError, match=r"are missing .*, .* not in it "):
        load_weights(build_model(SPEC, include="features"), _rename(file, "stem_conv", "root"))


@pytest.mark.parametrize("headless", [False, True])
def test_a_published_network_is_recognised_by_its_weights(headless):
    shapes = complexity(get_spec("efficientnet-b0"), num_classes=6).variable_shapes
    names = [
        path for path in shapes if not (headless and path.startswith(("head_", "classifier/")))
    ]
    found = {path: shapes[path] for path in names}
    expected = complexity(get_spec("efficientnet-b1"), num_classes=6).variable_shapes
    with pytest.raises(WeightsError) as error:
        require_match(found, expected, "b0.weights.h5", "efficientnet-b1")
    message = str(error.value)
    assert message.startswith(
        "b0.weights.h5 holds efficientnet-b0 and does not match efficientnet-b1: "
    )
    assert message.endswith("; give --model=efficientnet-b0")
    assert len(message) < 400
    require_match(expected, expected, "b1.weights.h5", "efficientnet-b1")


def test_an_unpublished_network_is_not_named():
    shapes = complexity(get_spec("efficientnet-b0", width=0.25), num_classes=6).variable_shapes
    assert recognize_network(shapes.values()) is None
    assert recognize_network([]) is None
    expected = complexity(get_spec("efficientnet-b1"), num_classes=6).variable_shapes
    with pytest.raises(WeightsError, match="does not match efficientnet-b1") as error:
        require_match(shapes, expected, "mine.weights.h5", "efficientnet-b1")
    assert "holds" not in str(error.value)
    assert "--model" not in str(error.value)


def _rename(file, layer, name):
    def rename(_, item):
        if item.attrs.get("name") == layer:
            item.attrs["name"] = name

    with h5py.File(file, "r+") as h5:
        h5.visititems(rename)
    return file


def test_an_optimizers_state_is_not_taken_for_weights(weights, tmp_path):
    model = build_model(SPEC, num_classes=6)
    model.compile(optimizer="adam", loss="mse")
    model.optimizer.build(model.trainable_variables)
    model.save_weights(tmp_path / "compiled.weights.h5")
    assert set(read_weights_file(tmp_path / "compiled.weights.h5")) == set(weights)


def test_a_files_layout_without_names_or_of_another_kind_is_one_line(tmp_path):
    with pytest.raises(WeightsError, match=r"no weights at .*absent"):
        read_weights_file(tmp_path / "absent.weights.h5")
    (tmp_path / "text.weights.h5").write_text("not HDF5")
    with pytest.raises(WeightsError, match=r"cannot read .*text"):
        read_weights_file(tmp_path / "text.weights.h5")
    with h5py.File(tmp_path / "empty.weights.h5", "w") as h5:
        h5.create_group("layers/conv2d/vars")["0"] = np.zeros((3, 3, 3, 8), "float32")
    with pytest.raises(WeightsError, match=r"names no layers"):
        read_weights_file(tmp_path / "empty.weights.h5")


def test_files_that_are_not_local_are_read_too(file, weights):
    assert set(read_weights_file(f"file://{file}")) == set(weights)
    with pytest.raises(WeightsError, match=r"no weights at file:///absent"):
        read_weights_file("file:///absent.weights.h5")


def test_only_whole_networks_are_written_and_nothing_is_left_behind(weights, tmp_path):
    partial = {path: array for path, array in weights.items() if path != "stem_conv/kernel"}
    with pytest.raises(WeightsError, match=r"1 of .* missing \(first: stem_conv/kernel\)"):
        write_weights_file(tmp_path / "partial.weights.h5", SPEC, partial)
    with pytest.raises(WeightsError, match=r"must end in \.weights\.h5"):
        write_weights_file(tmp_path / "name.h5", SPEC, weights)
    with pytest.raises(WeightsError, match=r"gs://.* must be a local file"):
        write_weights_file("gs://bucket/name.weights.h5", SPEC, weights)
    assert list(tmp_path.iterdir()) == []
