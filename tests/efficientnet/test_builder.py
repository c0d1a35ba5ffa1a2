"""The built network: endpoints, forms, names, dtypes, injected batch norm, saving."""

import keras
import numpy as np
import pytest

from efficientnet import build_model, endpoints, get_spec

SMALL = get_spec("efficientnet-b0", width=0.25, depth=0.5)


def images(size, batch=2):
    return np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype("float32")


def test_endpoints_have_the_published_strides_and_filters():
    model = build_model("efficientnet-b0", num_classes=10, image_size=224)
    assert {name: x.shape[1:] for name, x in endpoints(model).items()} == {
        "reduction_1": (112, 112, 16),
        "reduction_2": (56, 56, 24),
        "reduction_3": (28, 28, 40),
        "reduction_4": (14, 14, 112),
        "reduction_5": (7, 7, 320),
        "features": (7, 7, 1280),
        "pooled": (1280,),
        "logits": (10,),
    }


def test_endpoints_make_a_model_that_agrees_with_the_network():
    model = build_model(SMALL, num_classes=10)
    out = keras.Model(model.input, endpoints(model))(images(64))
    np.testing.assert_array_equal(out["logits"], model(images(64)))
    np.testing.assert_allclose(
        out["pooled"], np.mean(out["features"], axis=(1, 2)), rtol=1e-5, atol=1e-7
    )
    # The reduction is the block's output, skip included, not the projection before it.
    block = keras.Model(model.input, model.get_layer("block_6_add").output)(images(64))
    np.testing.assert_array_equal(out["reduction_4"], block)


@pytest.mark.parametrize("form", [{"num_classes": None}, {"include": "pooled"}])
def test_pooled_form_ends_before_dropout_and_classifier(form):
    model = build_model(SMALL, **form)
    assert model(images(64)).shape == (2, 320)
    assert list(endpoints(model))[-2:] == ["features", "pooled"]
    assert model.layers[-1].name == "pooled"


def test_features_form_ends_with_the_last_block():
    model = build_model(SMALL, include="features")
    assert model(images(64)).shape == (2, 2, 2, 80)
    found = endpoints(model)
    assert list(found) == [*(f"reduction_{i}" for i in range(1, 6)), "features"]
    assert found["features"] is found["reduction_5"]


def test_any_height_and_width_unless_a_size_is_given():
    model = build_model(SMALL, num_classes=10)
    assert model(np.zeros((1, 33, 70, 3), "float32")).shape == (1, 10)
    fixed = build_model(SMALL, num_classes=10, image_size=32)
    assert fixed.input.shape == (None, 32, 32, 3)


def test_a_rebuilt_model_has_the_same_variable_paths():
    first, second = build_model(SMALL), build_model(SMALL)
    assert [v.path for v in first.variables] == [v.path for v in second.variables]
    paths = {v.path for v in first.variables}  # seeds included
    assert len(paths) == len(first.variables) > len(first.weights)
    assert {
        "stem_conv/kernel", "stem_bn/gamma", "stem_bn/moving_variance",
        "block_0_depthwise_conv/kernel", "block_1_expand_conv/kernel", "block_1_expand_bn/beta",
        "block_1_depthwise_bn/moving_mean", "block_1_se_reduce/bias", "block_1_se_expand/kernel",
        "block_1_project_conv/kernel", "block_1_project_bn/gamma", "head_conv/kernel",
        "head_bn/beta", "classifier/kernel", "classifier/bias",
    } <= paths  # fmt: skip


def test_only_squeeze_excite_and_classifier_have_biases():
    paths = [v.path for v in build_model("efficientnet-b0").weights]
    with_bias = {path.removesuffix("/bias") for path in paths if path.endswith("/bias")}
    assert with_bias == {"classifier"} | {
        f"block_{i}_se_{part}" for i in range(16) for part in ("reduce", "expand")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "compute", "tolerance"),
    [("mixed_bfloat16", "bfloat16", 0.05), ("mixed_float16", "float16", 0.01)],
)
def test_mixed_policies_compute_in_16_bits_and_keep_variables_and_logits_in_float32(
    dtype, compute, tolerance, settle
):
    keras.utils.set_random_seed(0)
    model = build_model(SMALL, num_classes=10, dtype=dtype)
    assert {v.dtype for v in model.weights} == {"float32"}
    assert {layer.compute_dtype for layer in model.layers[1:-1]} == {compute}
    assert {layer.output.dtype for layer in model.layers[1:-1]} == {compute}
    settle(model, images(64, batch=4))
    classifier = model.get_layer("classifier").kernel
    classifier.assign(classifier * 10.0)  # logits of a trained network's size
    for training in (True, False):
        logits = model(images(64, batch=4), training=training)
        assert keras.backend.standardize_dtype(logits.dtype) == "float32"
        assert np.isfinite(logits).all()
    single = build_model(SMALL, num_classes=10)
    single.set_weights(model.get_weights())
    assert np.ptp(logits, axis=0).max() > 0.2  # the logits do depend on the image
    np.testing.assert_allclose(logits, single(images(64, batch=4)), atol=tolerance)


def test_batch_norm_is_made_by_the_factory_with_the_models_constants():
    made = []

    def batch_norm(**arguments):
        made.append(arguments)
        return keras.layers.BatchNormalization(**arguments)

    model = build_model(SMALL, batch_norm=batch_norm, dtype="mixed_bfloat16")
    names = [layer.name for layer in model.layers if layer.name.endswith("_bn")]
    assert [arguments["name"] for arguments in made] == names
    for arguments in made:
        del arguments["name"]
        assert arguments == {"momentum": 0.99, "epsilon": 1e-3, "dtype": "mixed_bfloat16"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
def test_a_saved_model_comes_back_whole(tmp_path):
    model = build_model(SMALL, num_classes=10)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images(64)), model(images(64)))
    assert list(endpoints(loaded)) == list(endpoints(model))
    assert loaded.get_layer("block_4_stochastic_depth").survival_probability == pytest.approx(0.92)


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="include is 'top'"):
        build_model(SMALL, include="top")
    with pytest.raises(ValueError, match="num_classes is 0"):
        build_model(SMALL, num_classes=0)
