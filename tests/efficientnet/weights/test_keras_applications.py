"""keras.applications' EfficientNets with random weights compute what ours compute, both ways."""

from dataclasses import replace

import h5py
import keras
import numpy as np
import pytest

from efficientnet import build_model, complexity, get_spec, normalize_images
from efficientnet.weights import WeightsError
from efficientnet.weights.keras_applications import (
    from_keras_applications,
    normalization,
    read_keras_applications_file,
    to_keras_applications,
)
from efficientnet.weights.keras_file import assign_weights

pytestmark = pytest.mark.slow

MEAN = np.array([0.485, 0.456, 0.406])
STDDEV = np.array([0.229, 0.224, 0.225])
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype("float32")
B0 = get_spec("efficientnet-b0")


def set_normalization(model, mean, variance):
    layer = next(x for x in model.layers if isinstance(x, keras.layers.Normalization))
    layer.set_weights([mean, variance, np.zeros(())])
    layer.finalize_state()


def make(name, classes, settle):
    keras.utils.set_random_seed(0)
    factory = getattr(keras.applications, name)
    model = factory(
        weights=None, input_shape=(64, 64, 3), classes=classes, classifier_activation=None
    )
    set_normalization(model, MEAN, STDDEV**2)
    settle(model, IMAGES)
    return model


def ours(spec, weights, images=IMAGES):
    classes = len(weights["classifier/bias"])
    model = build_model(spec, num_classes=classes, image_size=images.shape[1])
    assign_weights(model, weights)
    return model(normalize_images(images, spec.mean_rgb, spec.stddev_rgb)).numpy()


@pytest.mark.parametrize("number", range(4))
def test_logits_agree_both_ways(number, settle):
    spec = get_spec(f"efficientnet-b{number}")
    theirs = make(f"EfficientNetB{number}", 7, settle)
    before = theirs(IMAGES).numpy()
    assert np.ptp(before, axis=0).max() > 0.3  # the logits do depend on the image
    weights = from_keras_applications(theirs, spec)
    np.testing.assert_allclose(ours(spec, weights), before, atol=1e-4)

    for variable in theirs.weights:
        variable.assign(np.full(variable.shape, 0.5))
    to_keras_applications(weights, spec, theirs)
    np.testing.assert_allclose(theirs(IMAGES).numpy(), before, atol=1e-4)


# -- EfficientNetV2 -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "ours_"), [("B0", "b0"), ("B1", "b1"), ("S", "s")], ids=lambda name: name
)
def test_v2s_logits_agree_both_ways(theirs, ours_, settle):
    spec = get_spec(f"efficientnetv2-{ours_}")
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, f"EfficientNetV2{theirs}")(
        weights=None, input_shape=(64, 64, 3), classes=7, classifier_activation=None
    )
    settle(model, IMAGES)
    before = model(IMAGES).numpy()
    assert np.ptp(before, axis=0).max() > 0.3
    weights = from_keras_applications(model, spec)
    np.testing.assert_allclose(ours(spec, weights), before, atol=1e-4)
    for variable in model.weights:
        variable.assign(np.full(variable.shape, 0.5))
    to_keras_applications(weights, spec, model)
    np.testing.assert_allclose(model(IMAGES).numpy(), before, atol=1e-4)


@pytest.mark.parametrize(
    ("theirs", "ours_"), [("B2", "b2"), ("B3", "b3"), ("M", "m"), ("L", "l")], ids=lambda name: name
)
def test_larger_v2_networks_have_our_variables(theirs, ours_):
    spec = get_spec(f"efficientnetv2-{ours_}")
    model = getattr(keras.applications, f"EfficientNetV2{theirs}")(weights=None)
    weights = from_keras_applications(model, spec)  # strict in names and shapes
    found = {path: array.shape for path, array in weights.items()}
    assert found == complexity(spec).variable_shapes


@pytest.mark.parametrize(("theirs", "ours_"), [("B0", "b0"), ("S", "s")], ids=lambda name: name)
def test_a_file_of_v2_holds_no_normalisation_and_is_read(theirs, ours_, tmp_path):
    spec = get_spec(f"efficientnetv2-{ours_}")
    model = getattr(keras.applications, f"EfficientNetV2{theirs}")(
        weights=None, input_shape=(64, 64, 3), classes=7
    )
    write_published_layout(model, tmp_path / "published.h5")
    model.save_weights(tmp_path / "saved.weights.h5")
    expected = from_keras_applications(model, spec)
    for file in ("published.h5", "saved.weights.h5"):
        found = read_keras_applications_file(tmp_path / file, spec)
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, err_msg=name)


def test_another_fixed_mean_is_refused():
    model = keras.applications.EfficientNetV2B0(
        weights=None, input_shape=(64, 64, 3), classes=7, classifier_activation=None
    )
    spec = replace(get_spec("efficientnetv2-b0"), mean_rgb=(128.0, 128.0, 128.0))
    with pytest.raises(WeightsError, match="subtracts a mean of"):
        from_keras_applications(model, spec)


@pytest.mark.parametrize("number", range(4, 8))
def test_larger_networks_have_our_variables_layer_by_layer(number):
    spec = get_spec(f"efficientnet-b{number}")
    theirs = getattr(keras.applications, f"EfficientNetB{number}")(weights=None)
    set_normalization(theirs, MEAN, STDDEV**2)
    weights = from_keras_applications(theirs, spec)  # strict in names and shapes
    assert {path: array.shape for path, array in weights.items()} == (
        complexity(spec).variable_shapes
    )
    np.testing.assert_array_equal(
        weights[f"block_{len(spec.blocks) - 1}_expand_conv/kernel"],
        theirs.get_layer(f"block7{'abcd'[len(spec.stages[-1]) - 1]}_expand_conv").kernel,
    )


@pytest.fixture(scope="module")
def b0(settle):
    return make("EfficientNetB0", 1000, settle)


@pytest.fixture(scope="module")
def b0_logits(b0):
    return b0(IMAGES).numpy()


def write_published_layout(model, file):
    """The layout of the published .h5 files: a group a layer, which lists its arrays in bytes."""
    with h5py.File(file, "w") as h5:
        h5.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = h5.create_group(layer.name)
            names = [f"{layer.name}/{variable.name}:0".encode() for variable in layer.weights]
            group.attrs["weight_names"] = names
            for name, variable in zip(names, layer.weights, strict=True):
                group[name] = variable.numpy()


@pytest.fixture(scope="module")
def imagenet_b0(b0, tmp_path_factory):
    """What `weights="imagenet"` makes of a file as published, and the file; no download."""
    file = tmp_path_factory.mktemp("published") / "efficientnetb0.h5"
    set_normalization(b0, MEAN, STDDEV)  # the published quirk: a deviation in place of a variance
    write_published_layout(b0, file)
    set_normalization(b0, MEAN, STDDEV**2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras.src.utils.file_utils.get_file", lambda *args, **kwargs: str(file))
        model = keras.applications.EfficientNetB0(classifier_activation=None)
    return model, file


def test_the_additional_rescaling_of_imagenet_models_is_understood(imagenet_b0):
    model, _ = imagenet_b0
    assert sum(isinstance(layer, keras.layers.Rescaling) for layer in model.layers) == 2
    mean_rgb, stddev_rgb = normalization(model)
    np.testing.assert_allclose(mean_rgb, MEAN * 255, rtol=1e-5)
    np.testing.assert_allclose(stddev_rgb, STDDEV * 255, rtol=1e-5)


def test_published_file_and_live_imagenet_model_give_the_same(imagenet_b0, b0_logits):
    model, file = imagenet_b0
    live, read = from_keras_applications(model, B0), read_keras_applications_file(file, B0)
    for path, array in live.items():
        np.testing.assert_allclose(read[path], array, rtol=1e-6, err_msg=path)
    np.testing.assert_allclose(ours(B0, read), b0_logits, atol=1e-4)


def test_our_normalisation_survives_their_additional_rescaling(imagenet_b0, b0, b0_logits):
    target, _ = imagenet_b0
    to_keras_applications(from_keras_applications(b0, B0), B0, target)
    images = np.tile(IMAGES[:1], (1, 4, 4, 1))[:, :224, :224]
    np.testing.assert_allclose(
        target(images).numpy(), ours(B0, from_keras_applications(b0, B0), images), atol=1e-4
    )


@pytest.mark.parametrize("extension", [".weights.h5", ".h5", "_published.h5"])
def test_files_are_read_in_every_layout(extension, b0, b0_logits, tmp_path):
    file = tmp_path / f"saved{extension}"
    if extension == ".weights.h5":
        b0.save_weights(file)
    elif extension == ".h5":
        b0.save(file)
    else:
        write_published_layout(b0, file)
    weights = read_keras_applications_file(file, B0)
    np.testing.assert_allclose(ours(B0, weights), b0_logits, atol=1e-4)


def test_a_file_without_top_gives_weights_without_classifier(tmp_path):
    headless = keras.applications.EfficientNetB0(weights=None, include_top=False)
    set_normalization(headless, MEAN, STDDEV**2)
    headless.save_weights(tmp_path / "notop.weights.h5")
    weights = read_keras_applications_file(tmp_path / "notop.weights.h5", B0)
    assert {path: array.shape for path, array in weights.items()} == (
        complexity(B0, num_classes=None).variable_shapes
    )


def test_another_deviation_is_folded_into_the_first_convolution(b0):
    set_normalization(b0, MEAN, np.array([0.04, 0.09, 0.16]))
    np.testing.assert_allclose(
        ours(B0, from_keras_applications(b0, B0)), b0(IMAGES).numpy(), atol=1e-4
    )
    set_normalization(b0, MEAN, STDDEV**2)


def test_another_mean_is_refused_unless_the_specification_has_it(b0):
    set_normalization(b0, np.zeros(3), np.ones(3))
    try:
        with pytest.raises(
            WeightsError, match=r"subtracts a mean of \(0.00, 0.00, 0.00\), efficientnet-b0 one of"
        ):
            from_keras_applications(b0, B0)
        plain = replace(B0, mean_rgb=(0.0, 0.0, 0.0), stddev_rgb=(255.0, 255.0, 255.0))
        np.testing.assert_allclose(
            ours(plain, from_keras_applications(b0, plain)), b0(IMAGES).numpy(), atol=1e-4
        )
    finally:
        set_normalization(b0, MEAN, STDDEV**2)


def test_other_networks_and_files_are_refused_in_one_line(b0, tmp_path):
    with pytest.raises(WeightsError, match=r"does not match efficientnet-b1: .* missing"):
        from_keras_applications(b0, get_spec("efficientnet-b1"))
    with pytest.raises(
        WeightsError, match=r"does not match keras\.applications' efficientnetb0: .* missing"
    ):
        to_keras_applications({}, B0, b0)
    with pytest.raises(WeightsError, match="no weights at"):
        read_keras_applications_file(tmp_path / "absent.h5", B0)
    b0.save_weights(tmp_path / "b0.weights.h5")
    with pytest.raises(WeightsError, match=r"does not match efficientnet-b1: .* missing") as error:
        read_keras_applications_file(tmp_path / "b0.weights.h5", get_spec("efficientnet-b1"))
    assert "\n" not in str(error.value)
    build_model(B0, include="features").save_weights(tmp_path / "ours.weights.h5")
    with pytest.raises(WeightsError, match="no normalization layer"):
        read_keras_applications_file(tmp_path / "ours.weights.h5", B0)
