"""Initial weights of any format start a run, and fill in the settings that they expect."""

import keras
import numpy as np
import pytest

from configs.load import ConfigError, load_experiment
from efficientnet import complexity, get_spec
from efficientnet.weights import write_weights_file
from efficientnet.weights.expectations import Expectations
from efficientnet.weights.safetensors_file import write_safetensors
from efficientnet.weights.timm import to_timm
from run_folder.experiment import save_run_experiment
from system.errors import UsageError, UserError
from training import initial
from training.build import make_state
from training.devices.distribution import connect
from training.initial import FIELDS, with_expectations
from training.job import model_spec, open_job

SPEC = get_spec("efficientnet-b0", width=0.25, depth=0.5)
HALF = ((127.5,) * 3, (127.5,) * 3)
OPEN = {
    "model.normalization": HALF,
    "model.padding": "symmetric",
    "batch_norm.epsilon": 0.01,
    "model.image_size": 48,
    "eval.resize": "bilinear",
    "eval.crop_padding": 12,
}
EXPECTED = Expectations(
    "a test",
    normalization=HALF,
    batch_norm_epsilon=0.01,
    padding="symmetric",
    image_size=48,
    crop_fraction=0.8,
    resize="bilinear",
)


@pytest.fixture(scope="module")
def weights():
    random = np.random.default_rng(0)
    shapes = complexity(SPEC, num_classes=5).variable_shapes
    return {
        path: random.uniform(0.5, 1.5, shape).astype(np.float32) for path, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.weights.h5"
    write_weights_file(path, SPEC, weights, EXPECTED)
    return path


@pytest.fixture
def logged(monkeypatch):
    lines = []
    monkeypatch.setattr(initial, "log", lines.append)
    return lines


def smoke(*settings):
    """The smoke test's experiment, with its image size left open."""
    return load_experiment("configs/smoke.yaml", overrides=["model.image_size=null", *settings])


def values(experiment):
    return {
        f"{section}.{field}": getattr(getattr(experiment, section), field)
        for section, field in FIELDS
    }


def test_open_fields_take_what_the_weights_expect(file, logged):
    experiment = with_expectations(smoke(f"init.weights={file}"), model_spec)
    assert values(experiment) == OPEN
    assert len(logged) == len(OPEN)
    assert "model.image_size=48, as the weights of a test expect" in logged
    assert any(line.startswith("model.normalization=[[127.5, 127.5, 127.5], [") for line in logged)


def test_without_initial_weights_nothing_changes(logged):
    experiment = smoke()
    assert with_expectations(experiment, model_spec) is experiment
    assert not logged


def test_what_is_set_is_kept_and_the_difference_logged(file, logged):
    settings = [f"init.weights={file}", "model.image_size=32", "batch_norm.epsilon=0.01"]
    experiment = with_expectations(smoke(*settings), model_spec)
    # Of 32 pixels the same share of the image.
    assert values(experiment) == OPEN | {"model.image_size": 32, "eval.crop_padding": 8}
    assert "model.image_size=32, and the weights of a test expect 48: kept as set" in logged
    assert not any("epsilon" in line for line in logged)


def test_a_difference_is_an_error_under_strict(file):
    settings = [f"init.weights={file}", "init.strict=true"]
    assert values(with_expectations(smoke(*settings), model_spec)) == OPEN
    with pytest.raises(
        UsageError, match=r"^batch_norm\.epsilon=0\.5, and the weights of a test expect 0\.01: "
    ):
        with_expectations(smoke(*settings, "batch_norm.epsilon=0.5"), model_spec)
    with pytest.raises(ConfigError, match=r"there are none: set init\.weights"):
        smoke("init.strict=true")


def test_only_a_centre_crop_takes_a_padding_and_phi_keeps_its_size(file):
    squashed = with_expectations(smoke(f"init.weights={file}", "eval.framing=squash"), model_spec)
    assert not hasattr(squashed.eval, "crop_padding")
    settings = ["model.width=null", "model.depth=null", "model.phi=0", f"init.weights={file}"]
    # The arrays of b0 itself would be needed to start; what they expect is known without.
    assert with_expectations(smoke(*settings), model_spec).model.image_size is None


def test_what_the_network_has_already_is_not_repeated(weights, tmp_path, logged):
    own = Expectations(
        "a test", (SPEC.mean_rgb, SPEC.stddev_rgb), 1e-3, 224, 0.875, "bicubic", "same"
    )
    write_weights_file(tmp_path / "own.weights.h5", SPEC, weights, own)
    before = smoke(f"init.weights={tmp_path / 'own.weights.h5'}")
    assert with_expectations(before, model_spec) == before
    assert not logged


def test_a_run_that_has_begun_does_not_need_its_weights(file, tmp_path, logged):
    run = f"model_dir={tmp_path / 'run'}"
    begun = with_expectations(smoke(run, f"init.weights={file}"), model_spec)
    save_run_experiment(
        begun.model_copy(update={"init": begun.init.model_copy(update={"weights": "gone.h5"})}),
        str(tmp_path / "run"),
    )
    logged.clear()
    resumed = with_expectations(
        smoke(run, "init.weights=gone.h5", "eval.resize=bicubic"), model_spec
    )
    assert values(resumed) == OPEN | {"eval.resize": "bicubic"}
    assert not logged
    with pytest.raises(UserError, match=r"no weights at other\.h5"):
        with_expectations(smoke(run, "init.weights=other.h5"), model_spec)


@pytest.mark.slow
def test_a_run_starts_from_a_file_of_timm_with_a_classifier_of_its_own(
    weights, tmp_path, logged, capsys
):
    source = tmp_path / "downloaded"
    metadata = {"architecture": "tf_efficientnet_b0.ap_in1k"}
    write_safetensors(source, to_timm(weights, SPEC, 5), metadata)
    job = open_job(smoke(f"init.weights={source}"), connect("cpu"))
    assert (job.spec.mean_rgb, job.spec.stddev_rgb) == HALF
    assert job.experiment.model.normalization == HALF
    network = make_state(job, initial_weights=str(source))[0].network
    assert isinstance(network, keras.Model)
    found = {variable.path: variable.numpy() for variable in network.weights}
    for path, array in weights.items():
        if not path.startswith("classifier"):
            np.testing.assert_array_equal(found[path], array, err_msg=path)
    assert "its classifier of 5 classes was dropped, the model has 1000" in capsys.readouterr().out
